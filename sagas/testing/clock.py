"""A clock that a test moves by hand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

_START = datetime(2030, 1, 1, tzinfo=UTC)


class FakeClock:
    """Returns the time that a test set: `MemorySagaStorage(clock=FakeClock())`.

    Its method also replaces a sleep: `sleep=clock.advance` takes no time.

    Args:
        start: the initial time, with a time zone.

    Raises:
        ValueError: `start` has no time zone; every time of a storage has one.
    """

    def __init__(self, start: datetime = _START) -> None:
        if start.tzinfo is None:
            raise ValueError(f"start is {start!r}: give it a time zone, as datetime(2030, 1, 1, tzinfo=UTC).")
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """Return the current time of this clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock by this many seconds.

        Raises:
            ValueError: the number is negative.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds is {seconds}: time does not go back; give 0 or more.")
        with self._lock:
            self._now += timedelta(seconds=seconds)

    def __repr__(self) -> str:
        return f"FakeClock({self._now.isoformat()})"
