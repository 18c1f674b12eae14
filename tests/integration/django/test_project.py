"""A Django project with sagas, as processes on real servers: manage.py, a worker, the command line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sagas.testing.processes import wait_until
from tests.databases import database
from tests.forking import run_python, start_celery

pytest.importorskip("django")

PROJECT = Path(__file__).parent / "project"
QUEUES = "celery,sagas.scan,sagas.recover,sagas.run"
Run = Callable[..., subprocess.CompletedProcess[str]]


def variables_for(url: sa.URL, broker: str) -> dict[str, str]:
    """The variables from which the project's settings are made."""
    settings = {"NAME": url.database, "USER": url.username, "PASSWORD": url.password or "", "PORT": url.port or ""}
    return {
        "DATABASE": json.dumps({**settings, "HOST": url.host or url.query.get("host", "")}),
        "BROKER": broker,
        "DJANGO_SETTINGS_MODULE": "proj.settings",
        "PYTHONPATH": str(PROJECT),
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="module")
def engine(server_url: sa.URL) -> Iterator[sa.Engine]:
    with database(server_url, "") as engine:
        yield engine


@pytest.fixture(scope="module")
def variables(engine: sa.Engine, broker_server: str) -> dict[str, str]:
    broker = sa.make_url(broker_server).set(database="7").render_as_string(hide_password=False)
    return variables_for(engine.url, broker)


@pytest.fixture(scope="module")
def run(variables: dict[str, str]) -> Run:
    """Run a Python program in the project's directory."""

    def run(*arguments: str, code: int = 0, **changed: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables, **changed}
        done = run_python(*arguments, environment=environment, directory=PROJECT, timeout=170)
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def migrated(run: Run) -> None:
    done = run("manage.py", "migrate", "-v1")
    assert "Applying sagas.0002_revision_0006... OK" in done.stdout


@pytest.mark.slow(8)
def test_the_projects_own_tests_pass(run: Run) -> None:
    done = run("manage.py", "test", "-v0")
    assert "OK" in done.stderr


def test_tests_without_migrations_and_in_parallel_have_the_tables(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text(
        "from proj.settings import *\nMIGRATION_MODULES = {'sagas': None, 'shop': None}\n"
    )
    path = f"{PROJECT}{os.pathsep}{tmp_path}"
    done = run(
        *("manage.py", "test", "-v0", "--parallel=2", "shop.tests.Cases", "shop.tests.OneMore"),
        DJANGO_SETTINGS_MODULE="fast",
        PYTHONPATH=path,
    )
    assert "OK" in done.stderr


def test_a_worker_set_up_as_celery_says_runs_sagas_and_shared_tasks(
    run: Run, migrated: None, variables: dict[str, str], engine: sa.Engine, tmp_path: Path
) -> None:
    command = ["worker", "-Q", QUEUES, "-c", "2", "-l", "INFO", "-n", "w@test"]
    log = tmp_path / "worker.log"
    worker = start_celery(command, environment=variables, log=log, directory=PROJECT, application="proj")
    with worker:
        ids = json.loads(run("drive.py").stdout)

        def states() -> set[tuple[str, str]]:
            with engine.connect() as connection:
                return {tuple(row) for row in connection.execute(sa.text("SELECT number, state FROM shop_order"))}

        wanted = {("a", "paid"), ("b", "sent"), ("before", "mailed"), ("after", "mailed")}
        wait_until(lambda: states() == wanted, timeout_seconds=90, what="orders, sagas and mails")
        listed = json.loads(run("manage.py", "sagas", "list", "--json", "--settings=proj.settings").stdout)
        assert {row["id"] for row in listed} == set(ids)


def test_a_suspect_saga_runs_alone_in_a_process_that_is_set_up(
    run: Run, migrated: None, variables: dict[str, str], engine: sa.Engine, tmp_path: Path
) -> None:
    ids = json.loads(run("drive.py").stdout)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE saga_executions SET suspect = id = :id"), {"id": ids[0]})
    command = ["worker", "-Q", QUEUES, "-P", "threads", "-c", "2", "-n", "w@test"]
    log = tmp_path / "worker.log"
    with start_celery(command, environment=variables, log=log, directory=PROJECT, application="proj"):

        def holders() -> list[str]:
            ended = "SELECT worker FROM saga_logs WHERE saga_id = :id AND status = 'completed' ORDER BY id"
            with engine.connect() as connection:
                finished = "SELECT finished_at IS NOT NULL FROM saga_executions WHERE id = :id"
                if not connection.scalar(sa.text(finished), {"id": ids[0]}):
                    return []
                return list(connection.scalars(sa.text(ended), {"id": ids[0]}))

        first = wait_until(holders, timeout_seconds=90, what="the end of the suspect saga")[0]
        assert first.startswith("w@test/")
        assert not first.endswith("/shared")


def test_the_doctor_sets_django_up(run: Run, migrated: None) -> None:
    done = run("-m", "sagas.cli", "doctor", "--json", code=1)  # there is no worker, and no beat
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert (states["settings"], states["code"], states["schema"]) == ("ok", "ok", "ok")


def test_a_project_that_names_its_modules_needs_no_application_of_sagas(run: Run, engine: sa.Engine) -> None:
    """SAGAS_MODULES imports models, and Django is set up for it, whatever its INSTALLED_APPS are."""
    settings = "from proj.settings import *\nINSTALLED_APPS.remove('sagas.django')\n"
    plain = PROJECT / "plain.py"
    plain.write_text(settings)
    try:
        done = run(
            *("-m", "sagas.cli", "graph", "settle-bill"),
            DJANGO_SETTINGS_MODULE="plain",
            SAGAS_MODULES="billing.sagas",
        )
    finally:
        plain.unlink()
    assert "print-bill" in done.stdout


def test_settings_that_cannot_be_read_are_one_sentence(run: Run) -> None:
    done = run("-m", "sagas.cli", "list", code=1, BROKEN="1")
    assert done.stderr.startswith(
        "error: DJANGO_SETTINGS_MODULE is 'proj.settings', and Django cannot be set up with it"
    )
    assert "RuntimeError: these settings are broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_application_of_sagas_does_not_become_the_default(run: Run) -> None:
    """Celery's fix-up for Django makes the first application the default, if DJANGO_SETTINGS_MODULE is set."""
    program = (
        "from celery import _state\n"
        "from sagas.celery.application import SagaCelery\n"
        "from sagas import Settings\n"
        "app = SagaCelery(Settings())\n"
        "assert _state.default_app is None and app.loader.now\n"
    )
    run("-c", program)
