"""How each schedule stands: what its code says, and what the database knows of its last tick."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sagas.doctor.unfinished import scans_are_late_after
from sagas.inspection.models import Schedules
from sagas.schedule import AnySchedule
from sagas.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One schedule. What only code or only the database knows is None where it is missing.

    Attributes:
        last_tick: the last tick that was dealt with; None if there was none yet.
        next_tick: the first tick that was not; it is past while the schedule is late.
        late: whether a scan should have dealt with the next tick.
    """

    name: str
    saga: str | None = None
    cron: str | None = None
    timezone: str | None = None
    catch_up: str | None = None
    last_tick: datetime | None = None
    next_tick: datetime | None = None
    late: bool = False


def schedule_rows(defined: Iterable[AnySchedule], found: Schedules, settings: Settings) -> Iterator[ScheduleRow]:
    """Yield a row for each schedule, by name.

    Args:
        defined: the schedules that this process has the code of.
        found: the last ticks that the database has.
        settings: they tell when a scan is late.
    """
    late_after = timedelta(seconds=scans_are_late_after(settings))
    by_name = {schedule.name: schedule for schedule in defined}
    for name in sorted({*by_name, *found.last}):
        schedule, last = by_name.get(name), found.last.get(name)
        if schedule is None:
            yield ScheduleRow(name=name, last_tick=last)
            continue
        following = schedule.next_tick(found.now if last is None else last)
        yield ScheduleRow(
            name=name,
            saga=schedule.saga.stored_name(),
            cron=schedule.cron.expression,
            timezone=schedule.cron.timezone,
            catch_up=schedule.catch_up,
            last_tick=last if last is not None and schedule.is_tick(last) else None,
            next_tick=following,
            late=following < found.now - late_after,
        )
