"""Claiming what is due or lost, so that messages are sent for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from uuid import UUID

from sagas.storage.answers import ClaimResult
from sagas.storage.records import Claim


class Dispatching(ABC):
    """Claims sagas for messages."""

    @abstractmethod
    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        """Queue sagas that are due, and again those that have lost their message. One scan claims each saga.

        The number of queued sagas never grows beyond `limit`. Expired leases are reclaimed as `acquire` reclaims them.
        Due sagas of a paused name become paused. Paused sagas of a name that was resumed become ready.

        Messages are first in, first out. So a queued saga has lost its message once a message that was queued
        `lost_messages.OVERTAKING_SECONDS` or more later has reached a worker (`note_delivery`). While no message
        reaches a worker, the oldest `lost_messages.PROBES` queued sagas that are due are sent again, after waits that
        double each time. None is sent while another was probed lately (`lost_messages.probed_lately`). Such sagas of a
        paused name become paused.

        Args:
            pending: claim sagas that never ran, instead of recoverable ones.
            limit: how many may wait in the queue at most.
            max_recovery_attempts: after how many failed attempts a saga is dead.
        """

    @abstractmethod
    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        """Queue the given sagas that never ran, are ready and due, and whose names are not paused.

        Returns:
            The claims, in the order of the ids.
        """

    @abstractmethod
    def note_delivery(self, claim: Claim) -> None:
        """Record that the message of a claim has reached a worker, whether or not the worker acquired the saga.

        A pending claim without a time belongs to a message that `start` sent: its saga was queued when it was created.
        """

    @abstractmethod
    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        """Reclaim every saga that a lost owner holds, as if its lease had expired. Return how many."""

    @abstractmethod
    def release_claims(self, claims: Sequence[Claim]) -> None:
        """Make claimed sagas ready whose messages could not be sent. Sagas acquired meanwhile are left alone."""
