"""The schema of the database: the revision that this code needs, and the migrations to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from sagas.errors import MigrationRefused, SchemaAhead, SchemaBehind
from sagas.storage.tables import metadata
from sagas.storage.upgrade import OLDER_VERSION_TABLE, VERSION_TABLE

#: Every revision that this code knows, the oldest first. It needs the last one.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
HEAD: Final = REVISIONS[-1]
#: Called with the progress of a migration: the work in words, rows done, and rows in all (both 0 if not counted).
Report: TypeAlias = Callable[[str, int, int], None]
#: Returns which table holds the revision: none, ours, or that of version 0.1.0; and whether a migration is running.
WHERE_VERSION: Final = f"""
SELECT
    CASE
        WHEN to_regclass('{VERSION_TABLE}') IS NOT NULL THEN '{VERSION_TABLE}'
        WHEN to_regclass('{OLDER_VERSION_TABLE}') IS NOT NULL THEN '{OLDER_VERSION_TABLE}'
    END AS name,
    EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND CAST(objid AS bigint) = CAST(hashtext('sagas migrate') AS bigint) & 4294967295
    ) AS migrating"""
_ELSEWHERE: Final = f"""
SELECT CAST(CAST(relnamespace AS regnamespace) AS text) FROM pg_class
WHERE relname IN ('{VERSION_TABLE}', '{OLDER_VERSION_TABLE}') AND relkind = 'r'
LIMIT 1"""
#: Alembic keeps the migration in progress in variables of its modules, so threads would use each other's connection.
_ONE_AT_A_TIME: Final = threading.Lock()


def migrate(connection: sa.Connection, *, to: str = "head", report: Report | None = None) -> None:
    """Migrate the database to a revision, from no tables or from any older ones. Every row is kept.

    It is one transaction: if it is interrupted, the database is unchanged, and it can be run again. Within a migration
    of the caller's own, as `migrate(op.get_bind())`, it becomes part of that migration's transaction and does not
    commit.

    Args:
        connection: to migrate; committed by the migration itself, except within a migration of the caller's own.
        to: the revision, usually the newest.
        report: called with the progress.

    Raises:
        MigrationRefused: workers of the version before still run, something depends on a column that is dropped, the
            data cannot be converted, or the connection is not in a transaction; nothing was changed.
    """
    from alembic import command  # slow to import, and only migrations need it
    from alembic.config import Config

    if not isinstance(connection, sa.Connection):
        raise MigrationRefused(
            f"{connection!r} is no connection to migrate: `alembic upgrade --sql` cannot write the migrations of the "
            "saga tables into its script. Run them on a connection, or with `sagas migrate`."
        )
    if getattr(connection.connection.dbapi_connection, "autocommit", False) is True:
        raise MigrationRefused(
            "the connection is in autocommit, so a migration that fails would leave half of its changes behind; "
            "nothing was changed: connect with isolation_level='READ COMMITTED', or leave the autocommit_block()."
        )
    config = Config()
    # A directory above the installation may have a % in its name. A Config would take it for its own syntax.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["report"] = report
    with _ONE_AT_A_TIME, _outer_migration() as within:
        command.upgrade(config, to)
        if connection.in_transaction() and within is not connection:
            # The caller had used the connection before, so Alembic left its transaction open.
            connection.commit()


@contextmanager
def _outer_migration() -> Iterator[object]:
    """Yield the connection of a running migration of the caller's own, or None. Restore that migration afterwards.

    Alembic keeps the objects behind `alembic.op` and `alembic.context` in these modules. It removes them after every
    migration, even after one within another.
    """
    from alembic import context, op

    outer = [proxy for module in (context, op) if (proxy := getattr(module, "_proxy", None)) is not None]
    try:
        yield op.get_bind() if getattr(op, "_proxy", None) is not None else None
    finally:
        for proxy in outer:
            proxy._install_proxy()


def wait_for_turn(connection: sa.Connection, report: Report | None) -> None:
    """Wait until no other migration runs. Two pods may start at once; the second then finds nothing left to do."""
    key = "hashtext('sagas migrate')"
    if not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({key})").scalar_one():
        if report is not None:
            report("waiting for another `sagas migrate` to end", 0, 0)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")


def current_version(connection: sa.Connection) -> str | None:
    """Return the revision the database is at, or None if it was never migrated."""
    found = connection.exec_driver_sql(WHERE_VERSION).one()
    return None if found.name is None else connection.exec_driver_sql(version_in(found.name)).scalar()


def version_in(table: str) -> str:
    """Return the statement that reads the revision, and the oldest revision whose code can use the tables."""
    # Revision 0006 added the second column.
    return f"SELECT version_num AS version, to_jsonb(t) ->> 'oldest' AS oldest FROM {table} t"


def check_version(connection: sa.Connection) -> None:
    """Make sure that this code can use the database's tables.

    Raises:
        SchemaBehind: they are older, or there are none; the message gives the command to run.
        SchemaAhead: newer code made them, and this code cannot use them.
    """
    # Find the table first: an error of a missing table would end the caller's transaction.
    found = connection.exec_driver_sql(WHERE_VERSION).one()
    if found.name is None and (schema := connection.exec_driver_sql(_ELSEWHERE).scalar()) is not None:
        raise SchemaBehind(
            f"the saga tables are in the schema {schema}, which the search_path of this session does not name: set it "
            "for this user (ALTER ROLE … SET search_path), or run `sagas migrate` if these are to have tables of "
            "their own."
        )
    stored = None if found.name is None else connection.exec_driver_sql(version_in(found.name)).first()
    version, oldest = (None, None) if stored is None else (stored.version, stored.oldest)
    require_version(version, oldest=oldest, migrating=found.migrating)


def require_version(version: str | None, *, oldest: str | None = None, migrating: bool = False) -> None:
    """Make sure that this code can use tables of this revision.

    From 0006 on, two neighbouring versions can use the same tables: a migration adds what the newer one needs, and only
    a later migration removes what the older one used. So a newer revision is accepted, unless `oldest` excludes it.

    Args:
        version: the revision that is stored.
        oldest: the oldest revision whose code can use these tables, as stored.
        migrating: whether a migration is running.

    Raises:
        SchemaBehind, SchemaAhead: as for `check_version`.
    """
    if version is None or version in REVISIONS[:-1]:
        at = f"is at version {version}" if version else "has no saga tables of this version"
        cure = "`sagas migrate` is at work: start this program again when it has ended" if migrating else ""
        raise SchemaBehind(f"the database {at}, and this code needs {HEAD}: {cure or 'run `sagas migrate`'}.")
    if version not in REVISIONS and oldest is not None and oldest not in REVISIONS:
        raise SchemaAhead(
            f"the database is at version {version}, which code older than {oldest} cannot use, and this code ends at "
            f"{HEAD}: install the newer release of celery-sagas here."
        )


# -- next to the application's own migrations -----------------------------------------------------------------


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Have Alembic leave the saga tables alone: for `context.configure(include_name=...)` in an `env.py`.

    Without it, `alembic revision --autogenerate` proposes to drop them, as the application's metadata does not have
    them. Arguments are Alembic's.
    """
    return not (type_ == "table" and name in _TABLES)


def include_object(
    obj: object,  # noqa: ARG001
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: object,
) -> bool:
    """Do as `include_name` does, for `context.configure(include_object=...)`."""
    return not (type_ == "table" and reflected and compare_to is None and name in _TABLES)


_TABLES: Final = frozenset([*metadata.tables, VERSION_TABLE, OLDER_VERSION_TABLE])
