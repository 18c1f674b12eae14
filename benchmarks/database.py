"""Databases for measuring: on one durable server, as it is in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.storage.schema import migrate
from sagas.testing.servers import PostgresServer

#: As a server of this size is set up, a quarter of its memory for buffers; what is acknowledged is on disk.
SETTINGS = {"shared_buffers": "6GB", "max_wal_size": "8GB", "synchronous_commit": "on"}


class Database:
    """One database of the server.

    Args:
        url: SQLAlchemy's.
    """

    def __init__(self, url: str) -> None:
        self.sqlalchemy_url = url
        self.url = url.replace("+psycopg", "", 1)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection in autocommit."""
        return psycopg.connect(self.url, autocommit=True)

    def execute(self, statement: str) -> None:
        """Execute a statement."""
        with self.connect() as connection:
            connection.execute(statement)

    def count_statements(self) -> None:
        """Let the server, which must have pg_stat_statements loaded, count from here on."""
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self.execute("SELECT pg_stat_statements_reset()")

    def counted(self, like: str) -> list[tuple[str, int, float]]:
        """Return the statements of this database that are like this in SQL: text, calls, microseconds in all."""
        with self.connect() as connection:
            return connection.execute(
                "SELECT query, calls, total_exec_time * 1000 FROM pg_stat_statements s JOIN pg_database d "
                "ON d.oid = s.dbid WHERE d.datname = current_database() AND query LIKE %s",
                (like,),
            ).fetchall()

    def migrate(self) -> None:
        """Create the tables of sagas."""
        engine = sa.create_engine(self.sqlalchemy_url)
        with engine.connect() as connection:
            migrate(connection)
        engine.dispose()

    def storage(self) -> PostgresSagaStorage:
        """Return a storage on it."""
        return PostgresSagaStorage(self.sqlalchemy_url)


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Callable[[str], Database]]:
    """Start a server, with more settings if any; the function it yields makes a database of that name."""
    with PostgresServer(directory, fsync=True, settings=SETTINGS | settings) as postgres:
        yield lambda name: Database(postgres.create_database(name))
