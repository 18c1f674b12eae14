"""Durations and times as an operator types them: ages such as 90s, 10m, 2h or 3d, seconds to wait, dates and starts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: A hundred years. PostgreSQL's intervals are longer; ages are not.
_LONGEST: Final = 36_500 * 86_400


def parse_age(age: str) -> float:
    """Return the seconds of an age such as 90s, 10m, 2h or 3d.

    Raises:
        typer.BadParameter: it is no age above 0 and up to a hundred years.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", age.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST:
        raise typer.BadParameter(f"{age!r} is not an age: give a number above 0 and its unit, as 90s, 10m, 2h or 3d.")
    return seconds


def parse_time(written: str | datetime) -> datetime:
    """Return a time in ISO 8601. A time without a time zone is in UTC.

    Raises:
        typer.BadParameter: it is none.
    """
    if isinstance(written, datetime):
        return written
    try:
        moment = datetime.fromisoformat(written.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{written!r} is no time: write it as 2026-11-26, '2026-11-26 14:30' or 2026-11-26T14:30+01:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_wait(written: str | float) -> float:
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


def parse_start(written: str | datetime | timedelta) -> datetime | timedelta:
    """Return when a saga is to start: a time in ISO 8601 with its zone, or a duration such as `in 2h` or `2h`.

    Raises:
        typer.BadParameter: it is neither.
    """
    if not isinstance(written, str):
        return written
    try:
        moment = datetime.fromisoformat(written.strip())
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        return moment
    if moment is not None:
        raise typer.BadParameter(f"{written!r} has no time zone: add Z for UTC, or the zone's offset as +01:00.")
    try:
        return timedelta(seconds=parse_age(written.strip().removeprefix("in ")))
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{written!r} is no time to start at: write it as 2026-11-26T14:30Z, or as 'in 2h' (s, m, h or d)."
        ) from None
