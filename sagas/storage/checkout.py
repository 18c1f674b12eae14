"""A connection of the pool for the time of one operation; what goes wrong on it, in our words.

SQLAlchemy's own `Connection` would cost a checkpoint a third of its speed, so statements run on the driver's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sagas.errors import SchemaBehind, StorageUnavailable
from sagas.storage.connecting import address, reason
from sagas.storage.prepared import PreparedStatements
from sagas.storage.schema import check_version

#: That the database does not answer, as SQLAlchemy says it and as the driver does.
_UNAVAILABLE: Final = (
    OperationalError,
    InterfaceError,
    PoolTimeout,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # Cut off by the server: this process was frozen in a transaction.
    pg.IdleInTransactionSessionTimeout,
)
_IDLE: Final = TransactionStatus.IDLE


class Connections:
    """Connections to one database, in autocommit, never shared across a fork.

    Args:
        engine: through psycopg 3.
        kept: how many idle ones are kept here, with their cursors; 0 for an engine of the caller's own, whose pool gets
            each back after every operation.
    """

    def __init__(self, engine: sa.Engine, *, kept: int) -> None:
        self._engine = engine
        self._kept = kept
        self._idle: list[Checkout] = []
        self._pid = os.getpid()
        self._schema_checked = False

    @property
    def url(self) -> sa.URL:
        """Of the database."""
        return self._engine.url

    def cursor(self) -> Checkout:
        """Return a context manager whose cursor is good for one operation; its rows are dicts.

        Raises:
            StorageUnavailable: the database does not answer.
            SchemaBehind: it lacks what this version needs.
        """
        if os.getpid() != self._pid:
            # Forked: the parent's connections are still the parent's; forget them without saying goodbye on them.
            self._idle = []
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        if not self._schema_checked:
            self.check_schema()
        try:
            return self._idle.pop()
        except IndexError:
            return Checkout(self, self._engine, kept=self._kept > 0)

    def write(self, statement: str, parameters: Mapping[str, Any]) -> int:
        """Execute a statement of every saga's path, whose parameters are no arrays; return how many rows it changed.

        Raises:
            StorageUnavailable, SchemaBehind: as for `cursor`.
        """
        checkout = self.cursor()
        with checkout as cursor:
            if checkout.prepared is not None:
                return checkout.prepared.execute(statement, parameters)
            return cursor.execute(statement, parameters).rowcount

    def give_back(self, checkout: Checkout) -> None:
        """Take back what an operation is done with."""
        if len(self._idle) < self._kept:
            self._idle.append(checkout)
        else:
            checkout.close()

    def check_schema(self) -> None:
        """Compare the database's tables with what this version needs.

        Raises:
            StorageUnavailable, SchemaBehind: as for `cursor`.
        """
        with self.translated(), self._engine.connect() as connection:
            check_version(connection)
        self._schema_checked = True

    def close(self) -> None:
        """Close the idle ones; new ones are opened when they are needed."""
        idle, self._idle = self._idle, []
        for checkout in idle:
            checkout.close()
        self._engine.dispose()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise in our words what the driver raises in the block, on whosever connection."""
        try:
            yield
        except (DBAPIError, PoolTimeout, psycopg.Error) as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> Exception:
        """Return what to raise instead of an error of the driver's, or the error itself."""
        cause = getattr(error, "orig", error)
        if isinstance(cause, pg.ReadOnlySqlTransaction):
            # A failover made a replica of this server: new connections find the new primary.
            self.close()
        elif isinstance(cause, (pg.UndefinedTable, pg.UndefinedColumn)):
            return SchemaBehind(
                f"the database at {address(self._engine.url)} lacks what this version needs "
                f"({reason(error)}): run `sagas migrate`."
            )
        elif not isinstance(error, _UNAVAILABLE):
            return error
        return StorageUnavailable(
            f"the database at {address(self._engine.url)} did not answer ({reason(error)}): check that it runs, "
            "accepts connections and knows this user and password (SAGAS_DATABASE_URL)."
        )


class Checkout:
    """One connection and its cursor; a plain class rather than a generator, because it is on every path.

    Attributes:
        prepared: the statements prepared on it, if it is kept and to one session alone.
    """

    __slots__ = ("_autocommit", "_connection", "_connections", "_cursor", "_engine", "_kept", "_pooled", "prepared")

    def __init__(self, connections: Connections, engine: sa.Engine, *, kept: bool) -> None:
        self.prepared: PreparedStatements | None = None
        self._kept = kept
        self._connections = connections
        self._engine = engine
        self._cursor: psycopg.Cursor[DictRow] | None = None

    def __enter__(self) -> psycopg.Cursor[DictRow]:
        if self._cursor is None:
            with self._connections.translated():
                self._open()
        assert self._cursor is not None
        return self._cursor

    def _open(self) -> None:
        self._pooled = self._engine.raw_connection()
        self._connection: psycopg.Connection[Any] = self._pooled.driver_connection  # type: ignore[assignment]
        if self._kept:
            # Or SQLAlchemy, in a child forked later, would say goodbye on it when it is forgotten there.
            self._pooled.detach()
        self._autocommit = self._connection.autocommit
        self._connection.autocommit = True
        self._cursor = self._connection.cursor(row_factory=dict_row)
        if self._kept and self._connection.prepare_threshold is not None:
            self.prepared = PreparedStatements(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.pgconn.transaction_status == _IDLE:
            self._connections.give_back(self)
        else:
            # In the middle of a statement that nobody waits for any more, or cut off.
            if self._kept:
                self._connection.close()
            else:
                self._pooled.invalidate()
            if self._connection.broken:
                # The server went away, and so did the other connections to it.
                self._connections.close()
        if isinstance(error, psycopg.Error) and (translated := self._connections.translate(error)) is not error:
            raise translated from error

    def close(self) -> None:
        """Give the connection back to SQLAlchemy's pool, as it was."""
        if not self._autocommit:
            self._connection.autocommit = False
        self._pooled.close()
