"""The public contract of recovery: which sagas need it, and how often it failed."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sagas.progress import RECOVERABLE, SagaStatus
from sagas.storage import rules
from sagas.storage.arguments import DEFAULT_MAX_RECOVERY_ATTEMPTS, require_attempts, require_recovery_arguments
from sagas.storage.attempts import count_attempt, set_attempts
from sagas.storage.memory.rows import Rows
from sagas.storage.records import SagaState


class Attempts(Rows):
    """Counts failed attempts."""

    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        require_recovery_arguments(limit, max_recovery_attempts, stale_after_seconds)
        with self._lock:
            now = self._clock()
            found = [
                saga
                for saga in self._sagas.values()
                if saga.status in RECOVERABLE
                and saga.state in (*rules.SCHEDULED, SagaState.QUEUED)
                and saga.due(now)
                and saga.recovery_attempts < max_recovery_attempts
                and (stale_after_seconds is None or saga.updated_at < now - timedelta(seconds=stale_after_seconds))
                and saga_name in (None, saga.name)
            ]
            return [saga.id for saga in sorted(found, key=lambda saga: (saga.updated_at, saga.id))[:limit]]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        with self._lock:
            status = None if new_status is None else SagaStatus(new_status)
            counted = count_attempt(self._get(saga_id), status, now=self._clock())
            self._put(self._log(counted.record, counted.events))

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        with self._lock:
            self._put(set_attempts(self._get(saga_id), attempts, now=self._clock()))
