"""Tasks that steps enqueued, until they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sagas.outbox import OutboxTask
from sagas.storage.arguments import require_counts, require_seconds
from sagas.storage.memory.rows import Rows


class Outbox(Rows):
    """Keeps the outbox."""

    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        with self._lock:
            now = self._clock()
            edge = now - timedelta(seconds=older_than_seconds)
            old = [task for task, since in self._outbox.values() if since < edge][:limit]
            self._outbox.update({task.id: (task, now) for task in old})
            return old

    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        with self._lock:
            for row in ids:
                self._outbox.pop(row, None)
