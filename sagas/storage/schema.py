"""The database's layout: which version this code needs, and the migrations that lead there."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from sagas.errors import SchemaBehind

#: Every revision this code knows, the oldest first; the last is the one it needs.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005")
HEAD: Final = REVISIONS[-1]
#: Of our own, so that it does not meet the application's.
VERSION_TABLE: Final = "sagas_alembic_version"
#: Alembic keeps the migration in progress in its modules' variables: threads would get each other's connection.
_ONE_AT_A_TIME: Final = threading.Lock()


def migrate(connection: sa.Connection, *, to: str = "head") -> None:
    """Bring the database to a revision, from nothing or from any older layout, keeping every row.

    Args:
        connection: to migrate; committed by the migration itself.
        to: the revision, usually the newest.
    """
    from alembic import command  # slow to import, and only migrations need it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        command.upgrade(config, to)
        if connection.in_transaction():
            # The caller had read something before, so Alembic left its transaction open.
            connection.commit()


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
    require_version(current_version(connection))


def require_version(version: str | None) -> None:
    """Make sure that this is the revision this code needs, or one that newer code made.

    Raises:
        SchemaBehind: as for `check_version`.
    """
    if version is None or version in REVISIONS[:-1]:
        at = f"is at version {version}" if version else "has no saga tables of this version"
        raise SchemaBehind(f"the database {at}, and this code needs {HEAD}: run `sagas migrate`.")
