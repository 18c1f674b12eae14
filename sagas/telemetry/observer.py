"""The seam between the engine and whoever watches it: what the engine tells, and to whom.

Metrics and traces are observers; the engine knows neither. Without one, a step costs a comparison with None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sagas.progress import Move
    from sagas.storage.records import Acquired, LogEntry, NewSaga, SagaRecord


_NOTHING: Final = nullcontext()


class Observer:
    """Is told what happens to sagas in this process, as it happens; every method of this class does nothing.

    Subclass it and give it to `SagaEngine(observer=...)`. Whatever a method raises fails what it was told of: do not
    raise, and do not wait.
    """

    def starting(self, sagas: Sequence[NewSaga]) -> AbstractContextManager[str | None]:
        """Sagas of one name are stored and sent within the block; it gives the W3C `traceparent` to keep with them."""
        return _NOTHING

    def running(self, acquired: Acquired) -> AbstractContextManager[None]:
        """This process acquired a saga, and brings it on within the block."""
        return _NOTHING

    def taken_over(self, saga: SagaRecord) -> None:
        """The saga that is brought on was left by a holder that died or was cut off."""

    def acting(self, saga: SagaRecord, move: Move) -> AbstractContextManager[None]:
        """An action of a step is performed within the block, which raises what the action raises."""
        return _NOTHING

    def step_ended(self, saga: SagaRecord, entry: LogEntry) -> None:
        """An action ended, and its row is in the saga's log."""

    def given_back(self, saga: SagaRecord, outcome: str) -> None:
        """A saga that this process acquired is no longer worked on here.

        Args:
            outcome: as `Report.outcome`: completed, compensated, waiting, failed, dead, declined, handed over or lost.
        """

    def scanning(self) -> AbstractContextManager[None]:
        """A scan claims sagas and sends them within the block."""
        return _NOTHING

    def scanned(self, results: Mapping[str, int]) -> None:
        """A scan is done: it dispatched so many sagas, and so many died, were missing or unsent (see `ScanReport`)."""

    def message_dropped(self, queue: str) -> None:
        """A worker dropped a message that it could not understand, from this queue; "?" if no queue can be told."""


class NullObserver(Observer):
    """Null observer."""
