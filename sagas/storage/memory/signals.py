"""Stores what is sent to sagas from outside, and delivers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage import rules
from sagas.storage.memory.rows import Rows
from sagas.storage.records import Claim, Signal, SignalKind


class Signals(Rows):
    """Stores and delivers signals and requests to cancel."""

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        if connection is not None:
            raise TypeError("MemorySagaStorage has no transactions to join: send the signal without a connection.")
        with self._lock:
            known = self._signals.setdefault(signal.saga_id, [])
            if any((s.kind, s.name, s.signal_id) == (signal.kind, signal.name, signal.signal_id) for s in known):
                return False
            self._signal_ids += 1
            stored = replace(signal, id=self._signal_ids, sent_at=self._clock())
            known.append(stored)
            self._undelivered.append(stored)
            return True

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        with self._lock:
            now, claims = self._clock(), []
            for saga_id in dict.fromkeys(saga_ids):
                new = [signal for signal in self._undelivered if signal.saga_id == saga_id]
                saga = self._sagas.get(saga_id)
                self._undelivered = [signal for signal in self._undelivered if signal.saga_id != saga_id]
                if saga is None:
                    self._signals.pop(saga_id, None)
                if saga is None or not new:
                    continue
                cancels = any(signal.kind is SignalKind.CANCEL for signal in new)
                changed = self._put(rules.deliver(saga, now, count=len(new), cancels=cancels))
                if changed.state is not saga.state:
                    claims.append(Claim(saga.id, saga.version, saga.status is SagaStatus.PENDING, now))
            return claims

    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        with self._lock:
            edge = self._clock() - timedelta(seconds=older_than_seconds)
            old = [signal.saga_id for signal in self._undelivered if signal.sent_at and signal.sent_at <= edge]
            return list(dict.fromkeys(old[:limit]))

    def signals(self, saga_id: UUID) -> list[Signal]:
        with self._lock:
            return list(self._signals.get(saga_id, ()))
