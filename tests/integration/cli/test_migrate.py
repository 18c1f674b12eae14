"""`sagas migrate`: from nothing, from older and newer layouts, and twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from sagas.storage.schema import HEAD, VERSION_TABLE, migrate
from tests.integration.cli.conftest import Command


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[sa.Engine]:
    """A database without tables."""
    engine = sa.create_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def environment(empty_database_url: str) -> dict[str, str]:
    # Modules that cannot be imported: whoever migrates need not have the user's code.
    return {"SAGAS_DATABASE_URL": empty_database_url, "SAGAS_MODULES": "no.such.module"}


@pytest.mark.parametrize("command", [("list",), ("show", "01890a5d-ac96-774b-bcce-b302099a8057")])
def test_an_empty_database_is_answered_with_the_command_that_makes_its_tables(
    sagas: Command, command: tuple[str, ...]
) -> None:
    result = sagas(*command)

    assert result.stderr == (
        f"error: the database has no saga tables of this version, and this code needs {HEAD}: run `sagas migrate`.\n"
    )
    assert result.exit_code == 1


def test_migrating_from_nothing_makes_the_tables_and_migrating_again_changes_nothing(sagas: Command) -> None:
    assert sagas("migrate").stdout == f"migrated from no version to {HEAD}.\n"
    assert sagas("list").exit_code == 0
    again = sagas("migrate")
    assert (again.stdout, again.stderr, again.exit_code) == (f"already at {HEAD}.\n", "", 0)


def test_an_older_layout_is_brought_to_the_newest(sagas: Command, empty: sa.Engine) -> None:
    with empty.connect() as connection:
        migrate(connection, to="0001")

    assert f"is at version 0001, and this code needs {HEAD}: run `sagas migrate`." in sagas("list").stderr
    told = sagas("migrate").stdout
    assert told.startswith(f"migrated from 0001 to {HEAD}. ")
    assert "`celery -A sagas worker`" in told


def test_progress_is_told_on_stderr_in_a_few_lines(sagas: Command, empty: sa.Engine) -> None:
    with empty.connect() as connection:
        migrate(connection, to="0004")
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context) SELECT gen_random_uuid(), 'order', '{}' "
            "FROM generate_series(1, 2000)"
        )
        connection.commit()

    lines = sagas("migrate").stderr.splitlines()

    assert lines[0] == "rewriting saga_executions: 20 of 2,000 rows"
    assert lines[-1] == "building indexes ..."
    assert len(lines) < 20


def test_tables_that_this_code_cannot_use_are_refused_and_left_alone(sagas: Command, empty: sa.Engine) -> None:
    sagas("migrate")
    with empty.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0099', oldest = '0098'")

    for command in ("migrate", "list"):
        result = sagas(command)
        assert result.stderr == (
            "error: the database is at version 0099, which code older than 0098 cannot use, and this code ends at "
            f"{HEAD}: install the newer release of celery-sagas here.\n"
        )
        assert result.exit_code == 1


def test_a_layout_that_newer_code_made_is_left_as_it_is(sagas: Command, empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32))")
        connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES ('0099')")

    result = sagas("migrate")

    assert result.stdout == f"already at 0099, which newer code made and this code ({HEAD}) works with.\n"
    assert result.exit_code == 0


def test_data_that_cannot_be_carried_over_is_one_sentence_and_nothing_is_changed(
    sagas: Command, empty: sa.Engine
) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE saga_executions (id uuid PRIMARY KEY, name varchar(255) NOT NULL, "
            "status varchar(16) NOT NULL, context json NOT NULL, version integer NOT NULL DEFAULT 1, "
            "created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())"
        )
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, status, context) "
            r"""VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'old', 'running', '{"item": "\u0000"}')"""
        )

    result = sagas("migrate")

    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: the context of saga 01890a5d-ac96-774b-bcce-b302099a8057 holds a NUL character")
    assert result.exit_code == 1
    assert "has no saga tables of this version" in sagas("list").stderr
