"""Stores sagas in the memory of this process, for tests and programs that need no durable sagas."""

from __future__ import annotations

from datetime import timedelta

from sagas.storage.arguments import require_counts, require_seconds
from sagas.storage.memory.attempts import Attempts
from sagas.storage.memory.dispatching import Dispatching
from sagas.storage.memory.holding import Holding
from sagas.storage.memory.outbox import Outbox
from sagas.storage.memory.pausing import Pausing
from sagas.storage.memory.reading import Reading
from sagas.storage.memory.schedules import Schedules
from sagas.storage.memory.signals import Signals
from sagas.storage.memory.starting import Starting


class MemorySagaStorage(Attempts, Starting, Reading, Signals, Holding, Dispatching, Outbox, Pausing, Schedules):
    """Stores sagas in memory, by the rules of `sagas.storage.rules`. Several threads may use it.

    Args:
        clock: returns the time; tests pass one that they control.
        sessions: opens the session of a transactional step, as `sessionmaker(engine).begin` of a test database does.
            What the step writes is committed right before its checkpoint, which no crash separates from it in a test.
    """

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        with self._lock:
            edge = self._clock() - timedelta(seconds=older_than_seconds)
            old = [s for s in self._sagas.values() if s.finished_at is not None and s.finished_at < edge]
            for saga in sorted(old, key=lambda s: s.finished_at or edge)[:limit]:
                del self._sagas[saga.id]
                self._signals.pop(saga.id, None)
                self._undelivered = [signal for signal in self._undelivered if signal.saga_id != saga.id]
            return min(len(old), limit)

    def check_schema(self) -> None:
        return
