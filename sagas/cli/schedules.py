"""`sagas schedules`: when each schedule last started its saga, and when it will next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sagas import api
from sagas.cli.database import inspector
from sagas.cli.loading import known_sagas
from sagas.cli.render import NOTHING, Cell, out, table, text
from sagas.cli.serialize import AsJson, print_json
from sagas.doctor.unfinished import scans_are_late_after
from sagas.duration import utc
from sagas.inspection.models import Schedules
from sagas.schedule import AnySchedule

_HEADERS: Final = ("NAME", "SAGA", "CRON", "ZONE", "CATCH UP", "LAST (UTC)", "NEXT (UTC)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
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


def schedules(as_json: AsJson = False) -> None:
    """List the schedules of SAGAS_MODULES, and those that scans of other code know.

    NEXT is red while it is past, because scans do not run or the schedule's context fails: see `sagas doctor`.
    """
    found = inspector().schedules()
    rows = list(_rows(known_sagas().schedules, found))
    if as_json:
        print_json({"at": found.now, "schedules": rows})
    elif rows:
        out(table(_HEADERS, [_cells(row) for row in rows], spare=("CATCH UP", "SAGA")))
    else:
        out("no schedule is defined in SAGAS_MODULES, and scans know none")


def _rows(defined: tuple[AnySchedule, ...], found: Schedules) -> Iterator[_Row]:
    late_after = timedelta(seconds=scans_are_late_after(api.settings()))
    by_name = {schedule.name: schedule for schedule in defined}
    for name in sorted({*by_name, *found.last}):
        schedule, last = by_name.get(name), found.last.get(name)
        if schedule is None:
            yield _Row(name=name, last_tick=last)
            continue
        following = schedule.next_tick(found.now if last is None else last)
        yield _Row(
            name=name,
            saga=schedule.saga.stored_name(),
            cron=schedule.cron.expression,
            timezone=schedule.cron.timezone,
            catch_up=schedule.catch_up,
            last_tick=last if last is not None and schedule.is_tick(last) else None,
            next_tick=following,
            late=following < found.now - late_after,
        )


def _cells(row: _Row) -> tuple[Cell, ...]:
    saga = text("not in SAGAS_MODULES", "yellow") if row.saga is None else row.saga
    upcoming = text(utc(row.next_tick), "red" if row.late else "")
    facts = (row.cron or NOTHING, row.timezone or NOTHING, row.catch_up or NOTHING)
    return (row.name, saga, *facts, utc(row.last_tick), upcoming)
