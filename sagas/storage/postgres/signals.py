"""Stores what is sent to sagas from outside, and delivers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.postgres import mapping
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.records import Claim, Signal
from sagas.storage.transitions import PROBE_SECONDS


class Signals(Statements):
    """Stores and delivers signals and requests to cancel."""

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        values = mapping.signal_row(signal)
        if connection is None:
            return self._connections.write(query("add_signal"), values) is not None
        return self._within(connection).add_signal(values)

    def post_signal(self, signal: Signal) -> tuple[bool, list[Claim]]:
        values = {**mapping.signal_row(signal), "probe": PROBE_SECONDS}
        posted = self._connections.write(query("post_signal"), values)
        if posted is None:
            # It is known. Its sender may have died before it was delivered.
            return False, self.deliver([signal.saga_id])
        return True, mapping.posted_of(signal.saga_id, posted)

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        rows = self._query("deliver", {"ids": list(saga_ids), "probe": PROBE_SECONDS})
        claims = {
            row["id"]: Claim(row["id"], row["version"], row["status"] == SagaStatus.PENDING, row["queued_at"])
            for row in rows
            if row["wakes"]
        }
        return [claims.pop(saga_id) for saga_id in saga_ids if saga_id in claims]

    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        return [row["saga_id"] for row in self._query("undelivered", {"age": older_than_seconds, "limit": limit})]

    def signals(self, saga_id: UUID) -> list[Signal]:
        return [mapping.signal_of(row) for row in self._query("signals", {"id": saga_id})]
