"""Reads sagas, by id, by key or by a filter."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sagas.storage.arguments import require_counts
from sagas.storage.memory.rows import Rows
from sagas.storage.records import SagaRecord
from sagas.storage.saga_filter import SagaFilter


class Reading(Rows):
    """Reads sagas."""

    def load(self, saga_id: UUID) -> SagaRecord:
        with self._lock:
            return self._get(saga_id)

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        with self._lock:
            found = [replace(saga, log=()) for saga in self._sagas.values() if wanted.matches(saga)]
            return sorted(found, key=lambda saga: saga.id, reverse=True)[: wanted.limit]

    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        with self._lock:
            same = (s.id for s in self._sagas.values() if (s.name, s.idempotency_key) == (name, idempotency_key))
            return next(same, None)
