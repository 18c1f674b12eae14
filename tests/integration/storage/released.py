"""Version 0.1.0 as it was released, taken from the history of this repository, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from tests.databases import database

COMMIT: Final = "ff01d8b69df17afc57333405340fe2a3eb533bdc"
JOURNEYS: Final = Path(__file__).with_name("journeys.py")
#: What an installed 0.1.0 has beside its code; without it, that of this checkout would be found.
_ENTRY_POINTS: Final = "[sagas.dispatcher]\ncelery = tasks.dispatch:CeleryDispatcher\n"
_MIGRATE: Final = """
import sys
import sqlalchemy as sa
from sagas.storage.schema import migrate

with sa.create_engine(sys.argv[1]).connect() as connection:
    migrate(connection)
"""
_EFFECTS: Final = """
    CREATE TABLE effects (
        id serial PRIMARY KEY, saga_id uuid NOT NULL, what text NOT NULL, attempt int NOT NULL, key text NOT NULL)"""


class Version:
    """Runs programs with one version of the code.

    Args:
        directory: that it is imported from.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def popen(self, engine: sa.Engine, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start `python COMMAND` on this database."""
        url = engine.url.render_as_string(hide_password=False)
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self._directory,
            env=os.environ
            | {
                "PYTHONPATH": str(self._directory),
                "SAGAS_DATABASE_URL": url,
                "SAGAS_BROKER_URL": "redis://127.0.0.1:1/0",
                "SAGAS_MODULES": "",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, engine: sa.Engine, *command: str, stdin: str = "") -> str:
        """Run `python COMMAND` on this database; return what it printed."""
        process = self.popen(engine, *command)
        stdout, stderr = process.communicate(stdin, timeout=120)
        assert process.returncode == 0, stderr
        return stdout


@pytest.fixture(scope="session")
def this_version(repository: Path) -> Version:
    """The code of this checkout."""
    return Version(repository)


@pytest.fixture(scope="session")
def released(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Version 0.1.0; where there is no history to take it from, the test is skipped."""
    git = ("git", "rev-parse", "--is-shallow-repository")
    shallow = subprocess.run(git, cwd=repository, capture_output=True, text=True, check=False).stdout.strip()
    if shallow != "false":
        pytest.skip(f"version 0.1.0 is commit {COMMIT}, and this copy has no history: clone it whole")
    archive = subprocess.run(["git", "archive", COMMIT], cwd=repository, capture_output=True, check=True)
    directory = tmp_path_factory.mktemp("released")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    metadata = directory / "celery_sagas-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-sagas\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    return Version(directory)


@pytest.fixture(scope="session")
def template_0_1_0(released: Version, server_url: sa.URL) -> Iterator[str]:
    """The name of a database with the tables of 0.1.0, to be cloned."""
    with database(server_url) as engine:
        released.run(engine, "-c", _MIGRATE, engine.url.render_as_string(hide_password=False))
        with engine.begin() as connection:
            connection.exec_driver_sql(_EFFECTS)
        engine.dispose()
        yield str(engine.url.database)


@pytest.fixture
def engine_0_1_0(server_url: sa.URL, template_0_1_0: str) -> Iterator[sa.Engine]:
    """A database of the test's own with the tables of 0.1.0."""
    with database(server_url, f"TEMPLATE {template_0_1_0}") as engine:
        yield engine


def rows(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]
