"""Checks a database of version 0.1.0 before it is migrated.

Version 0.1.0 ended with revision 0004; 0005 was never released. Its workers and programs cannot use later tables, so
they must be stopped first. After the migration they refuse to start: `TABLES_ARE_NEWER` raises an error where they look
for the version of the tables, and where they store a saga.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError

from sagas.errors import MigrationRefused

#: The first revision that version 0.1.0 cannot use.
FIRST_AFTER: Final = "0006"
#: The table that holds the revision of the saga tables, and the oldest revision whose code can use them. It is separate
#: from the application's own.
VERSION_TABLE: Final = "saga_schema"
#: Where version 0.1.0 looks for the version of the tables. Once they are newer, it is a view that raises an error.
OLDER_VERSION_TABLE: Final = "sagas_alembic_version"
#: A database function. 0.1.0 shows its message in a sentence of its own, which ends in "run `sagas migrate`".
TABLES_ARE_NEWER: Final = "saga_tables_are_newer"
MAKE_TABLES_ARE_NEWER: Final = f"""
    CREATE OR REPLACE FUNCTION {TABLES_ARE_NEWER}() RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'a newer release of celery-sagas has upgraded the saga tables, and this program is of an older '
            'one: install the newer release here' USING ERRCODE = 'undefined_table';
    END $$"""
#: Seconds for which a scan counts as recent; beat fires one every few seconds.
_RECENT_SECONDS: Final = 30
#: Seconds for which a migration waits for the lock of the sagas' table. Other statements wait behind the migration.
_LOCK_SECONDS = 10.0
_NOTHING_CHANGED: Final = "and run `sagas migrate` again; nothing was changed."
_MOST_NAMED: Final = 5

_LEASES: Final = """
    SELECT lease_owner AS worker, count(*) AS sagas,
        CAST(ceil(extract(epoch FROM max(available_at) - clock_timestamp())) AS int) AS seconds
    FROM saga_executions
    WHERE lease_owner NOT IN ('queue', 'paused') AND available_at > clock_timestamp() AND available_at < 'infinity'
    GROUP BY lease_owner
    ORDER BY lease_owner"""
_SCANS: Final = f"""
    SELECT worker, CAST(extract(epoch FROM clock_timestamp() - at) AS int) AS seconds
    FROM saga_scans
    WHERE at > clock_timestamp() - interval '{_RECENT_SECONDS} seconds'
    ORDER BY worker"""
# A view depends on a column by its rule. Defaults and NOT NULL are left out: they are dropped or changed with a column.
_DEPENDENTS: Final = """
    SELECT DISTINCT concat_ws(' ', found.type, found.identity) AS dependent, a.attname AS column
    FROM pg_depend d
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    LEFT JOIN pg_rewrite r ON d.classid = CAST('pg_rewrite' AS regclass) AND r.oid = d.objid
    LEFT JOIN pg_constraint c ON d.classid = CAST('pg_constraint' AS regclass) AND c.oid = d.objid
    CROSS JOIN LATERAL pg_identify_object(
        CASE WHEN r.oid IS NULL THEN d.classid ELSE CAST('pg_class' AS regclass) END,
        COALESCE(r.ev_class, d.objid),
        CASE WHEN r.oid IS NULL THEN d.objsubid ELSE 0 END
    ) AS found
    WHERE d.refclassid = CAST('pg_class' AS regclass) AND d.refobjid = CAST('saga_executions' AS regclass)
        AND a.attname IN ('context', 'interrupted')
        AND d.classid <> CAST('pg_attrdef' AS regclass) AND c.contype IS DISTINCT FROM 'n'
    ORDER BY dependent, a.attname"""


def has_older_tables(connection: sa.Connection) -> bool:
    """Whether the saga tables are those of version 0.1.0."""
    return _kind(connection, OLDER_VERSION_TABLE) == "r"


def has_newer_tables(connection: sa.Connection) -> bool:
    """Whether there are saga tables that version 0.1.0 cannot use."""
    return _kind(connection, VERSION_TABLE) is not None


def require_upgradable(connection: sa.Connection) -> None:
    """Lock the sagas, and make sure that no worker uses them and nothing depends on columns that are dropped.

    The lock lasts until the transaction ends.

    Raises:
        MigrationRefused: the message gives the obstacle and the cure.
    """
    if _kind(connection, "saga_executions") is None:
        return
    _lock(connection)
    if _has_column(connection, "available_at"):
        scans = _rows(connection, _SCANS) if _kind(connection, "saga_scans") else []
        _refuse_workers(_rows(connection, _LEASES), scans)
    _refuse_dependents(_rows(connection, _DEPENDENTS))


def _lock(connection: sa.Connection) -> None:
    before = connection.exec_driver_sql("SELECT current_setting('lock_timeout')").scalar_one()
    try:
        connection.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (f"{_LOCK_SECONDS * 1000:.0f}ms",))
        connection.exec_driver_sql("LOCK TABLE saga_executions IN ACCESS EXCLUSIVE MODE")
    except DBAPIError as error:
        if not isinstance(error.orig, pg.LockNotAvailable):
            raise
        raise MigrationRefused(
            f"saga_executions was in use for {_LOCK_SECONDS:g} seconds, by a transaction that pg_stat_activity shows: "
            f"end it, {_NOTHING_CHANGED}"
        ) from error
    connection.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (before,))


def _refuse_workers(leases: list[Any], scans: list[Any]) -> None:
    running = [f"{row.worker} holds {row.sagas} sagas (its lease ends in {row.seconds} s)" for row in leases]
    running += [f"a worker on {row.worker} scanned {row.seconds} s ago" for row in scans]
    if running:
        raise MigrationRefused(
            f"workers of the version before still run: {_named(running)}. They cannot use the new tables: stop all "
            f"workers and beat, wait {_RECENT_SECONDS} seconds, {_NOTHING_CHANGED}"
        )


def _refuse_dependents(dependents: list[Any]) -> None:
    if dependents:
        named = _named([f"{row.dependent} uses {row.column}" for row in dependents])
        raise MigrationRefused(
            "the column interrupted of saga_executions goes and context becomes json, but something of yours depends "
            f"on them: {named}. Drop it, {_NOTHING_CHANGED} Then make it anew, without interrupted and with "
            "context::jsonb."
        )


def _named(things: list[str]) -> str:
    more = len(things) - _MOST_NAMED
    return "; ".join(things[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _kind(connection: sa.Connection, name: str) -> str | None:
    kind = connection.exec_driver_sql("SELECT relkind FROM pg_class WHERE oid = to_regclass(%s)", (name,)).scalar()
    return None if kind is None else str(kind)


def _has_column(connection: sa.Connection, name: str) -> bool:
    found = connection.exec_driver_sql(
        "SELECT FROM pg_attribute WHERE attrelid = CAST('saga_executions' AS regclass) AND attname = %s", (name,)
    )
    return found.first() is not None


def _rows(connection: sa.Connection, statement: str) -> list[Any]:
    return list(connection.exec_driver_sql(statement))
