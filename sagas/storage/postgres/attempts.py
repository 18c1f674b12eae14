"""The public contract of recovery: which sagas need it, and how often it failed."""

from __future__ import annotations

from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.arguments import DEFAULT_MAX_RECOVERY_ATTEMPTS, require_attempts, require_recovery_arguments
from sagas.storage.attempts import count_attempt
from sagas.storage.errors import not_found
from sagas.storage.postgres import mapping
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements


class Attempts(Statements):
    """Counts failed attempts."""

    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        require_recovery_arguments(limit, max_recovery_attempts, stale_after_seconds)
        parameters = {
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "stale": stale_after_seconds,
            "name": saga_name,
        }
        return [row["id"] for row in self._query("for_recovery", parameters)]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        if new_status is None:
            if not self._execute("count_attempt", {"id": saga_id}):
                raise not_found(saga_id)
            return
        new_status = SagaStatus(new_status)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            locked = cursor.execute(query("lock"), {"id": saga_id}).fetchone()
            if locked is None:
                raise not_found(saga_id)
            (loaded,) = cursor.execute(query("load"), {"id": saga_id}).fetchall()
            before = mapping.record_of(loaded)
            counted = count_attempt(before, new_status, now=locked["now"])
            changes = {
                "status": counted.record.status.value,
                "state": counted.record.state.value,
                "freed": counted.record.available_at != before.available_at,
                "suspect": counted.record.suspect,
                "events": mapping.events_json(counted.events),
            }
            cursor.execute(query("set_status"), {"id": saga_id, **changes})

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        if not self._execute("set_attempts", {"id": saga_id, "attempts": attempts}):
            raise not_found(saga_id)
