"""A PostgreSQL storage whose every statement runs in one transaction of the test's, which can be rolled back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.rows import DictRow, dict_row

from sagas.storage import PostgresSagaStorage


class _OneConnection:
    """Stands for the pool, with one cursor for every operation; a transaction within becomes a savepoint."""

    def __init__(self, cursor: psycopg.Cursor[DictRow]) -> None:
        self._cursor = cursor

    def cursor(self, *, at_once: bool = False) -> nullcontext[psycopg.Cursor[DictRow]]:
        return nullcontext(self._cursor)

    def write(self, statement: str, parameters: Mapping[str, Any]) -> str | None:
        row = self._cursor.execute(statement, parameters).fetchone()
        return None if row is None else str(next(iter(row.values())))


@contextmanager
def rolled_back(engine: sa.Engine) -> Iterator[tuple[PostgresSagaStorage, psycopg.Cursor[DictRow]]]:
    """Yield a storage and its cursor; what they do is taken back at the end of the block."""
    storage = PostgresSagaStorage(engine)
    pooled = engine.raw_connection()
    try:
        cursor = pooled.driver_connection.cursor(row_factory=dict_row, binary=True)  # type: ignore[union-attr]
        # Planning costs more than running, and these statements are planned alike whatever their parameters.
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        storage._connections = _OneConnection(cursor)  # type: ignore[assignment]
        yield storage, cursor
    finally:
        pooled.rollback()
        pooled.close()
