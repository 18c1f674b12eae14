"""When a cron expression is due in a time zone, with changes of daylight saving time handled as Debian's cron does."""

from __future__ import annotations

import zoneinfo
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import takewhile
from typing import Final

from cronsim import CronSim, CronSimError

from sagas.errors import DefinitionError

_FIELDS: Final = 5
#: `newest` looks back so far first, and each time so many times farther.
_FIRST_LOOK: Final = timedelta(hours=1)
_FARTHER: Final = 4


class Cron:
    """A cron expression in a time zone.

    A time that does not exist, since clocks went forward, is replaced by the first moment after the gap. A time that
    exists twice, since clocks went back, is due at the first of the two. So a daily expression is due once each day. An
    expression whose minute or hour begins with `*` follows the clock instead: it has no ticks in the missing hour, and
    ticks in both of the repeated hours.

    Args:
        expression: minute, hour, day of the month, month and day of the week.
        timezone: a name of the time zone database, such as "Europe/Berlin".

    Raises:
        DefinitionError: the expression or the zone cannot be used, or the expression is never due.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self.expression = expression
        self.timezone = timezone
        self.zone = _zone(timezone)
        _check(expression)

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """Return the ticks later than this moment, in UTC and in order, without an end."""
        # Compare in UTC: comparisons within one zone take no notice of which of two equal times is meant.
        last = after.astimezone(UTC)
        for local in CronSim(self.expression, after.astimezone(self.zone)):
            tick = local.astimezone(UTC)
            if tick > last:
                last = tick
                yield tick

    def newest(self, most: int, *, after: datetime, until: datetime) -> list[datetime]:
        """Return the newest ticks later than `after` and not later than `until`, the oldest first, at most so many."""
        look = _FIRST_LOOK
        while True:
            start = max(after, until - look)
            found = deque(takewhile(lambda tick: tick <= until, self.ticks(start)), maxlen=most)
            if len(found) == most or start == after:
                return list(found)
            look *= _FARTHER


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # it needs no database of time zones
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError) as error:
        if isinstance(name, str) and not zoneinfo.available_timezones():
            raise DefinitionError(
                f"timezone is {name!r:.100}, and this machine has no time zones: install the package tzdata "
                "(`pip install tzdata`)."
            ) from error
        raise DefinitionError(
            f"timezone is {name!r:.100}, which is no time zone here: give a name such as 'Europe/Berlin' or 'UTC', or "
            "install a newer tzdata."
        ) from error


def _check(expression: str) -> None:
    example = "give minute, hour, day of the month, month and day of the week, as '0 3 * * *' for each day at three"
    # Six fields are seconds first to this parser. A scan runs every few seconds, so it could not keep to them.
    if not isinstance(expression, str) or len(expression.split()) != _FIELDS:
        raise DefinitionError(f"cron is {expression!r:.100}, which has not five fields: {example}.")
    try:
        next(CronSim(expression, datetime(2001, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise DefinitionError(f"cron is {expression!r:.100}, which has a {_said(error)}: {example}.") from error
    except StopIteration:
        raise DefinitionError(
            f"cron is {expression!r:.100}, which is due on no day within 50 years: {example}."
        ) from None


def _said(error: CronSimError) -> str:
    return str(error).replace("Bad ", "wrong ")
