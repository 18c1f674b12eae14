"""The database's layout: which version this code needs, and the migrations that lead there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from sagas.errors import MigrationRefused, SchemaBehind
from sagas.storage.tables import metadata

#: Every revision this code knows, the oldest first; the last is the one it needs.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006")
HEAD: Final = REVISIONS[-1]
#: Of our own, so that it does not meet the application's.
VERSION_TABLE: Final = "sagas_alembic_version"
_ELSEWHERE: Final = (
    f"SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = '{VERSION_TABLE}' AND relkind = 'r' LIMIT 1"
)
#: Alembic keeps the migration in progress in its modules' variables: threads would get each other's connection.
_ONE_AT_A_TIME: Final = threading.Lock()


def migrate(connection: sa.Connection, *, to: str = "head") -> None:
    """Bring the database to a revision, from nothing or from any older layout, keeping every row.

    Within a migration of the caller's own, as `migrate(op.get_bind())`, it becomes part of that migration's
    transaction, and commits nothing by itself.

    Args:
        connection: to migrate; committed by the migration itself, except within a migration of the caller's own.
        to: the revision, usually the newest.

    Raises:
        MigrationRefused: the connection cannot do it in a transaction, or the data cannot be carried over; nothing was
            changed.
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


def current_version(connection: sa.Connection) -> str | None:
    """Return the revision the database is at, or None if it was never migrated."""
    # Asked first: an error would end the caller's transaction.
    if connection.exec_driver_sql(f"SELECT to_regclass('{VERSION_TABLE}')").scalar() is None:
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()


def check_version(connection: sa.Connection) -> None:
    """Make sure that the database is at the revision this code needs, or at one that newer code made.

    Raises:
        SchemaBehind: it is older, or has no tables; the message gives the command to run.
    """
    version = current_version(connection)
    if version is None and (schema := connection.exec_driver_sql(_ELSEWHERE).scalar()) is not None:
        raise SchemaBehind(
            f"the saga tables are in the schema {schema}, which the search_path of this session does not name: set it "
            "for this user (ALTER ROLE … SET search_path), or run `sagas migrate` if these are to have tables of "
            "their own."
        )
    require_version(version)


def require_version(version: str | None) -> None:
    """Make sure that this is the revision this code needs, or one that newer code made.

    Raises:
        SchemaBehind: as for `check_version`.
    """
    if version is None or version in REVISIONS[:-1]:
        at = f"is at version {version}" if version else "has no saga tables of this version"
        raise SchemaBehind(f"the database {at}, and this code needs {HEAD}: run `sagas migrate`.")


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


_TABLES: Final = frozenset([*metadata.tables, VERSION_TABLE])
