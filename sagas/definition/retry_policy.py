"""How often, and how soon, an action that raised is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sagas.errors import DefinitionError

#: Python limits how long a thread can wait. A year is below that limit and long enough for any retry.
LONGEST_DELAY: Final = 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how soon, an action that raised is tried again.

    The worker waits out a short delay. For a long delay the saga is suspended, and no worker is kept waiting.

    Args:
        max_attempts: attempts in all, including the first.
        first_delay: seconds before the second attempt.
        factor: multiplies each further delay.
        max_delay: the longest delay in seconds; default: 60, or `first_delay` if that is longer.
        jitter: the random share of the delay, 0 to 1, so that many sagas do not retry at the same moment.
        retry_on: exceptions after which the action is tried again; any other fails the action at once.

    Raises:
        DefinitionError: a value is out of range, or `max_delay` would cut the first delay short.
    """

    max_attempts: int = 3
    first_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = None  # type: ignore[assignment]  # __post_init__ makes it a number
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        cap: Any = self.max_delay
        if cap is None and is_between(0, self.first_delay, LONGEST_DELAY):
            cap = max(60.0, self.first_delay)
            object.__setattr__(self, "max_delay", cap)
        wrong = (
            "max_attempts must be a whole number of 1 or more"
            if not isinstance(self.max_attempts, int) or self.max_attempts < 1
            else "first_delay must be 0 or more seconds, at most a year"
            if not is_between(0, self.first_delay, LONGEST_DELAY)
            else "factor must be 1 or more"
            if not is_between(1, self.factor, float("inf"))
            else "max_delay must be 0 or more seconds, at most a year"
            if not is_between(0, cap, LONGEST_DELAY)
            else f"max_delay is below first_delay, which is {self.first_delay:g}, so that no wait would be that long"
            if cap < self.first_delay
            else "jitter must be between 0 and 1"
            if not is_between(0, self.jitter, 1)
            else "retry_on must be a tuple of exception classes, as (ConnectionError,)"
            if not _are_exceptions(self.retry_on)
            else None
        )
        if wrong:
            raise DefinitionError(f"RetryPolicy: {wrong}; got {self}.")

    def delay(self, failures: int, *, random: float) -> float:
        """Return the seconds to wait after this many failures in a row.

        Args:
            failures: attempts that have failed, 1 or more.
            random: a number in [0, 1) that determines the jitter.
        """
        full = backoff(failures, first=self.first_delay, factor=self.factor, cap=self.max_delay)
        return full * (1 - self.jitter * random)


def backoff(failures: int, *, first: float, factor: float, cap: float) -> float:
    """Return `first * factor ** (failures - 1)` seconds, at most `cap`, without overflowing."""
    if first == 0:
        return 0.0
    try:
        return min(cap, first * factor ** (failures - 1))
    except OverflowError:
        return cap


def is_between(lowest: float, value: object, highest: float) -> bool:
    """Whether the value is a number between these two, or one of them."""
    return isinstance(value, int | float) and lowest <= value <= highest


def _are_exceptions(classes: object) -> bool:
    return isinstance(classes, tuple) and all(isinstance(c, type) and issubclass(c, BaseException) for c in classes)


ONCE = RetryPolicy(max_attempts=1)
#: For actions that have no alternative: it retries for more than six hours, and holds no worker during most of them.
PATIENT = RetryPolicy(max_attempts=45, first_delay=6.0, max_delay=600.0)
