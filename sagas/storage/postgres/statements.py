"""What every part of the storage needs: connections, and statements by the names of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.rows import DictRow

from sagas.storage.contract import ISagaStorage
from sagas.storage.postgres.creating import Within
from sagas.storage.postgres.pool import Connections
from sagas.storage.postgres.queries import query
from sagas.storage.transactions import CallersTransaction, callers_transaction

#: Key of the advisory lock of scans, pauses and resumes. It may be any number that nothing else uses.
_SCAN_LOCK: Final = 0x5A6A5


class Statements(ISagaStorage):
    """Executes statements.

    Args:
        engine: through psycopg 3.
        pool_size: how many connections are used at once at most; None if the engine's own pool decides.
    """

    def __init__(self, engine: sa.Engine, *, pool_size: int | None) -> None:
        self._connections = Connections(engine, size=pool_size)
        # Steps may change settings of their session, so the engine's own statements never run on these.
        self._of_steps = Connections(engine, size=pool_size)
        self._here: str | None = None

    @property
    def connections(self) -> Connections:
        """The pool of connections. The inspector's queries use it too."""
        return self._connections

    def _rows(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with self._connections.cursor() as cursor:
            return cursor.execute(statement, parameters).fetchall()

    def _query(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self._rows(query(name), parameters)

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> int:
        with self._connections.cursor() as cursor:
            return cursor.execute(query(name), parameters).rowcount

    @contextmanager
    def _scanning(self) -> Iterator[psycopg.Cursor[DictRow]]:
        """Open a transaction during which no other transaction scans, pauses or resumes."""
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            cursor.execute(query("scan_lock"), {"key": _SCAN_LOCK})
            yield cursor

    def _within(self, connection: Any) -> Within:
        return Within(
            self.join(connection),
            here=self._where,
            database=self._connections.url,
            translate=self._connections.translate,
        )

    def join(self, connection: Any) -> CallersTransaction:
        return callers_transaction(connection, database=self._connections.url)

    def connect(self) -> None:
        self._where(False)

    def _where(self, again: bool) -> str:
        if self._here is None or again:
            self._here = str(self._query("here", {})[0]["here"])
        return self._here
