"""The caller's own transaction, in which sagas are started: they exist if and only if the caller commits.

Each library that a caller may use has one adapter here. `CallersTransaction` is the interface of adapters. A program
may write its own adapter and pass it as `connection=`.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from sqlalchemy import event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from sagas.errors import ConfigurationError, TransactionRefused
from sagas.urls import address

if TYPE_CHECKING:  # its import wants greenlet, which only async programs have
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

ResultT = TypeVar("ResultT")
Rows = Sequence[Mapping[str, Any]]

_ACCEPTED: Final = (
    "a Connection, Session or scoped_session of SQLAlchemy, or a Connection of psycopg 3; start_async() takes an "
    "AsyncConnection, AsyncSession or async_scoped_session of SQLAlchemy, or an AsyncConnection of psycopg 3"
)


class CallersTransaction(ABC):
    """An open transaction of the caller's."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Host, port and name of its database for messages, without user and password."""

    @abstractmethod
    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        """Execute a statement inside the transaction and return its rows, each a mapping from column to value.

        Args:
            statement: SQL with its parameters in psycopg's style: `%(name)s`.
            parameters: by name; text, numbers, None, and lists of text.
        """

    def on_commit(self, action: Callable[[], None]) -> bool:
        """Have a function called once the transaction has committed, and never if it does not.

        Returns:
            Whether it will be called. False if the library does not report the commit.
        """
        return False


#: What `start` takes as `connection=`, and what `start_async` takes.
TransactionOwner: TypeAlias = (
    "sa.Connection | Session | scoped_session[Any] | psycopg.Connection[Any] | CallersTransaction"
)
AsyncTransactionOwner: TypeAlias = (
    "AsyncConnection | AsyncSession | async_scoped_session[Any] | psycopg.AsyncConnection[Any]"
)


def callers_transaction(connection: object, *, database: sa.URL | None = None) -> CallersTransaction:
    """Return the adapter for what a caller gave as `connection=`.

    Args:
        connection: one of the kinds that `start` takes.
        database: where sagas are stored, if known; it decides between the binds of a session.

    Raises:
        TransactionRefused: it is in no transaction that could be joined, or its bind is ambiguous.
        TypeError: it is of another kind.
    """
    match connection:
        case CallersTransaction():
            return connection
        case scoped_session():
            return _of_session(connection(), database)
        case Session():
            return _of_session(connection, database)
        case sa.Connection():
            return _SqlAlchemy(connection)
        case psycopg.Connection():
            return _Psycopg(connection)
    if _asynchronous(connection):
        raise TypeError(f"{_kind(connection)} cannot be used by start(): write `await start_async(...)`.")
    raise TypeError(f"a saga cannot be started on {_kind(connection)}: give {_ACCEPTED}.")


async def call_within(connection: Any, function: Callable[[Any], ResultT]) -> ResultT:
    """Call a function with what `start` takes for an async connection or session; it may execute statements there.

    Raises:
        TypeError: the connection is of no async kind that is known.
        ConfigurationError: greenlet is missing.
    """
    if not _asynchronous(connection):
        cure = "use start()" if isinstance(connection, _SYNCHRONOUS) else f"give {_ACCEPTED}"
        raise TypeError(f"start_async() cannot use {_kind(connection)}: {cure}.")
    if isinstance(connection, psycopg.AsyncConnection):
        from sqlalchemy.util import greenlet_spawn

        if find_spec("greenlet") is None:
            raise ConfigurationError("start_async() on psycopg's AsyncConnection needs greenlet: pip install greenlet.")
        return await greenlet_spawn(lambda: function(_AsyncPsycopg(connection)))
    if hasattr(connection, "registry"):  # an async_scoped_session, which has no run_sync of its own
        connection = connection()
    result: ResultT = await connection.run_sync(function)
    return result


_SYNCHRONOUS: Final = (CallersTransaction, scoped_session, Session, sa.Connection, psycopg.Connection)


def _asynchronous(connection: object) -> bool:
    # Its import wants greenlet, which only async programs have; what was never imported has no instances.
    kinds: list[type] = [psycopg.AsyncConnection]
    if asynchronous := sys.modules.get("sqlalchemy.ext.asyncio"):
        kinds += [asynchronous.AsyncSession, asynchronous.AsyncConnection, asynchronous.async_scoped_session]
    return isinstance(connection, tuple(kinds))


def _kind(connection: object) -> str:
    kind = type(connection)
    return f"an object of {kind.__module__}.{kind.__qualname__}"


# -- SQLAlchemy ---------------------------------------------------------------------------------------------------


class _SqlAlchemy(CallersTransaction):
    def __init__(self, connection: sa.Connection, session: Session | None = None) -> None:
        if getattr(connection.connection.dbapi_connection, "autocommit", False) is True:
            raise _no_transaction("connect without isolation_level='AUTOCOMMIT'")
        self._connection = connection
        self._session = session

    @property
    def address(self) -> str:
        return address(self._connection.engine.url)

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        # The caller may use another driver, such as asyncpg: SQLAlchemy translates the parameters.
        return [dict(row._mapping) for row in self._connection.execute(sa.text(_named(statement)), parameters)]

    def on_commit(self, action: Callable[[], None]) -> bool:
        if self._session is None:
            # ConnectionEvents.commit is called before the COMMIT, and there is no event after it.
            return False
        _Outbox.of(self._session).put(self._session, self._connection, action)
        return True


def _named(statement: str) -> str:
    return re.sub(r"%\((\w+)\)s", r":\1", statement)


def _of_session(session: Session, database: sa.URL | None) -> CallersTransaction:
    return _SqlAlchemy(session.connection(bind_arguments={"bind": _bind(session, database)}), session)


def _bind(session: Session, database: sa.URL | None) -> sa.Engine | sa.Connection:
    """Return what a session uses for the database of the sagas."""
    # Read the binds of classes and tables; SQLAlchemy 2.0 has no public name for them.
    of_classes = getattr(session, "binds", None) or getattr(session, "_Session__binds", {})
    binds: list[sa.Engine | sa.Connection] = list(of_classes.values())
    default = None
    with suppress(UnboundExecutionError):
        default = session.get_bind()
        binds.append(default)
    engines = {bind.engine: bind for bind in binds}
    there = [bind for engine, bind in engines.items() if database and _place(engine.url) == _place(database)]
    for choice in (there, [default] if default else [], list(engines.values())):
        if len(choice) == 1:
            # One address can be written in many ways. Storing the saga checks that it is the right database.
            return choice[0]
    addresses = ", ".join(sorted({address(engine.url) for engine in engines})) or "none"
    raise TransactionRefused(
        f"which of the databases that the session is bound to ({addresses}) keeps the sagas "
        f"({address(database) if database else 'address unknown'}) cannot be told from their addresses: give start() "
        "session.connection(bind_arguments=...) of the right one, and call send() after the commit."
    )


def _place(url: sa.URL) -> tuple[object, ...]:
    return (url.host or url.query.get("host"), url.port or 5432, url.database or url.username)


class _Outbox:
    """Actions that run once a session has committed. Each waits for all transactions that were open at its addition."""

    def __init__(self, session: Session) -> None:
        self._waiting: list[tuple[list[SessionTransaction], sa.Connection, Callable[[], None]]] = []
        # The listeners stay on the session: SQLAlchemy does not allow removing a listener while it is called.
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    @classmethod
    def of(cls, session: Session) -> _Outbox:
        outbox: _Outbox = session.info.get(cls) or session.info.setdefault(cls, cls(session))
        return outbox

    def put(self, session: Session, connection: sa.Connection, action: Callable[[], None]) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        transactions = []
        while innermost is not None:
            transactions.append(innermost)
            innermost = innermost.parent
        self._waiting.append((transactions, connection, action))

    def _committed(self, session: Session) -> None:
        committed = session.get_nested_transaction() or session.get_transaction()
        waiting, self._waiting = self._waiting, []
        for transactions, connection, action in waiting:
            open_ones = [transaction for transaction in transactions if transaction is not committed]
            if open_ones:
                self._waiting.append((open_ones, connection, action))
            elif not connection.in_transaction():
                # Otherwise the session has joined a transaction of its connection, which may still be rolled back.
                action()

    def _ended(self, _: Session, transaction: SessionTransaction) -> None:
        # A transaction that still counts as open when it ends was rolled back.
        self._waiting = [waiting for waiting in self._waiting if transaction not in waiting[0]]


# -- psycopg ------------------------------------------------------------------------------------------------------


class _OfPsycopg(CallersTransaction):
    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._connection: Any = connection
        if connection.info.transaction_status == TransactionStatus.ACTIVE:
            # In a pipeline, earlier statements have not been answered yet. This statement waits for them.
            self.execute("SELECT 1", {})
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            raise _no_transaction("open one with `connection.transaction()`")

    @property
    def address(self) -> str:
        info = self._connection.info
        return address(sa.URL.create("postgresql", host=info.host, port=info.port, database=info.dbname))


class _Psycopg(_OfPsycopg):
    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        # Make a cursor of our own class: the connection's factories may return other cursors and rows.
        with psycopg.Cursor(self._connection, row_factory=dict_row) as cursor:
            return cursor.execute(statement, parameters, prepare=False).fetchall()


class _AsyncPsycopg(_OfPsycopg):
    """Runs in a greenlet. The coroutine that called it does the waiting."""

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        from sqlalchemy.util import await_only

        return await_only(self._execute(statement, parameters))

    async def _execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        async with psycopg.AsyncCursor(self._connection, row_factory=dict_row) as cursor:
            return await (await cursor.execute(statement, parameters, prepare=False)).fetchall()


def _no_transaction(cure: str) -> TransactionRefused:
    return TransactionRefused(
        "the connection is in autocommit, so there is no transaction that the saga could be part of: "
        f"{cure}, or start the saga without connection=."
    )
