"""Stores sagas in PostgreSQL. An operation is one round trip, a claim a few. The statements are in `queries/`."""

from __future__ import annotations

import sqlalchemy as sa

from sagas.errors import ConfigurationError
from sagas.settings import DEFAULT_POOL_SIZE
from sagas.storage.arguments import require_counts, require_seconds
from sagas.storage.postgres.attempts import Attempts
from sagas.storage.postgres.dispatching import Dispatching
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.postgres.holding import Holding
from sagas.storage.postgres.outbox import Outbox
from sagas.storage.postgres.pausing import Pausing
from sagas.storage.postgres.reading import Reading
from sagas.storage.postgres.schedules import Schedules
from sagas.storage.postgres.signals import Signals
from sagas.storage.postgres.starting import Starting


class PostgresSagaStorage(Attempts, Starting, Reading, Signals, Holding, Dispatching, Outbox, Pausing, Schedules):
    """Stores sagas in PostgreSQL.

    Connections are opened on first use, checked after they were idle, and never shared across a fork.

    Args:
        database: a URL such as `postgresql+psycopg://user:password@host/database`, or a SQLAlchemy Engine of the
            caller's own, whose pool then decides how many connections there are and when they are checked.
        pool_size: how many connections to the URL are used at once at most; renewals of leases have one more.

    Raises:
        ConfigurationError: the URL cannot be read, or is not PostgreSQL through psycopg 3.
    """

    def __init__(self, database: str | sa.URL | sa.Engine, *, pool_size: int = DEFAULT_POOL_SIZE) -> None:
        engine = database if isinstance(database, sa.Engine) else make_engine(database)
        if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
            raise ConfigurationError(
                f"the database engine uses {engine.dialect.name}+{engine.dialect.driver}, and sagas need "
                "PostgreSQL through psycopg 3: make it with a URL that begins postgresql+psycopg://."
            )
        super().__init__(engine, pool_size=None if engine is database else pool_size)

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        return self._execute("prune", {"age": older_than_seconds, "limit": limit})

    def check_schema(self) -> None:
        self._connections.check_schema()

    def close(self) -> None:
        """Close this process's idle connections; the storage can be used again."""
        self._connections.close()
        self._of_steps.close()
