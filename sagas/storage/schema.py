"""The database's layout: which version this code needs, and the migrations that lead there."""

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

#: Every revision this code knows, the oldest first; the last is the one it needs.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006")
HEAD: Final = REVISIONS[-1]
#: Is told what a migration does: the work in words, rows done and rows in all; 0 and 0 where rows are not counted.
Report: TypeAlias = Callable[[str, int, int], None]
#: Which table holds the revision: none, ours, or that of version 0.1.0. And whether somebody migrates just now.
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
#: Alembic keeps the migration in progress in its modules' variables: threads would get each other's connection.
_ONE_AT_A_TIME: Final = threading.Lock()


def migrate(connection: sa.Connection, *, to: str = "head", report: Report | None = None) -> None:
    """Bring the database to a revision, from nothing or from any older layout, keeping every row.

    It is one transaction: cut off at any moment, it leaves the database as it was, and can be run again. Within a
    migration of the caller's own, as `migrate(op.get_bind())`, it becomes part of that migration's transaction, and
    commits nothing by itself.

    Args:
        connection: to migrate; committed by the migration itself, except within a migration of the caller's own.
        to: the revision, usually the newest.
        report: is told what is done, and how far it is.

    Raises:
        MigrationRefused: workers of the version before still run, something depends on what goes, the data cannot be
            carried over, or the connection cannot do it in a transaction; nothing was changed.
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
    # Of the directories above the installation, one may have a % in its name, which a Config would read as its own.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["report"] = report
    with _ONE_AT_A_TIME, _outer_migration() as within:
        command.upgrade(config, to)
        if connection.in_transaction() and within is not connection:
            # The caller had read something before, so Alembic left its transaction open.
            connection.commit()


@contextmanager
def _outer_migration() -> Iterator[object]:
    """Yield the connection of a migration of the caller's own that is running, or None; let it go on afterwards.

    Alembic keeps what `alembic.op` and `alembic.context` stand for in these modules, and forgets it after a migration:
    also when that was one within another.
    """
    from alembic import context, op

    outer = [proxy for module in (context, op) if (proxy := getattr(module, "_proxy", None)) is not None]
    try:
        yield op.get_bind() if getattr(op, "_proxy", None) is not None else None
    finally:
        for proxy in outer:
            proxy._install_proxy()


def wait_for_turn(connection: sa.Connection, report: Report | None) -> None:
    """Have migrations take turns, as two pods may start at once; the second finds nothing left to do."""
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
    """Return the statement that reads the revision, and the oldest one whose code can use the tables."""
    # The second column was added by revision 0006.
    return f"SELECT version_num AS version, to_jsonb(t) ->> 'oldest' AS oldest FROM {table} t"


def check_version(connection: sa.Connection) -> None:
    """Make sure that this code can use the database's tables.

    Raises:
        SchemaBehind: they are older, or there are none; the message gives the command to run.
        SchemaAhead: newer code made them, and this code cannot use them.
    """
    # Asked first: an error would end the caller's transaction.
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

    From 0006 on, two neighbouring versions work side by side: a migration adds what the newer one needs, and only a
    later one takes away what the older one used. So a newer revision is accepted, unless it says otherwise.

    Args:
        version: the revision that is stored.
        oldest: the oldest revision whose code can use these tables, as stored with it.
        migrating: whether a migration is at work.

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


# -- beside the application's own migrations ------------------------------------------------------------------


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
