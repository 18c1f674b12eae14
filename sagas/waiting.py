"""Decides how long a program that waits for the end of a saga pauses between two looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from sagas.errors import StorageUnavailable, WaitTimedOut
from sagas.progress import SagaStatus

#: Seconds between the first two looks, and at most. A short saga's end is seen soon, and a long one costs little.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
_GROWTH: Final = 1.5


class Patience:
    """The pauses of one wait.

    Args:
        saga: what is waited for, for the message.
        timeout: seconds after which the wait fails; None for no limit.
        clock: returns seconds; tests pass one that they control.
    """

    def __init__(self, saga: object, timeout: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._saga = saga
        self._timeout = timeout
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._pause = FIRST_PAUSE

    def pause_after(self, seen: tuple[UUID, SagaStatus] | StorageUnavailable) -> float:
        """Return how many seconds to pause before the next look.

        Args:
            seen: the saga and its status, or why nothing could be seen.

        Raises:
            WaitTimedOut: the time is over.
        """
        left = None if self._deadline is None else self._deadline - self._clock()
        if left is not None and left <= 0:
            raise self._timed_out(seen)
        pause, self._pause = self._pause, min(self._pause * _GROWTH, LONGEST_PAUSE)
        return pause if left is None else min(pause, left)

    def _timed_out(self, seen: tuple[UUID, SagaStatus] | StorageUnavailable) -> WaitTimedOut:
        if isinstance(seen, StorageUnavailable):
            error = WaitTimedOut(
                f"whether saga {self._saga} has ended within {self._timeout:g} seconds is unknown, because {seen}"
            )
            error.__cause__ = seen
            return error
        saga_id, status = seen
        return WaitTimedOut(
            f"saga {saga_id} has not ended within {self._timeout:g} seconds and is {status}: wait for it again, or see "
            "what it does (get(), or `sagas show`).",
            saga_id=saga_id,
            status=status,
        )
