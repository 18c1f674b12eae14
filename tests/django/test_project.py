"""A Django project with sagas, as processes on real servers: manage.py, a worker, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.sagas.storage.databases import database

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
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def migrated(run: Run) -> None:
    done = run("manage.py", "migrate", "-v1")
    assert "Applying sagas.0001_revision_0005... OK" in done.stdout


def test_the_projects_own_tests_pass(run: Run) -> None:
    done = run("manage.py", "test", "-v0")
    assert "OK" in done.stderr
