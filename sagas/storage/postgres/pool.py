"""The pool: a connection for the time of one operation, and what goes wrong on it in our words.

Statements run on the driver's connections: SQLAlchemy's `Connection` costs a checkpoint a third of its speed. The pool
is our own because psycopg_pool's costs each operation a sixth (it hands every returned connection to the threads that
wait for one), and because its threads, which do not survive a fork, keep for themselves why connecting failed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sagas.errors import CharacterNotStorable, SchemaBehind, StorageUnavailable
from sagas.storage.postgres.dsn import reason
from sagas.storage.postgres.prepared import PreparedStatements
from sagas.storage.schema import check_version
from sagas.urls import address

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
#: Seconds for which a connection that nobody used is believed to be alive; after that it is asked first.
_TRUSTED_SECONDS: Final = 1.0
#: Seconds after which a connection that nobody needed is closed.
_KEPT_SECONDS: Final = 600.0
#: Seconds to wait for a connection while all are in use; an operation takes a few milliseconds.
_WAIT_SECONDS: Final = 30.0


class Connections:
    """Connections to one database, in autocommit, never shared across a fork.

    They are opened when they are needed, and the one that was used last is used first: a process opens as many as it
    uses at once. One that was idle is checked before it is used, as a server, a pooler or a firewall may have cut it.

    Args:
        engine: through psycopg 3.
        size: how many are used at once at most; one more is only for renewing leases. None for an engine of the
            caller's own, whose pool gets each back after every operation.
    """

    def __init__(self, engine: sa.Engine, *, size: int | None) -> None:
        self._engine = engine
        self._size = size
        self._schema_checked = False
        self._reset()

    @property
    def url(self) -> sa.URL:
        """Of the database."""
        return self._engine.url

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Checkout] = []
        self._free = None if self._size is None else threading.Semaphore(self._size)

    def cursor(self, *, at_once: bool = False) -> Checkout:
        """Return a context manager whose cursor is good for one operation; its rows are dicts.

        Args:
            at_once: do not wait while all connections are in use, but open one more: for renewals, of which one is
                under way at a time, and which must not come late.

        Raises:
            StorageUnavailable: the database does not answer, or all connections were in use for 30 seconds.
            SchemaBehind: it lacks what this version needs.
        """
        if os.getpid() != self._pid:
            # After a fork, drop inherited connections without closing them: closing would end the parent's sessions.
            self._reset()
            self._engine.dispose(close=False)
        if not self._schema_checked:
            self.check_schema()
        waits = None if at_once else self._free
        if waits is not None and not waits.acquire(timeout=_WAIT_SECONDS):
            raise StorageUnavailable(
                f"all {self._size} connections to the database at {address(self._engine.url)} were in use for "
                f"{_WAIT_SECONDS:g} seconds: see what it is busy with, or set SAGAS_DATABASE_POOL_SIZE higher."
            )
        try:
            checkout = self._idle.pop()
        except IndexError:
            checkout = Checkout(self, self._engine, kept=self._size is not None)
        checkout.waits = waits
        return checkout

    def write(self, statement: str, parameters: Mapping[str, Any]) -> str | None:
        """Execute a statement of every saga's path; return the one text that it returns, or None if it changed nothing.

        Raises:
            StorageUnavailable, SchemaBehind: as for `cursor`.
            CharacterNotStorable: the database's encoding cannot hold a parameter.
        """
        checkout = self.cursor()
        with checkout as cursor:
            if checkout.prepared is not None:
                return checkout.prepared.execute(statement, parameters)
            row = cursor.execute(statement, parameters).fetchone()
            return None if row is None else str(next(iter(row.values())))

    def keep(self, checkout: Checkout) -> None:
        """Keep a connection for the next operation, and close one that nobody needed for a long time."""
        self._idle.append(checkout)
        try:
            if checkout.used_at - self._idle[0].used_at > _KEPT_SECONDS:
                self._idle.pop(0).close()
        except IndexError:
            pass  # other threads took them

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
        except (DBAPIError, PoolTimeout, psycopg.Error, UnicodeEncodeError) as error:
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
        elif isinstance(cause, (pg.UntranslatableCharacter, UnicodeEncodeError)):
            return CharacterNotStorable(
                f"the database at {address(self._engine.url)} cannot hold a character of this text ({reason(error)}): "
                "leave it out, or keep the sagas in a database with the encoding UTF8, which holds all."
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
        used_at: when it was last known to be alive, by the monotonic clock.
        waits: where others wait for it to be given back.
    """

    __slots__ = (
        "_autocommit",
        "_connection",
        "_connections",
        "_cursor",
        "_engine",
        "_kept",
        "_pooled",
        "prepared",
        "used_at",
        "waits",
    )

    def __init__(self, connections: Connections, engine: sa.Engine, *, kept: bool) -> None:
        self.prepared: PreparedStatements | None = None
        self.used_at = 0.0
        self.waits: threading.Semaphore | None = None
        self._kept = kept
        self._connections = connections
        self._engine = engine
        self._cursor: psycopg.Cursor[DictRow] | None = None

    def __enter__(self) -> psycopg.Cursor[DictRow]:
        try:
            if self._cursor is not None and monotonic() - self.used_at > _TRUSTED_SECONDS and not self._answers():
                self._cursor = None
            if self._cursor is None:
                with self._connections.translated():
                    self._open()
        except BaseException:
            if self.waits is not None:
                self.waits.release()
            raise
        assert self._cursor is not None
        return self._cursor

    @property
    def engine(self) -> sa.Engine:
        """The engine that opened it."""
        return self._engine

    @property
    def pooled(self) -> Any:
        """The connection as SQLAlchemy's pool gave it out."""
        return self._pooled

    def _answers(self) -> bool:
        try:
            self._connection.execute("")
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def _open(self) -> None:
        self._pooled = self._engine.raw_connection()
        self._connection: psycopg.Connection[Any] = self._pooled.driver_connection  # type: ignore[assignment]
        if self._kept:
            # Or SQLAlchemy, in a child forked later, would say goodbye on it when it is forgotten there.
            self._pooled.detach()
        self._autocommit = self._connection.autocommit
        self._connection.autocommit = True
        # Binary, as text is in the session's DateStyle, which may be one that psycopg cannot read.
        self._cursor = self._connection.cursor(row_factory=dict_row, binary=True)
        if self._kept and self._connection.prepare_threshold is not None:
            self.prepared = PreparedStatements(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waits = self.waits  # read now: once it is kept, it may be another thread's
        try:
            if self._connection.pgconn.transaction_status != _IDLE:
                self._drop()
            elif self._kept:
                self.used_at = monotonic()
                self._connections.keep(self)
            else:
                self.close()
        finally:
            if waits is not None:
                waits.release()
        if isinstance(error, (psycopg.Error, UnicodeEncodeError)):
            translated = self._connections.translate(error)
            if translated is not error:
                raise translated from error

    def _drop(self) -> None:
        # In the middle of a statement that nobody waits for any more, or cut off.
        if self._kept:
            self._connection.close()
        else:
            self._pooled.invalidate()
        if self._connection.broken:
            # The server went away, and so did the other connections to it.
            self._connections.close()

    def close(self) -> None:
        """Close the connection, or give it back to the caller's pool as it was."""
        if self._kept:
            self._connection.close()
            return
        if not self._autocommit:
            self._connection.autocommit = False
        self._pooled.close()
