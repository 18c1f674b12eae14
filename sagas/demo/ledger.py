"""The shop's books: every effect on an account, once per idempotency key, in a database that is not the sagas'.

They stand for the services that a real shop calls: the engine knows nothing of them, and no transaction spans both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors as pg

_TABLES: Final = """
    CREATE TABLE accounts (
        name text PRIMARY KEY,
        balance bigint NOT NULL CHECK (balance >= 0)
    );
    CREATE TABLE entries (
        id bigint GENERATED ALWAYS AS IDENTITY,
        idempotency_key text PRIMARY KEY,
        order_id text NOT NULL,
        effect text NOT NULL,
        undone boolean NOT NULL,
        account text NOT NULL REFERENCES accounts,
        change bigint NOT NULL
    );
    CREATE INDEX ON entries (order_id);
    CREATE TABLE requests (
        idempotency_key text PRIMARY KEY,
        times int NOT NULL
    )
"""
#: Requests for one order wait for each other, so that an undoing never passes the effect that it undoes.
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_REQUESTED: Final = """
    INSERT INTO requests VALUES (%s, 1)
    ON CONFLICT (idempotency_key) DO UPDATE SET times = requests.times + 1
    RETURNING times
"""
_KNOWN: Final = "SELECT count(*) FROM entries WHERE idempotency_key = %s"
_UNDONE: Final = "SELECT count(*) FROM entries WHERE order_id = %s AND effect = %s AND undone"
_CHANGED: Final = "SELECT coalesce(sum(change), 0) FROM entries WHERE order_id = %s AND effect = %s"
_ENTER: Final = """
    INSERT INTO entries (idempotency_key, order_id, effect, undone, account, change) VALUES (%s, %s, %s, %s, %s, %s)
"""


class Overdrawn(Exception):
    """An account does not hold what was to be taken from it."""


class Cancelled(Exception):
    """A request arrived late: its effect was undone before it came."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect on one account, or the undoing of one."""

    key: str
    order: str
    effect: str
    undone: bool
    account: str
    change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that the ledger holds.

    Attributes:
        entries: in the order in which they were made.
        balances: of each account.
        requests: how often each idempotency key was sent, whether it took effect or not.
    """

    entries: tuple[Entry, ...]
    balances: Mapping[str, int]
    requests: Mapping[str, int]


@contextmanager
def ledger_at(url: str) -> Iterator[Ledger]:
    """Open the books in this database, on a connection of their own, for as long as the block runs."""
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=5) as connection:
        yield Ledger(connection)


class Ledger:
    """The books.

    Args:
        connection: to their database, in autocommit.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def open(self, balances: Mapping[str, int]) -> None:
        """Make the tables, and the accounts with what they hold at the beginning."""
        with self._connection.transaction():
            self._connection.execute(_TABLES)
            for account in balances.items():
                self._connection.execute("INSERT INTO accounts VALUES (%s, %s)", account)

    def requested(self, key: str) -> int:
        """Note that a request arrived; return how many have, with this key."""
        return self._number(_REQUESTED, [key])

    def enter(self, key: str, *, order: str, effect: str, account: str, change: int) -> None:
        """Take effect, unless a request with this key did before.

        Raises:
            Overdrawn: the account does not hold enough.
            Cancelled: the effect was undone already, so it must not happen any more.
        """
        with self._alone_with(order):
            if self._number(_KNOWN, [key]):
                return
            if self._number(_UNDONE, [order, effect]):
                raise Cancelled(f"order {order}: {effect} was cancelled before this request arrived")
            self._enter(key, order, effect, undone=False, account=account, change=change)

    def undo(self, key: str, *, order: str, effect: str, account: str) -> None:
        """Undo what the effect changed, unless a request with this key did before; nothing, if it never happened."""
        with self._alone_with(order):
            if self._number(_KNOWN, [key]):
                return
            changed = self._number(_CHANGED, [order, effect])
            self._enter(key, order, effect, undone=True, account=account, change=-changed)

    def read(self) -> Books:
        """Return everything; to be asked when nobody writes any more."""
        entries = self._connection.execute(
            "SELECT idempotency_key, order_id, effect, undone, account, change FROM entries ORDER BY id"
        )
        return Books(
            entries=tuple(Entry(*row) for row in entries),
            balances=dict(self._connection.execute("SELECT name, balance FROM accounts").fetchall()),
            requests=dict(self._connection.execute("SELECT idempotency_key, times FROM requests").fetchall()),
        )

    @contextmanager
    def _alone_with(self, order: str) -> Iterator[None]:
        """A transaction during which no other request for this order is answered."""
        with self._connection.transaction():
            self._connection.execute(_ONE_AT_A_TIME, [order])
            yield

    def _enter(self, key: str, order: str, effect: str, *, undone: bool, account: str, change: int) -> None:
        try:
            self._connection.execute("UPDATE accounts SET balance = balance + %s WHERE name = %s", [change, account])
        except pg.CheckViolation as error:
            raise Overdrawn(f"account {account} does not hold {-change}") from error
        self._connection.execute(_ENTER, [key, order, effect, undone, account, change])

    def _number(self, query: str, values: list[str]) -> int:
        row = self._connection.execute(query, values).fetchone()
        assert row is not None
        return int(row[0])
