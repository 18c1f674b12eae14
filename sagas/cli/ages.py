"""Ages as an operator types them: 90s, 10m, 2h, 3d."""

from __future__ import annotations

import re
from typing import Final

import typer

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: PostgreSQL's intervals go further; ages do not.
_LONGEST_DAYS: Final = 36_500


def waiting_seconds(written: str | float) -> float:
    """Return a number of seconds up to a day.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _SECONDS["d"]:  # which NaN is not either
        raise typer.BadParameter(f"{written!r} is no number of seconds between 0 and {_SECONDS['d']}.")
    return seconds


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as 90s, 10m, 2h or 3d.

    Raises:
        typer.BadParameter: it is not an age above 0 and up to a hundred years.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", age.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST_DAYS * 86_400:
        raise typer.BadParameter(f"{age!r} is not an age: give a number above 0 and its unit, as 90s, 10m, 2h or 3d.")
    return seconds
