"""The checks of the database, each finding provoked on a real server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sagas.doctor import Installation
from sagas.doctor.database import DATABASE, DURABILITY, PRIVILEGES, SCHEMA
from sagas.storage.schema import HEAD, REVISIONS, migrate
from sagas.testing.servers import PostgresServer
from tests import pgbouncer
from tests.integration.doctor.conftest import found_by

Installed = Callable[..., Installation]


def test_a_database_that_answers_is_named_without_its_password(installation: Installed) -> None:
    here = installation()
    (fact,) = DATABASE.run(here)
    url = sa.make_url(here.settings.database_url)
    assert isinstance(fact, str)
    assert fact.startswith("PostgreSQL ")
    assert fact.endswith(f" at {url.host}:{url.port}/{url.database}")


@pytest.mark.parametrize("what", ["port", "password", "database"])
def test_a_database_that_does_not_answer_is_reported(database_url: str, installation: Installed, what: str) -> None:
    wrong = {"port": {"port": 1}, "password": {"password": "s3cr3t"}, "database": {"database": "nowhere"}}[what]
    url = sa.make_url(database_url).set(**wrong).render_as_string(hide_password=False)
    found = found_by(DATABASE, installation(database_url=url))
    assert set(found) == {"database-down"}
    assert "s3cr3t" not in str(found)


@pytest.mark.skipif(pgbouncer.installed() is None, reason="PgBouncer is not installed")
def test_settings_that_cannot_be_changed_behind_a_pooler_are_reported(
    server_url: sa.URL, server_directory: Path, installation: Installed, sql: Callable[..., Any]
) -> None:
    program = pgbouncer.installed()
    assert program is not None
    here = installation()
    database = sa.make_url(here.settings.database_url).database
    sql(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable")
    sql(f"ALTER DATABASE {database} SET datestyle = 'SQL, DMY'")
    assert not found_by(DATABASE, here)
    directory = server_directory / f"doctor-pgbouncer-{secrets.token_hex(4)}"
    with pgbouncer.PgBouncerServer(directory, program=program, server=server_url) as pooler:
        url = pooler.url(database).render_as_string(hide_password=False)
        (finding,) = found_by(DATABASE, installation(database_url=url)).values()
    assert finding.id == "session-settings"
    assert finding.what == "default_transaction_isolation is 'serializable'."
    assert finding.cure.endswith("ALTER ROLE … SET default_transaction_isolation = 'read committed';")


def test_row_level_security_that_applies_to_the_user_is_reported(
    database_url: str, installation: Installed, sql: Callable[..., Any]
) -> None:
    role, password = f"tenant_{secrets.token_hex(4)}", secrets.token_hex(8)
    sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    try:
        sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        sql("ALTER TABLE saga_executions ENABLE ROW LEVEL SECURITY")
        url = sa.make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)
        (finding,) = found_by(PRIVILEGES, installation(database_url=url)).values()
        assert finding.id == "row-security"
        assert finding.what == f"it applies to {role} on saga_executions."
        assert not found_by(PRIVILEGES, installation())
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


def test_a_database_that_is_read_only_by_default_is_reported(installation: Installed, sql: Callable[..., Any]) -> None:
    here = installation()
    assert not found_by(PRIVILEGES, here)
    database = sa.make_url(here.settings.database_url).database
    sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert set(found_by(PRIVILEGES, here)) == {"database-read-only"}


def test_a_server_in_recovery_is_reported_as_read_only(server_directory: Path, installation: Installed) -> None:
    with PostgresServer(server_directory / f"doctor-replica-{secrets.token_hex(4)}") as server:
        server.stop()
        (server._home / "data" / "standby.signal").touch()
        server.start()
        assert set(found_by(PRIVILEGES, installation(database_url=server.url))) == {"database-read-only"}


def test_a_schema_that_is_behind_is_reported_and_a_newer_one_is_fine(
    empty_database_url: str, installation: Installed
) -> None:
    here = installation(database_url=empty_database_url)
    assert "has no saga tables" in found_by(SCHEMA, here)["schema-behind"].what
    engine = sa.create_engine(empty_database_url)
    with engine.connect() as connection:
        migrate(connection, to=REVISIONS[-2])
        found = found_by(SCHEMA, here)
        assert f"is at version {REVISIONS[-2]}" in found["schema-behind"].what
        assert "`sagas migrate`" in found["schema-behind"].cure
        migrate(connection)
        assert [*SCHEMA.run(here)] == [f"at {HEAD}"]
        connection.exec_driver_sql("UPDATE saga_schema SET version_num = '9999'")
        connection.commit()
    engine.dispose()
    assert [*SCHEMA.run(here)] == [f"at 9999, made by newer code; this code has {HEAD}"]


def test_a_user_who_may_not_write_is_reported_with_the_grant(
    database_url: str, installation: Installed, sql: Callable[..., Any]
) -> None:
    role, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    try:
        sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        sql(f"GRANT INSERT, UPDATE, DELETE ON saga_logs TO {role}")
        url = sa.make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)
        here = installation(database_url=url)
        (finding,) = found_by(PRIVILEGES, here).values()
        assert finding.id == "privileges-missing"
        assert "saga_executions (INSERT, UPDATE, DELETE)" in finding.what
        assert "saga_logs (" not in finding.what
        sql(finding.cure)
        assert not found_by(PRIVILEGES, here)
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


def test_commits_that_are_not_flushed_are_reported(installation: Installed, sql: Callable[..., Any]) -> None:
    here = installation()
    found = found_by(DURABILITY, here)
    # The suite's own server does without, as a crash of the machine ends the suite as well.
    if "SAGAS_TEST_DATABASE_URL" not in os.environ:
        assert set(found) == {"fsync-off"}
        assert found["fsync-off"].what == "fsync and full_page_writes are off."
    sql(f"ALTER DATABASE {sa.make_url(here.settings.database_url).database} SET synchronous_commit = off")
    assert "synchronous-commit-off" in found_by(DURABILITY, here)
