"""Reads sagas, by id, by key or by a filter."""

from __future__ import annotations

from uuid import UUID

from sagas.storage.arguments import require_counts
from sagas.storage.errors import not_found
from sagas.storage.postgres import mapping
from sagas.storage.postgres.filtering import filter_row
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.records import SagaHead, SagaRecord
from sagas.storage.saga_filter import SagaFilter


class Reading(Statements):
    """Reads sagas."""

    def load(self, saga_id: UUID) -> SagaRecord:
        rows = self._query("load", {"id": saga_id})
        if not rows:
            raise not_found(saga_id)
        return mapping.record_of(rows[0])

    def head(self, saga_id: UUID) -> SagaHead:
        found = self._connections.write(query("head"), {"id": saga_id})
        if found is None:
            raise not_found(saga_id)
        return mapping.head_of(saga_id, found)

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        with self._connections.cursor() as cursor:
            # Do not prepare the statement, so that it is planned for its own values.
            rows = cursor.execute(query("find"), filter_row(wanted), prepare=False).fetchall()
        return [mapping.record_of(row) for row in rows]

    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        rows = self._query("find_by_key", {"names": [name], "keys": [idempotency_key]})
        return rows[0]["id"] if rows else None
