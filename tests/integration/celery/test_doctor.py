"""`sagas doctor` on whole installations: real servers, real workers and beat, the command as a process."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from sagas.celery.doctor.broker import queues
from sagas.celery.doctor.workers import answers
from sagas.doctor import Finding
from sagas.settings import PREFIX
from sagas.storage.schema import migrate
from sagas.testing.processes import CeleryProcess, wait_until
from sagas.testing.servers import PostgresServer
from tests.integration.celery.conftest import Start

#: For a machine that is busy: the command itself takes seconds.
DEADLINE_SECONDS = 90
Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(environment: dict[str, str], tmp_path: Path) -> Doctor:
    """Runs the command in an environment and returns its exit code and what it says."""
    # Sane ones, unlike those of the suite, which is in a hurry.
    for name in ("SAGAS_LEASE_SECONDS", "SAGAS_BACKOFF_SECONDS", "SAGAS_SCAN_INTERVAL_SECONDS"):
        environment.pop(name)

    def run(**changed: str) -> tuple[int, dict[str, Any]]:
        done = _run(tmp_path, {**environment, **changed}, "--json")
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    return run


def _run(directory: Path, environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return subprocess.run(
        [sys.executable, "-m", "sagas.cli", "doctor", *options],
        env={**inherited, **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def findings(said: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The findings that the command told, by id."""
    return {finding["id"]: finding for check in said["checks"] for finding in check["findings"]}


def states(said: dict[str, Any]) -> dict[str, str]:
    """How each check ended."""
    return {check["name"]: check["state"] for check in said["checks"]}


@pytest.fixture
def safe_database_url(server_directory: Path) -> Iterator[str]:
    """A migrated database on a server that flushes what it commits, as in production."""
    with PostgresServer(server_directory / f"doctor-{secrets.token_hex(4)}", fsync=True) as server:
        engine = sa.create_engine(server.url)
        with engine.connect() as connection:
            migrate(connection)
        engine.dispose()
        yield server.url


def test_a_healthy_installation_has_no_finding_and_differences_from_its_worker_are_told(
    doctor: Doctor,
    celery: Start,
    environment: dict[str, str],
    safe_database_url: str,
    database_url: str,
    tmp_path: Path,
    app: Celery,
) -> None:
    environment["SAGAS_DATABASE_URL"] = safe_database_url
    # Another version of this package, as far as what it says of itself.
    older = tmp_path / "older"
    described = older / "celery_sagas-0.0.1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-sagas\nVersion: 0.0.1\n")
    (described / "entry_points.txt").write_text("[sagas.doctor]\ncelery = sagas.celery.doctor:load_checks\n")
    worker = celery("worker", "-c", "1")
    celery("beat", "-s", str(tmp_path / "schedule"))
    worker.wait_for_log("sagas.scan")
    wait_until(lambda: _scanned(safe_database_url), what="a scan")

    code, said = doctor()
    assert (findings(said), said["problems"], said["warnings"], code) == ({}, 0, 0, 0)
    assert set(states(said).values()) == {"ok"}

    told = _run(tmp_path, environment)
    assert told.returncode == 0
    assert told.stdout.endswith("\n0 problems, 0 warnings.\n")
    assert sa.make_url(safe_database_url).password not in told.stdout

    # The same worker, seen from environments that are not its own; the last is of a database without scans.
    code, said = doctor(SAGAS_LEASE_SECONDS="20", PYTHONPATH=f"{older}:{environment['PYTHONPATH']}")
    assert code == 0, "warnings alone are not a problem"
    assert set(findings(said)) == {"worker-differs", "worker-version"}
    assert findings(said)["worker-differs"]["what"] == "w1@test: SAGAS_LEASE_SECONDS is 30.0 there and 20.0 here."
    code, said = doctor(SAGAS_DATABASE_URL=database_url)
    assert code == 1
    assert {"worker-elsewhere", "scan-never"} <= set(findings(said))


def _scanned(url: str) -> bool:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM saga_scans").scalar_one()
    engine.dispose()
    return bool(found)


def test_workers_that_do_not_do_are_told(
    app: Celery, celery: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    (finding,) = answers(app)
    assert isinstance(finding, Finding)
    assert finding.id == "no-worker"

    # Of another application on the same broker, which takes one of our queues by mistake.
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('shop', broker={environment['SAGAS_BROKER_URL']!r})\n"
        "@app.task\n"
        "def sell(): pass\n"
    )
    arguments = ["worker", "-P", "solo", "-n", "shop@test", "-Q", "sagas.run", "-l", "INFO"]
    with CeleryProcess(
        arguments, application="shop", environment=environment, log=tmp_path / "shop.log", directory=tmp_path
    ) as shop:
        shop.wait_for_log(" ready.")
        celery("worker", "-c", "1", "-Q", "sagas.recover")
        # A worker is ready a moment before it listens to questions.
        wait_until(lambda: len(app.control.inspect().ping() or {}) == 2, what="an answer of both")
        told = {each.id: each for each in answers(app) if isinstance(each, Finding)}
        shop.kill()
    assert told["queue-without-worker"].what == "no worker takes sagas.scan."
    assert told["tasks-missing"].what == (
        "shop@test does not know sagas.scan, sagas.prune, sagas.recover_saga, sagas.run_saga."
    )


def test_scans_that_pile_up_are_told(app: Celery) -> None:
    for _ in range(3):
        app.send_task("sagas.scan")
    assert not [each for each in queues(app) if isinstance(each, Finding)]
    app.send_task("sagas.scan")
    _, finding = queues(app)
    assert isinstance(finding, Finding)
    assert (finding.id, finding.what) == ("scans-pile-up", "4 scans wait in sagas.scan.")


def test_a_broker_that_is_down_and_an_unsafe_application_are_reported_with_the_rest(
    doctor: Doctor, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\n"
        "from sagas.celery import install\n"
        "app = Celery('shop', broker='redis://:s3cr3t@127.0.0.1:1/0', accept_content=['json', 'pickle'])\n"
        "install(app)\n"
    )
    code, said = doctor(SAGAS_CELERY_APP="shop:app", SAGAS_LEASE_SECOND="9")
    assert code == 1
    expected = {"broker-down", "broker-differs", "pickle-accepted", "prefetch", "setting-unknown", "scan-never"}
    assert expected <= set(findings(said))
    assert states(said)["workers"] == "skipped"
    assert states(said)["definitions"] == "ok"
    assert "s3cr3t" not in json.dumps(said)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"SAGAS_CELERY_APP": "no_such_module"}, "No module named 'no_such_module'"),
        ({"SAGAS_CELERY_APP": "broken"}, "ZeroDivisionError"),
        ({"SAGAS_CELERY_APP": "bare:app"}, "call sagas.celery.install(app) where it is made"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_told_and_the_sagas_are_looked_at_all_the_same(
    doctor: Doctor, tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    code, said = doctor(**changed)
    assert code == 1
    assert told in findings(said)["celery-unusable"]["what"]
    assert states(said)["stuck"] == "ok"


def test_it_works_where_celery_cannot_be_imported(doctor: Doctor, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "celery.py").write_text("raise ImportError('no celery here')\n")
    code, said = doctor(PYTHONPATH=f"{tmp_path / 'hidden'}:{environment['PYTHONPATH']}")
    assert code == 1
    assert "no celery here" in findings(said)["celery-unusable"]["what"]
    assert states(said)["definitions"] == "ok"


def test_servers_that_take_connections_and_never_answer_do_not_hang_it(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        code, said = doctor(
            SAGAS_DATABASE_URL=f"postgresql+psycopg://me:s3cr3t@127.0.0.1:{port}/shop",
            SAGAS_BROKER_URL=f"redis://127.0.0.1:{port}/0",
        )
    assert code == 1
    assert {"database-down", "broker-down"} <= set(findings(said))
    assert states(said) | {"database": "problem", "broker": "problem", "workers": "skipped", "stuck": "skipped"} == (
        states(said)
    )
