"""Statements of every saga's path, prepared once on a connection and sent without psycopg's cursor: half its time.

What stays psycopg's is the waiting, so that a signal still interrupts it, and the errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_FINE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class PreparedStatements:
    """What was prepared on one connection; not for a connection behind a pooler, which is not to one session alone.

    Args:
        connection: in autocommit, and nobody else's while a statement runs.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._prepared: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self._numbers = count()

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> str | None:
        """Execute a statement and return the one text that it returns, or None if it returns no row.

        Args:
            statement: in psycopg's style, its parameters by name.
            parameters: by name; each text, a number, a boolean, a UUID or None.

        Raises:
            psycopg.Error: as a cursor raises it.
        """
        if statement not in self._prepared:
            return self._run(*self._prepare(statement), parameters)
        try:
            return self._run(*self._prepared[statement], parameters)
        except errors.InvalidSqlStatementName:
            # After a rollback psycopg deallocates all that it has prepared, and these statements with it.
            self._prepared.clear()
            return self._run(*self._prepare(statement), parameters)

    def _prepare(self, statement: str) -> tuple[bytes, tuple[str, ...]]:
        numbered, order = _numbered(statement)
        name = b"sagas_%d" % next(self._numbers)
        self._connection.pgconn.send_prepare(name, numbered)
        self._result()
        self._prepared[statement] = name, order
        return name, order

    def _run(self, name: bytes, order: tuple[str, ...], parameters: Mapping[str, Any]) -> str | None:
        self._connection.pgconn.send_query_prepared(name, [_text(parameters[key]) for key in order])
        result = self._result()
        value = result.get_value(0, 0) if result.ntuples else None
        return None if value is None else value.decode()

    def _result(self) -> PGresult:
        result: PGresult = self._connection.wait(generators.execute(self._connection.pgconn))[-1]
        if result.status not in _FINE:
            raise errors.error_from_result(result, encoding="utf-8")
        return result


def _text(value: Any) -> bytes | None:
    """Return a parameter as the server reads it."""
    if value is None:
        return None
    if isinstance(value, UUID):
        return b"%032x" % value.int  # a fifth of the time of str()
    return str(value).encode()


@cache
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the statement with numbers for its parameters, and their names in that order."""
    order: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${order.setdefault(match[1], len(order) + 1)}"

    return re.sub(r"%\((\w+)\)s", number, statement).replace("%%", "%").encode(), tuple(order)
