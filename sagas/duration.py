"""Formats durations and times for messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

#: Units, the largest first. `duration` uses the first of which there are at least two.
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))


def duration(seconds: float) -> str:
    """Return a number of seconds as text for a human, such as '90 s', '7 min', '3 h' or '12 d'."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def utc(moment: datetime | None) -> str:
    """Return the time in UTC as '2026-11-22 19:38:05'."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def when(moment: datetime | None, now: datetime) -> str:
    """Return the time and its distance from now, as '2026-11-22 19:38:05 (7 min ago)'."""
    if moment is None:
        return "-"
    seconds = (moment - now).total_seconds()
    distance = f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
    return f"{utc(moment)} ({distance})"
