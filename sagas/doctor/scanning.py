"""Did the last scan run when it should have? Beat fires them, a worker runs them, and the database knows of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas.doctor import statements as sql
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, problem
from sagas.doctor.installation import Installation
from sagas.duration import duration
from sagas.settings import Settings

SCAN_NEVER: Final = problem(
    "scan-never",
    what="no scan ever ran",
    why="Nobody takes over the sagas of a worker that dies, tries again what failed, or sends what the broker lost.",
    cure="Start `celery -A sagas beat`, and a worker that takes the queue `sagas.scan`.",
)
SCAN_LATE: Final = problem(
    "scan-late",
    what="the last scan ran long ago",
    why="Nobody takes over the sagas of a worker that dies, tries again what failed, or sends what the broker lost.",
    cure="See that `celery -A sagas beat` runs, with the broker that the workers have, and a worker that takes the "
    "queue `sagas.scan`: `celery -A sagas inspect active_queues` tells.",
)


def scans_are_late_after(settings: Settings) -> float:
    """Seconds without a scan that no beat explains: a few intervals, and a worker that was busy for a moment."""
    return 3 * settings.scan_interval_seconds + 10


def _last(installation: Installation) -> Iterator[Finding | str]:
    settings = installation.settings
    rows = installation.rows(sql.LAST_SCAN)
    if not rows:
        yield SCAN_NEVER("no scan ever ran on this database.")
        return
    (row,) = rows
    if row["age"] > scans_are_late_after(settings):
        yield SCAN_LATE(
            f"the last scan ran {duration(row['age'])} ago, on {row['worker']}; one is due every "
            f"{settings.scan_interval_seconds:g} s."
        )
    else:
        yield f"the last one ran {duration(row['age'])} ago, on {row['worker']}"


SCANS: Final = Check("scans", _last, (SCAN_NEVER, SCAN_LATE), needs=("schema",))
