"""`sagas doctor` with real brokers and workers: the command as a process, and each of Celery's checks by itself."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.contrib.testing.worker import start_worker

from sagas import Settings
from sagas.celery.doctor import BROKER, CELERY, WORKERS, broker, workers
from sagas.doctor import Finding, Installation, examine
from sagas.doctor.database import DATABASE
from sagas.doctor.environment import SETTINGS
from sagas.settings import PREFIX
from sagas.testing.processes import wait_until
from sagas.urls import address
from tests.forking import run_python
from tests.integration.celery.conftest import Start

#: For a machine that is busy: the command itself takes seconds.
DEADLINE_SECONDS = 90
ANSWER_SECONDS = 0.5


def doctor(environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Run the command in an environment and return its exit code and what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = run_python(
        *("-m", "sagas.cli", "doctor", "--json"),
        environment={**inherited, **environment},
        directory=Path.cwd(),
        timeout=DEADLINE_SECONDS,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_a_healthy_installation_has_no_problem(
    celery: Start, environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    worker = celery("worker", "-c", "1", "-B", "-s", str(tmp_path / "schedule"))
    worker.wait_for_log("sagas.scan")
    wait_until(lambda: _scanned(database_url), what="a scan")

    code, printed = doctor(environment)
    assert (code, printed["problems"]) == (0, 0)
    # The suite's own server does not flush, because a crash of the machine ends the suite as well.
    assert {finding["id"] for check in printed["checks"] for finding in check["findings"]} <= {"fsync-off"}
    assert {check["state"] for check in printed["checks"] if check["name"] != "durability"} == {"ok"}
    assert sa.make_url(database_url).password not in json.dumps(printed)


def _scanned(url: str) -> bool:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM saga_scans").scalar_one()
    engine.dispose()
    return bool(found)


# -- the broker -------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_down_is_reported_without_its_password() -> None:
    (finding,) = broker(Celery("shop", broker="redis://:s3cr3t@127.0.0.1:1/0", set_as_current=False))
    assert isinstance(finding, Finding)
    assert finding.id == "broker-down"
    assert "127.0.0.1:1/0" in finding.cure
    assert "s3cr3t" not in str(finding)


def test_servers_that_accept_connections_and_never_answer_do_not_hang_the_doctor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        (tmp_path / "mute_shop.py").write_text(
            "from celery import Celery\n"
            "from sagas.celery import install\n"
            f"app = Celery('shop', broker='redis://127.0.0.1:{port}/0', set_as_current=False)\n"
            "install(app)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("SAGAS_CELERY_APP", "mute_shop:app")
        monkeypatch.setenv("SAGAS_DATABASE_URL", f"postgresql+psycopg://me:s3cr3t@127.0.0.1:{port}/shop")
        checks = (SETTINGS, DATABASE, CELERY, BROKER, WORKERS)
        results = {each.name: each for each in examine(Installation(os.environ), checks, seconds=2)}
    assert [finding.id for finding in results["database"].findings] == ["no-answer"]
    assert [finding.id for finding in results["broker"].findings] == ["no-answer"]
    assert results["workers"].because == "broker"


# -- the application --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "error"),
    [
        ("no_such_module", "No module named 'no_such_module'"),
        ("broken_shop", "ZeroDivisionError"),
        ("exiting_shop", "SystemExit: so there"),
        ("bare_shop:app", "call sagas.celery.install(app) where it is made"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, application: str, error: str
) -> None:
    (tmp_path / "broken_shop.py").write_text("1 / 0\n")
    (tmp_path / "exiting_shop.py").write_text("raise SystemExit('so there')\n")
    (tmp_path / "bare_shop.py").write_text("from celery import Celery\napp = Celery('bare', set_as_current=False)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAGAS_CELERY_APP", application)
    (finding,) = CELERY.run(Installation(os.environ))
    assert isinstance(finding, Finding)
    assert finding.id == "celery-unusable"
    assert error in finding.what


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's variables in this process, where its workers are."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@contextmanager
def consuming(app: Celery, *queues: str) -> Iterator[None]:
    """A worker in a thread of this process; it leaves the process's logging as it was."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    try:
        with start_worker(app, pool="solo", queues=[*queues], perform_ping_check=False, shutdown_timeout=60):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def messages_of(app: Celery, database_url: str) -> dict[str, str]:
    """What the check of the workers finds: the messages by id."""
    installation = Installation({}, settings=Settings(database_url=database_url))
    findings = [each for each in workers(app, installation, seconds=ANSWER_SECONDS) if isinstance(each, Finding)]
    assert {finding.id for finding in findings} <= {finding.id for finding in WORKERS.findings}
    return {finding.id: finding.what for finding in findings}


def wait_for_messages(app: Celery, database_url: str, *ids: str) -> dict[str, str]:
    """Check the workers until exactly these findings are left, as a worker is ready before it answers questions."""
    seen: list[dict[str, str]] = []

    def settled() -> bool:
        seen.append(messages_of(app, database_url))
        return set(seen[-1]) == {*ids}

    wait_until(settled, what=f"{ids} alone")
    return seen[-1]


@pytest.mark.usefixtures("variables")
def test_no_worker_and_a_worker_of_another_application_are_reported(app: Celery, database_url: str) -> None:
    assert messages_of(app, database_url) == {"no-worker": f"no worker answered within {ANSWER_SECONDS:g} s."}

    # On the same broker, and consuming queues of sagas by mistake.
    shop = Celery("shop", broker=app.conf.broker_url, set_as_current=False)
    with consuming(shop, "celery", "sagas.run", "sagas.recover"):
        messages = wait_for_messages(app, database_url, "queue-without-worker", "tasks-missing")
    assert messages["queue-without-worker"] == "no worker consumes sagas.scan."
    assert messages["tasks-missing"].endswith(
        " does not know sagas.scan, sagas.prune, sagas.recover_saga, sagas.run_saga."
    )


@pytest.mark.usefixtures("variables")
def test_a_worker_on_another_database_is_reported(app: Celery, database_url: str) -> None:
    other = sa.make_url(database_url).set(database="elsewhere")
    with consuming(app, "sagas.scan", "sagas.run", "sagas.recover"):
        wait_for_messages(app, database_url)
        messages = wait_for_messages(app, other.render_as_string(hide_password=False), "worker-elsewhere")
    here, there = address(sa.make_url(database_url)), address(other)
    assert messages["worker-elsewhere"].endswith(f" uses the database at {here}, and this environment names {there}.")
