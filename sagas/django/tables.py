"""Create the tables of sagas in a database of Django."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.migrations.loader import MigrationLoader

from sagas.django.configuration import database_alias, url_of
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.schema import HEAD, REVISIONS, current_version, migrate


def bring_to(revision: str, alias: str) -> None:
    """Bring the tables to a revision, if they are in this database and at an older revision.

    Args:
        revision: a revision of `sagas migrate`.
        alias: the database in DATABASES that Django migrates.
    """
    if alias != database_alias():
        return
    engine = make_engine(url_of(connections[alias])).execution_options(isolation_level="READ COMMITTED")
    with engine.connect() as connection:
        current = current_version(connection)
        connection.rollback()
        if current in (None, *REVISIONS[: REVISIONS.index(revision)]):
            migrate(connection, to=revision)


def migration_to(revision: str) -> Any:
    """Return the operation of a Django migration that brings the tables to a revision.

    The operation does nothing if `sagas migrate` has run before. Undoing it keeps the tables.
    """
    from django.db.migrations import RunPython

    def forward(_: Any, schema_editor: Any) -> None:
        bring_to(revision, schema_editor.connection.alias)

    return RunPython(forward, RunPython.noop, elidable=False)


def make_where_migrations_are_off(alias: str) -> None:
    """Make the tables if Django runs no migrations, as test settings may demand (`MIGRATE`, MIGRATION_MODULES).

    Args:
        alias: the database in DATABASES that Django has just prepared.
    """
    module, _ = MigrationLoader.migrations_module("sagas")
    if module is None:
        bring_to(HEAD, alias)
