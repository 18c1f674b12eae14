"""The observer that an engine notifies of its work on sagas.

Metrics and traces are observers, and the engine does not import them. Without an observer, the engine calls the methods
of `NullObserver`, which do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sagas.progress import Move
    from sagas.storage.answers import Acquired
    from sagas.storage.records import LogEntry, NewSaga, SagaRecord


_NOTHING: Final = nullcontext()


class Observer:
    """Base class of observers: an engine calls these methods while it works on sagas; here they do nothing.

    Subclass `Observer` and pass an instance to `SagaEngine(observer=...)`. An exception in a method fails the operation
    that called it, and waiting delays the operation: do not raise, and do not wait.
    """

    def starting(self, sagas: Sequence[NewSaga]) -> AbstractContextManager[str | None]:
        """Called when sagas of one name are started; they are stored and sent in the block.

        The block's value is the W3C `traceparent` to store with the sagas, or None.
        """
        return _NOTHING

    def running(self, acquired: Acquired) -> AbstractContextManager[None]:
        """Called when this process has acquired a saga; the saga runs in the block."""
        return _NOTHING

    def taken_over(self, saga: SagaRecord) -> None:
        """Called when the acquired saga's last holder died or was cut off."""

    def acting(self, saga: SagaRecord, move: Move) -> AbstractContextManager[None]:
        """Called when an action of a step begins; the action runs in the block and may raise there."""
        return _NOTHING

    def step_ended(self, saga: SagaRecord, entry: LogEntry) -> None:
        """Called when an action has ended and its row is in the saga's log."""

    def waiting(self, saga: SagaRecord, entry: LogEntry) -> None:
        """Called when a saga begins to wait for a signal, or to sleep, and the row of it is in the saga's log."""

    def given_back(self, saga: SagaRecord, outcome: str) -> None:
        """Called when this process stops working on an acquired saga.

        Args:
            outcome: the value of `Report.outcome`: completed, compensated, waiting, failed, dead, declined, handed over
                or lost.
        """

    def scanning(self) -> AbstractContextManager[None]:
        """Called when a scan begins; it claims sagas and sends them in the block."""
        return _NOTHING

    def scanned(self, results: Mapping[str, int]) -> None:
        """Called when a scan has ended.

        Args:
            results: how many sagas were dispatched, died, missing or unsent (see `ScanReport`).
        """

    def message_dropped(self, queue: str) -> None:
        """Called when a worker drops a message that it cannot understand.

        Args:
            queue: the name of the queue, or "?" if it is unknown.
        """


class NullObserver(Observer):
    """Null observer."""
