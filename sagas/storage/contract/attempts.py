"""The public contract of recovery: which sagas need it, and how often it failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.arguments import DEFAULT_MAX_RECOVERY_ATTEMPTS


class Attempts(ABC):
    """Counts failed attempts."""

    @abstractmethod
    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        """Return the ids of sagas that need recovery, the oldest first; nothing is marked or locked.

        They are RUNNING, COMPENSATING or FAILED, due (under no live lease, in no queue, not backing off), and have
        fewer than `max_recovery_attempts` failed attempts.

        Args:
            limit: how many at most, 1 or more.
            max_recovery_attempts: sagas with this many or more failed attempts are left out.
            stale_after_seconds: return only sagas last updated longer ago than this.
            saga_name: return only sagas of this name.

        Raises:
            ValueError: a number is out of range, or of the wrong type.
        """

    @abstractmethod
    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        """Count one more failed attempt, atomically, and set the status if one is given.

        It is for schedulers that recover sagas by other means: `recover_saga()` counts under its own fence.
        `sagas.storage.attempts` has the rules for the status. COMPENSATING aborts the saga: a row of the log says so,
        and from then on the saga only goes backward. This method does not check whether the saga is past its pivot,
        because the status does not show that.

        Raises:
            SagaNotFound: no saga has this id.
            IllegalStatusChange: the saga has ended, is dead, is held by a worker, or cannot have this status in its
                present state; nothing was changed.
        """

    @abstractmethod
    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        """Set the number of failed attempts; a dead saga becomes due at once.

        Raises:
            SagaNotFound: no saga has this id.
            ValueError: attempts is not a whole number from 0 to 1,000,000,000.
        """
