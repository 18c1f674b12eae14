"""Saga tables in the database of an application that has an Alembic of its own: a real project, run as users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.errors import MigrationRefused
from sagas.storage.schema import HEAD, current_version, migrate
from sagas.storage.tables import metadata
from tests.databases import database
from tests.forking import run_python

ENVIRONMENT: Final = """
import os
import sqlalchemy as sa
from alembic import context
{imports}
metadata = sa.MetaData()
sa.Table("orders", metadata, sa.Column("id", sa.Integer, primary_key=True))

if context.is_offline_mode():
    context.configure(url=os.environ["URL"], target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
else:
    with sa.create_engine(os.environ["URL"]).connect() as connection:
        context.configure(connection=connection, target_metadata=metadata{options})
        with context.begin_transaction():
            context.run_migrations()
        assert context.config.get_main_option("script_location")
"""
REVISION: Final = """
import sqlalchemy as sa
from alembic import op
from sagas.storage.schema import migrate

revision, down_revision = "1", None

def upgrade():
    op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))
    migrate(op.get_bind())
    op.execute("INSERT INTO orders (id) SELECT count(*) FROM saga_executions")
    {last}
"""


class Application:
    """A directory with an Alembic project, and the database that it shares with the sagas."""

    def __init__(self, directory: Path, engine: sa.Engine) -> None:
        self.engine = engine
        self.directory = directory
        self.versions = directory / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (directory / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\n")
        (directory / "migrations" / "script.py.mako").write_text(
            "from alembic import op\nimport sqlalchemy as sa\n"
            "revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}\n"
            "def upgrade():\n    ${upgrades}\n"
        )
        self.configure()

    def configure(self, imports: str = "", options: str = "") -> None:
        environment = ENVIRONMENT.format(imports=imports, options=options)
        (self.directory / "migrations" / "env.py").write_text(environment)

    def write(self, last: str = "pass") -> None:
        (self.versions / "1.py").write_text(REVISION.format(last=last))

    def alembic(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        url = self.engine.url.render_as_string(hide_password=False)
        environment = os.environ | {"URL": url, "PYTHONPATH": str(Path(__file__).parents[3])}
        return run_python("-m", "alembic", *arguments, environment=environment, directory=self.directory)

    @property
    def tables(self) -> set[str]:
        return set(sa.inspect(self.engine).get_table_names())


@pytest.fixture
def application(server_url: sa.URL, tmp_path: Path) -> Iterator[Application]:
    with database(server_url) as engine:
        yield Application(tmp_path, engine)


def test_migrating_within_a_migration_of_the_applications_is_part_of_it(application: Application) -> None:
    application.write()

    done = application.alembic("upgrade", "head")

    assert done.returncode == 0, done.stderr
    assert application.tables >= {"orders", "alembic_version", *metadata.tables}
    with application.engine.connect() as connection:
        assert current_version(connection) == HEAD
        assert connection.exec_driver_sql("SELECT id FROM orders").scalars().all() == [0]
    PostgresSagaStorage(application.engine).check_schema()


def test_migration_of_the_applications_that_fails_takes_the_saga_tables_back(application: Application) -> None:
    application.write(last="op.execute('SELECT 1 / 0')")

    done = application.alembic("upgrade", "head")

    assert "division by zero" in done.stderr
    assert application.tables <= {"alembic_version"}


@pytest.mark.parametrize(
    ("last", "scanned", "told"),
    [
        ("op.execute('SELECT 1 / 0')", False, "division by zero"),
        ("pass", True, "workers of the version before still run"),
        ("pass", False, ""),
    ],
)
def test_tables_of_0_1_0_are_migrated_within_the_applications_migration_or_left_as_they_were(
    application: Application, last: str, scanned: bool, told: str
) -> None:
    with application.engine.connect() as connection:
        migrate(connection, to="0004")
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context) VALUES (gen_random_uuid(), 'order', '{}')"
        )
        if scanned:
            scan = "INSERT INTO saga_scans (worker, at) VALUES ('web-1', now() + interval '1 hour')"
            connection.exec_driver_sql(scan)
        connection.commit()
    application.write(last)

    done = application.alembic("upgrade", "head")

    assert (told in done.stderr, done.returncode == 0) == (True, not told)
    with application.engine.connect() as connection:
        assert current_version(connection) == ("0004" if told else HEAD)
        if told:
            assert "orders" not in application.tables
        else:
            assert connection.exec_driver_sql("SELECT id FROM orders").scalars().all() == [1]


def test_script_without_a_connection_is_refused(application: Application) -> None:
    application.write()

    done = application.alembic("upgrade", "head", "--sql")

    assert done.returncode != 0
    assert "`alembic upgrade --sql` cannot write the migrations of the saga tables" in done.stderr
    assert application.tables == set()


@pytest.mark.parametrize("helper", ["include_name", "include_object"])
def test_autogenerate_leaves_the_saga_tables_alone_with_either_helper(application: Application, helper: str) -> None:
    application.write()
    assert application.alembic("upgrade", "head").returncode == 0
    assert application.alembic("check").returncode != 0, "without the helper it wants to drop the saga tables"

    application.configure(f"from sagas.storage.schema import {helper}", f", {helper}={helper}")
    with application.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE left_over (id int)")
    done = application.alembic("revision", "--autogenerate", "-m", "next")

    assert done.returncode == 0, done.stderr
    (written,) = [path.read_text() for path in application.versions.glob("*.py") if path.name != "1.py"]
    assert written.count("drop_table") == 1
    assert "drop_table('left_over')" in written


def test_autocommit_is_refused_before_anything_is_changed(application: Application) -> None:
    autocommit = application.engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(MigrationRefused, match="autocommit"):
        migrate(connection)

    assert application.tables == set()


# -- where it is installed, and as whom it runs ---------------------------------------------------------------


def test_percent_signs_above_the_installation_are_no_matter(application: Application, repository: Path) -> None:
    installed = application.directory / "feature%2Fpay" / "50%"
    shutil.copytree(repository / "sagas", installed / "sagas", ignore=shutil.ignore_patterns("__pycache__"))
    url = application.engine.url.render_as_string(hide_password=False)

    done = subprocess.run(
        [sys.executable, "-m", "sagas.cli", "migrate"],
        cwd=installed,
        env=os.environ | {"SAGAS_DATABASE_URL": url, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"migrated from no version to {HEAD}.\n"


def test_role_without_temp_migrates(application: Application) -> None:
    name = application.engine.url.database
    role = f"{name}_owner"
    with application.engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'owner'")
        connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {name} TO {role}")
        connection.exec_driver_sql(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    engine = sa.create_engine(application.engine.url.set(username=role, password="owner"))
    with engine.connect() as connection:
        assert not connection.exec_driver_sql(f"SELECT has_database_privilege('{name}', 'TEMP')").scalar_one()
        migrate(connection)
        assert current_version(connection) == HEAD
    engine.dispose()
    with application.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")
