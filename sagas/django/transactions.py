"""Django's transactions: `start` joins them, unless a block requests to start at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import django.db

from sagas.storage.transactions import CallersTransaction, Rows
from sagas.urls import address

_outside: Final[ContextVar[bool]] = ContextVar("sagas_outside_transaction", default=False)


@contextmanager
def outside_transaction() -> Iterator[None]:
    """Start sagas at once in this block, also inside `transaction.atomic`: they exist even if it is rolled back.

    A worker may run such a saga before the transaction commits. The saga then does not see the rows that the
    transaction wrote.
    """
    token = _outside.set(True)
    try:
        yield
    finally:
        _outside.reset(token)


def open_transaction(alias: str) -> CallersTransaction | None:
    """Return this thread's open transaction on a database of DATABASES, or None.

    Args:
        alias: the key in DATABASES.
    """
    connection = django.db.connections[alias]
    return DjangoTransaction(connection) if not _outside.get() and _in_transaction(connection) else None


def _in_transaction(connection: Any) -> bool:
    if connection.in_atomic_block:
        return True
    # Code that turned autocommit off commits by hand.
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.autocommit


class DjangoTransaction(CallersTransaction):
    """The transaction of a Django connection.

    Args:
        connection: an item of `django.db.connections`.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        from sagas.django.configuration import url_of

        return address(url_of(self._connection))

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Rows:
        # Use Django's own cursor, because it refuses a broken transaction, and counts and logs the statement.
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def on_commit(self, action: Callable[[], None]) -> bool:
        if not self._connection.in_atomic_block:
            return False  # Django sends no notice when code commits by hand
        self._connection.on_commit(action, robust=True)
        return True
