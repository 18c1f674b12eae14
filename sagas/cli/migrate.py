"""`sagas migrate`: bring the database to the newest layout."""

from __future__ import annotations

from contextlib import closing, suppress
from time import monotonic
from typing import Final

import sqlalchemy as sa
import typer

from sagas import api
from sagas.errors import SchemaBehind
from sagas.storage import PostgresSagaStorage
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.schema import HEAD, REVISIONS, current_version
from sagas.storage.schema import migrate as migrate_tables

#: Seconds between two lines about one piece of work.
_QUIET_SECONDS: Final = 2.0
#: For whoever upgrades a deployment of 0.1.0, which ended with revision 0004 at the latest.
_NEW_COMMANDS: Final = (
    "Start workers by `celery -A sagas worker` now, and beat by `celery -A sagas beat`: the package no longer has "
    "a module `tasks`. To have sagas in an application of your own, call sagas.celery.install(app)."
)


def migrate() -> None:
    """Bring the database to the newest layout."""
    typer.echo(migrate_database(api.settings().database_url))


def migrate_database(url: str) -> str:
    """Bring the database to the newest layout and say from where it came; tell on stderr how far it is.

    Raises:
        ConfigurationError: the URL cannot be used.
        StorageUnavailable: the database does not answer.
        SchemaAhead: a newer release changed it so that this one cannot use it.
        MigrationRefused: it cannot be migrated as it is; nothing was changed.
    """
    with suppress(SchemaBehind), closing(PostgresSagaStorage(url)) as storage:
        # Whether the URL can be used and the database answers, in the same words as from every other command.
        storage.check_schema()
    engine = make_engine(url).execution_options(isolation_level="READ COMMITTED")
    try:
        return _migrate(engine)
    finally:
        engine.dispose()


def _migrate(engine: sa.Engine) -> str:
    before = _version(engine)
    if before is not None and before not in REVISIONS:
        return f"already at {before}, which newer code made and this code ({HEAD}) works with."
    if before == HEAD:
        return f"already at {HEAD}."
    with engine.connect() as connection:
        migrate_tables(connection, report=_Told())
    done = f"migrated from {before or 'no version'} to {_version(engine)}."
    return done if before is None else f"{done} {_NEW_COMMANDS}"


class _Told:
    """Prints on stderr what a migration does: each piece of work when it begins, and then every two seconds."""

    def __init__(self) -> None:
        self._work = ""
        self._at = 0.0

    def __call__(self, work: str, done: int, total: int) -> None:
        if work == self._work and monotonic() - self._at < _QUIET_SECONDS:
            return
        self._work, self._at = work, monotonic()
        typer.echo(f"{work}: {done:,} of {total:,} rows" if total else f"{work} ...", err=True)


def _version(engine: sa.Engine) -> str | None:
    # On a connection of its own: asking a database without the table breaks the transaction it is asked in.
    with engine.connect() as connection:
        return current_version(connection)
