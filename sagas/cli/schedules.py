"""`sagas schedules`: when each schedule last started its saga, and when it will next."""

from __future__ import annotations

from typing import Final

from sagas import api
from sagas.cli.database import inspector
from sagas.cli.loading import known_sagas
from sagas.cli.render import NOTHING, Cell, out, table, text
from sagas.cli.serialize import AsJson, print_json
from sagas.doctor.schedule_rows import ScheduleRow, schedule_rows
from sagas.duration import utc

_HEADERS: Final = ("NAME", "SAGA", "CRON", "ZONE", "CATCH UP", "LAST (UTC)", "NEXT (UTC)")


def schedules(as_json: AsJson = False) -> None:
    """List the schedules of SAGAS_MODULES, and those that scans of other code know.

    NEXT is red while it is past, because scans do not run or the schedule's context fails: see `sagas doctor`.
    """
    found = inspector().schedules()
    rows = list(schedule_rows(known_sagas().schedules, found, api.settings()))
    if as_json:
        print_json({"at": found.now, "schedules": rows})
    elif rows:
        out(table(_HEADERS, [_cells(row) for row in rows], spare=("CATCH UP", "SAGA")))
    else:
        out("no schedule is defined in SAGAS_MODULES, and scans know none")


def _cells(row: ScheduleRow) -> tuple[Cell, ...]:
    saga = text("not in SAGAS_MODULES", "yellow") if row.saga is None else row.saga
    upcoming = text(utc(row.next_tick), "red" if row.late else "")
    facts = (row.cron or NOTHING, row.timezone or NOTHING, row.catch_up or NOTHING)
    return (row.name, saga, *facts, utc(row.last_tick), upcoming)
