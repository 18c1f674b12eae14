"""How a length of time reads in a message."""

from __future__ import annotations

from typing import Final

#: The largest unit of which there are at least two.
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))


def duration(seconds: float) -> str:
    """Return so many seconds for a human, as '90 s', '7 min', '3 h' or '12 d'."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
