"""Stores definitions, and sagas as they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sagas.errors import DefinitionNotFound
from sagas.storage.leases import LeaseRequest
from sagas.storage.postgres import mapping
from sagas.storage.postgres.creating import Query, create
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.records import Definition, NewSaga, OnConflict


class Starting(Statements):
    """Stores new sagas."""

    def register_definition(self, definition: Definition) -> None:
        values = {"hash": definition.hash, "name": definition.name, "graph": definition.graph}
        self._execute("register_definition", values)

    def load_definition(self, definition_hash: str) -> Definition:
        rows = self._query("load_definition", {"hash": definition_hash})
        if not rows:
            raise DefinitionNotFound(
                f"no definition of a saga has the hash {definition_hash}: restore the rows of saga_definitions that "
                "belong to the sagas of this database."
            )
        return Definition(**rows[0])

    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        queued: bool = False,
        lease: LeaseRequest | None = None,
        connection: Any = None,
        on_conflict: OnConflict = "return",
        at: datetime | None = None,
        after_seconds: float = 0.0,
    ) -> list[tuple[UUID, bool]]:
        start = mapping.start_row(queued=queued, lease=lease, at=at, after_seconds=after_seconds)
        if connection is not None:
            return self._within(connection).create(sagas, start, on_conflict)

        def insert(left: Sequence[NewSaga]) -> set[UUID]:
            if len(left) == 1:
                written = self._connections.write(query("create_one"), start | mapping.new_row(left[0]))
                return set() if written is None else {left[0].id}
            return {row["id"] for row in ask(query("create_many"), start | mapping.new_rows(left))}

        def find(left: Sequence[NewSaga]) -> Sequence[Mapping[str, Any]]:
            keys = {"names": [saga.name for saga in left], "keys": [saga.idempotency_key for saga in left]}
            return ask(query("find_by_key"), keys)

        ask: Query = self._rows
        if on_conflict == "return" or len(sagas) <= 1:
            return create(sagas, insert, find, on_conflict=on_conflict)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            ask = lambda statement, values: cursor.execute(statement, values).fetchall()  # noqa: E731
            return create(sagas, insert, find, on_conflict=on_conflict)
