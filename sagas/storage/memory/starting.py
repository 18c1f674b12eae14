"""Stores definitions, and sagas as they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sagas.errors import AlreadyStarted, DefinitionNotFound
from sagas.storage import rules
from sagas.storage.errors import exists
from sagas.storage.leases import LeaseRequest
from sagas.storage.memory.rows import Rows
from sagas.storage.records import Definition, NewSaga, OnConflict


class Starting(Rows):
    """Stores new sagas."""

    def register_definition(self, definition: Definition) -> None:
        with self._lock:
            self._definitions.setdefault(definition.hash, definition)

    def load_definition(self, definition_hash: str) -> Definition:
        with self._lock:
            if definition_hash not in self._definitions:
                raise DefinitionNotFound(f"no definition of a saga has the hash {definition_hash}.")
            return self._definitions[definition_hash]

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
        if connection is not None:
            raise TypeError("MemorySagaStorage has no transactions to join: start the saga without a connection.")
        with self._lock, self._all_or_nothing():
            now = self._clock()
            created = []
            for new in sagas:
                known = None if new.idempotency_key is None else self.find_id(new.name, new.idempotency_key)
                if known is not None:
                    if on_conflict == "raise":
                        raise AlreadyStarted(known, new.name, new.idempotency_key)
                    created.append((known, False))
                    continue
                if new.id in self._sagas:
                    raise exists(new.id)
                due = at or now + timedelta(seconds=after_seconds)
                record = new.as_record(now=now, lease=lease, due=due)
                if lease is not None:
                    record = replace(record, available_at=now + timedelta(seconds=lease.seconds))
                elif queued:
                    record = rules.queue(record, now)
                self._put(record)
                created.append((new.id, True))
            return created
