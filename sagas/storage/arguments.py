"""Which arguments every storage refuses, in the same words."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Final

DEFAULT_MAX_RECOVERY_ATTEMPTS: Final = 5
#: The largest number of rows or seconds that a storage takes.
LARGEST: Final = 2**31 - 1
#: The largest number of failed attempts. It is below the column's limit, so that statements can add to it.
MOST_ATTEMPTS: Final = 1_000_000_000


def require_recovery_arguments(limit: int, max_attempts: int, stale_after_seconds: float | None) -> None:
    """Refuse arguments of `get_sagas_for_recovery` that are out of range.

    Raises:
        ValueError: the message names the argument and its value.
    """
    require_counts(limit=limit, max_recovery_attempts=max_attempts)
    if stale_after_seconds is not None:
        require_seconds(stale_after_seconds=stale_after_seconds)


def require_attempts(attempts: int) -> None:
    """Refuse a value that is not a number of attempts.

    Raises:
        ValueError: the message names the argument and its value.
    """
    _require_whole("attempts", attempts, 0, MOST_ATTEMPTS)


def require_counts(**values: int) -> None:
    """Refuse named arguments that are not whole numbers from 1 to `LARGEST`.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        _require_whole(name, value, 1, LARGEST)


def require_seconds(**values: Any) -> None:
    """Refuse named arguments that are not numbers of seconds from 0 to `LARGEST`.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r:.60}: give a number of seconds from 0 to {LARGEST}.")


def require_positive(**values: float) -> None:
    """Refuse named arguments that are not above 0.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: give a number above 0.")


def _require_whole(name: str, value: Any, least: int, most: int) -> None:
    # A bool is an int to Python, and a float would be rounded by one storage and kept by another.
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ValueError(f"{name} is {value!r:.60}: give a whole number from {least} to {most}.")
