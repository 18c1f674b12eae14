"""Checks that the scans know each schedule, and deal with its ticks in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas.doctor.check import Check, Installation
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.unfinished import scans_are_late_after
from sagas.duration import when

SCHEDULE_LATE: Final = problem(
    "schedule-late",
    what="a schedule is due, and its saga was not started",
    why="Its `context` function fails, no scan runs, or the workers that scan have other code.",
    cure="The worker that scans logs the error with the name of the schedule: correct the `context` function, and "
    "deploy it. If it logs none, fix what `scans` reports, and give that worker the SAGAS_MODULES of this environment.",
)
SCHEDULE_UNKNOWN: Final = warning(
    "schedule-unknown",
    what="no scan knows a schedule of this code",
    why="It starts nothing until a worker with this code runs a scan. Its first tick is the one after that.",
    cure="Deploy this code to the workers that take the queue `sagas.scan`, with this SAGAS_MODULES.",
)


def _schedules(installation: Installation) -> Iterator[Finding | str]:
    defined = installation.registry.schedules
    found = installation.inspector.schedules()
    yield f"{len(defined)} {'schedule' if len(defined) == 1 else 'schedules'}"
    for schedule in defined:
        last = found.last.get(schedule.name)
        if last is None:
            yield SCHEDULE_UNKNOWN.seen(f"no scan has seen the schedule {schedule.name!r} yet.")
            continue
        due = schedule.next_tick(last)
        # A tick is dealt with by the first scan after it.
        if (found.now - due).total_seconds() > scans_are_late_after(installation.settings):
            yield SCHEDULE_LATE.seen(f"the schedule {schedule.name!r} was due at {when(due, found.now)}.")


SCHEDULES: Final = Check("schedules", _schedules, (SCHEDULE_LATE, SCHEDULE_UNKNOWN), needs=("schema", "code"))
