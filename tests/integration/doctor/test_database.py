"""What is told of the database, each provoked on a real server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sagas.doctor import Installation
from sagas.doctor.database import DATABASE_CHECKS
from sagas.storage.schema import HEAD, REVISIONS, migrate
from sagas.testing.servers import PostgresServer
from tests import databases, pgbouncer
from tests.faults.cluster import fake_time_library
from tests.integration.doctor.conftest import found_by

CHECKS = {check.name: check for check in DATABASE_CHECKS}
Installed = Callable[..., Installation]


def test_a_database_that_answers_is_told_with_its_address_and_no_password(installation: Installed) -> None:
    here = installation()
    fact, pool = CHECKS["database"].run(here)
    assert isinstance(pool, str)
    assert pool.startswith("up to 20 connections for each process (SAGAS_DATABASE_POOL_SIZE), ")
    url = sa.make_url(here.settings.database_url)
    assert isinstance(fact, str)
    assert fact.startswith("PostgreSQL ")
    assert f"{url.host}:{url.port}/{url.database}" in fact
    assert str(url.password) not in fact


def test_a_url_that_cannot_be_used_is_told(installation: Installed) -> None:
    found = found_by(CHECKS["database"], installation(database_url="mysql://me:s3cr3t@db/shop"))
    assert set(found) == {"database-url-unusable"}
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize("what", ["port", "password", "database"])
def test_a_database_that_does_not_answer_is_told(database_url: str, installation: Installed, what: str) -> None:
    wrong = {"port": {"port": 1}, "password": {"password": "s3cr3t"}, "database": {"database": "nowhere"}}[what]
    url = sa.make_url(database_url).set(**wrong).render_as_string(hide_password=False)
    found = found_by(CHECKS["database"], installation(database_url=url))
    assert set(found) == {"database-down"}
    assert "s3cr3t" not in str(found)


@pytest.mark.skipif(pgbouncer.installed() is None, reason="PgBouncer is not installed")
def test_a_pooler_is_told_of(server_url: sa.URL, server_directory: Path, installation: Installed) -> None:
    program = pgbouncer.installed()
    assert program is not None
    directory = server_directory / f"doctor-pgbouncer-{secrets.token_hex(4)}"
    database = sa.make_url(installation().settings.database_url).database
    with pgbouncer.PgBouncerServer(directory, program=program, server=server_url) as pooler:
        url = pooler.url(database).render_as_string(hide_password=False)
        here = installation(database_url=url)
        facts = [*CHECKS["database"].run(here)]
        assert "behind a pooler: statements are not prepared" in facts
        for name in ("primary", "schema", "privileges", "clock"):
            assert not found_by(CHECKS[name], here)


@pytest.mark.skipif(pgbouncer.installed() is None, reason="PgBouncer is not installed")
def test_settings_that_cannot_be_changed_behind_a_pooler_are_told(
    server_url: sa.URL, server_directory: Path, installation: Installed, sql: Callable[..., Any]
) -> None:
    program = pgbouncer.installed()
    assert program is not None
    here = installation()
    database = sa.make_url(here.settings.database_url).database
    sql(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable")
    sql(f"ALTER DATABASE {database} SET datestyle = 'SQL, DMY'")
    assert not found_by(CHECKS["database"], here)
    directory = server_directory / f"doctor-pgbouncer-{secrets.token_hex(4)}"
    with pgbouncer.PgBouncerServer(directory, program=program, server=server_url) as pooler:
        url = pooler.url(database).render_as_string(hide_password=False)
        (finding,) = found_by(CHECKS["database"], installation(database_url=url)).values()
    assert finding.id == "session-settings"
    assert finding.what == "default_transaction_isolation is 'serializable'."
    assert finding.cure.endswith("ALTER ROLE … SET default_transaction_isolation = 'read committed';")


def test_a_pool_that_is_larger_than_the_server_allows_is_told(installation: Installed) -> None:
    found = found_by(CHECKS["database"], installation(database_pool_size=9999))
    assert "SAGAS_DATABASE_POOL_SIZE is 9999, and the server allows" in found["pool-too-large"].what


def test_another_encoding_is_told(server_url: sa.URL, installation: Installed) -> None:
    clause = "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    with databases.database(server_url, clause) as engine:
        here = installation(database_url=engine.url.render_as_string(hide_password=False))
        assert "LATIN1" in found_by(CHECKS["database"], here)["database-encoding"].what


def test_row_level_security_that_applies_to_the_user_is_told(
    database_url: str, installation: Installed, sql: Callable[..., Any]
) -> None:
    role, password = f"tenant_{secrets.token_hex(4)}", secrets.token_hex(8)
    sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    try:
        sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        sql("ALTER TABLE saga_executions ENABLE ROW LEVEL SECURITY")
        url = sa.make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)
        (finding,) = found_by(CHECKS["privileges"], installation(database_url=url)).values()
        assert finding.id == "row-security"
        assert finding.what == f"for {role} it is active on saga_executions."
        assert not found_by(CHECKS["privileges"], installation())
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


def test_a_database_that_is_read_only_by_default_is_told(installation: Installed, sql: Callable[..., Any]) -> None:
    here = installation()
    assert not found_by(CHECKS["primary"], here)
    database = sa.make_url(here.settings.database_url).database
    sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert set(found_by(CHECKS["primary"], here)) == {"database-read-only"}


def test_a_server_in_recovery_is_told_as_a_replica(server_directory: Path, installation: Installed) -> None:
    with PostgresServer(server_directory / f"doctor-replica-{secrets.token_hex(4)}") as server:
        server.stop()
        (server._data / "standby.signal").touch()
        server.start()
        assert set(found_by(CHECKS["primary"], installation(database_url=server.url))) == {"database-replica"}


def test_a_schema_that_is_behind_is_told_with_the_command_and_a_newer_one_is_fine(
    empty_database_url: str, installation: Installed
) -> None:
    here = installation(database_url=empty_database_url)
    assert "has no saga tables" in found_by(CHECKS["schema"], here)["schema-behind"].what
    engine = sa.create_engine(empty_database_url)
    with engine.connect() as connection:
        migrate(connection, to=REVISIONS[-2])
        found = found_by(CHECKS["schema"], here)
        assert f"is at version {REVISIONS[-2]}" in found["schema-behind"].what
        assert "`sagas migrate`" in found["schema-behind"].cure
        migrate(connection)
        assert [*CHECKS["schema"].run(here)] == [f"at {HEAD}"]
        connection.exec_driver_sql("UPDATE sagas_alembic_version SET version_num = '9999'")
        connection.commit()
    engine.dispose()
    assert [*CHECKS["schema"].run(here)] == [f"at 9999, made by newer code; this code has {HEAD}"]


def test_a_user_who_may_not_write_is_told_with_the_grant_that_cures_it(
    database_url: str, installation: Installed, sql: Callable[..., Any]
) -> None:
    role, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    try:
        sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        sql(f"GRANT INSERT, UPDATE, DELETE ON saga_logs TO {role}")
        url = sa.make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)
        here = installation(database_url=url)
        (finding,) = found_by(CHECKS["privileges"], here).values()
        assert finding.id == "privileges-missing"
        assert "saga_executions (DELETE, INSERT, UPDATE)" in finding.what
        assert "saga_logs (" not in finding.what
        sql(finding.cure)
        assert not found_by(CHECKS["privileges"], here)
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


def test_commits_that_are_not_flushed_are_told(installation: Installed, sql: Callable[..., Any]) -> None:
    here = installation()
    found = found_by(CHECKS["durability"], here)
    # The suite's own server does without, as a crash of the machine ends the suite as well.
    if "SAGAS_TEST_DATABASE_URL" not in os.environ:
        assert set(found) == {"fsync-off"}
        assert found["fsync-off"].what == "fsync and full_page_writes are off."
    sql(f"ALTER DATABASE {sa.make_url(here.settings.database_url).database} SET synchronous_commit = off")
    assert "synchronous-commit-off" in found_by(CHECKS["durability"], here)


# -- the clock --------------------------------------------------------------------------------------------------------

LOOK = """
import os
from sagas.doctor import Installation
from sagas.doctor.database import DATABASE_CHECKS
from sagas.settings import Settings

(clock,) = [check for check in DATABASE_CHECKS if check.name == "clock"]
for finding in clock.run(Installation({}, settings=Settings.from_environment())):
    print(finding.id, finding.what)
"""


@pytest.fixture
def look(database_url: str) -> Callable[..., str]:
    """Runs the check of the clock in a process with these variables, and returns what it prints."""

    def run(**variables: str) -> str:
        environment: Mapping[str, str] = {**os.environ, "SAGAS_DATABASE_URL": database_url, **variables}
        command = [sys.executable, "-c", LOOK]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    return run


@pytest.mark.skipif(fake_time_library() is None, reason="libfaketime is not installed")
@pytest.mark.parametrize(
    ("offset", "told"), [("+3600s", "3600 s ahead of it"), ("-90s", "90 s behind it"), ("+0s", "")]
)
def test_clocks_that_disagree_are_told(look: Callable[..., str], offset: str, told: str) -> None:
    library = {"LD_PRELOAD": str(fake_time_library()), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    found = look(**library)
    assert found.partition(" ")[0] == ("clock-skew" if told else "")
    assert told in found
