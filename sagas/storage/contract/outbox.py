"""Tasks that steps enqueued, until they are sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sagas.outbox import OutboxTask


class Outbox(ABC):
    """Keeps the outbox."""

    @abstractmethod
    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        """Return tasks that have been in the outbox for longer than this, the oldest first, and claim them.

        The worker that wrote them died, or its broker did not answer. For as long as `older_than_seconds` says, no
        other call returns them.
        """

    @abstractmethod
    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        """Delete tasks that were sent. An id that is not there is ignored."""
