"""Databases for the benchmarks, on one durable server, as in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.storage.schema import migrate
from sagas.testing.servers import PostgresServer

#: The usual settings of a server of this size: a quarter of its memory for buffers. Acknowledged commits are on disk.
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
        """Reset the server's statistics of statements; the server must have pg_stat_statements loaded."""
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self.execute("SELECT pg_stat_statements_reset()")

    def counted(self, like: str) -> list[tuple[str, int, float]]:
        """Return the statements of this database that match a LIKE pattern: text, calls, total microseconds."""
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

    def fill(self, statement: LiteralString, size: int) -> None:
        """Insert sagas, oldest first, a million at a time.

        Args:
            statement: inserts those from `oldest` down to `newest`.
            size: how many.
        """
        self.migrate()
        with self.connect() as connection:
            for oldest in range(size, 0, -1_000_000):
                connection.execute(statement, {"oldest": oldest, "newest": max(oldest - 999_999, 1)})
            connection.execute("VACUUM (ANALYZE) saga_executions")
            connection.execute("CHECKPOINT")

    def storage(self) -> PostgresSagaStorage:
        """Return a storage on the database."""
        return PostgresSagaStorage(self.sqlalchemy_url)


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Callable[[str], Database]]:
    """Start a server with these additional settings; the yielded function makes a database of the given name."""
    with PostgresServer(directory, fsync=True, settings=SETTINGS | settings) as postgres:
        yield lambda name: Database(postgres.create_database(name))
