"""Storing what is sent to sagas from outside, and delivering it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sagas.storage.records import Claim, Signal


class Signals(ABC):
    """Stores and delivers signals and requests to cancel."""

    @abstractmethod
    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        """Store a signal, unless one of this saga, kind, name and id is stored already. Return whether it is new.

        It locks no saga: a caller may keep its transaction open for long. `deliver` must follow the commit.

        Args:
            signal: whether its saga exists is not checked.
            connection: what `join` returned. The signal exists if and only if that transaction commits.

        Raises:
            TransactionRefused: the connection is of another database.
        """

    def post_signal(self, signal: Signal) -> tuple[bool, list[Claim]]:
        """Store a signal and deliver it, in one commit if the storage can.

        Returns:
            Whether the signal is new, and what `deliver` returned.
        """
        return self.add_signal(signal), self.deliver([signal.saga_id])

    @abstractmethod
    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        """Count the new signals of these sagas in their inboxes, and queue sagas that waited, as `rules.deliver` says.

        The signals of a saga that does not exist are deleted: it was pruned while they were on their way.

        Returns:
            The claims of the sagas that were queued, in the order of the ids.
        """

    @abstractmethod
    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        """Return sagas whose signals were stored longer ago than this and not delivered."""

    @abstractmethod
    def signals(self, saga_id: UUID) -> list[Signal]:
        """Return what was sent to a saga, the oldest first."""
