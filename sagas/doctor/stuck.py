"""Which sagas wait for somebody: the dead for an operator, the overdue for a scan, the queued for a worker."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from sagas.doctor import statements as sql
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.installation import Installation
from sagas.doctor.scanning import scans_are_late_after
from sagas.duration import duration

#: Rows read of each sort; more are told as at least so many.
_MOST: Final = 10_000
_QUEUED_SECONDS: Final = 300.0
_PAUSED_SECONDS: Final = 24 * 3600.0
_LAST_ERROR_CHARACTERS: Final = 200

DEAD: Final = problem(
    "sagas-dead",
    what="sagas are dead",
    why="Their attempts are spent, so nothing picks them up by itself: they are neither done nor undone.",
    cure="`sagas list --dead --name {name}` lists them, and `sagas show {example}` tells why. See to the cause, then "
    "send them to workers again: `sagas retry --dead --name {name}`.",
)
LEASES_EXPIRED: Final = problem(
    "leases-expired",
    what="leases ran out, and nobody took the sagas over",
    why="Their workers died or were cut off, and no scan hands the sagas to others.",
    cure="See to what `scans`, `broker` and `workers` tell here; `sagas recover ID` runs one saga now, without them.",
)
OVERDUE: Final = problem(
    "sagas-overdue",
    what="sagas are due, and nobody sends them to a worker",
    why="Either no scan runs, or as many sagas wait in the queue as SAGAS_SCAN_LIMIT allows: there are too few "
    "workers.",
    cure="If `scans` tells nothing here, start more workers (`celery -A sagas worker`), or raise their `-c`.",
)
QUEUED_LONG: Final = warning(
    "queue-slow",
    what="sagas wait in the queue for more than 5 minutes",
    why="Workers are too few for what is started, or all of them are busy in long steps, or one that takes this queue "
    "is missing.",
    cure="Start more workers that take the queue (`celery -A sagas worker`), or raise their `-c`; `celery -A sagas "
    "inspect active` tells what they do.",
)
PAUSED: Final = warning(
    "name-paused",
    what="a saga name has been paused for more than a day",
    why="Its sagas stand still until it is resumed; it may have been forgotten.",
    cure="Ask who paused it, then `sagas resume {name}`.",
)


def _stuck(installation: Installation) -> Iterator[Finding | str]:
    for row in installation.rows(sql.DEAD, {"limit": _MOST}):
        error = (row["last_error"] or "no error was kept")[:_LAST_ERROR_CHARACTERS]
        yield DEAD(
            f"{_sagas(row['count'])} named {row['name']!r} {_are(row['count'])} dead, "
            f"such as {row['example']}: {error}",
            name=shlex.quote(row["name"]),
            example=row["example"],
        )
    # A moment beyond what `scans` calls late, so that one missed scan is not told twice.
    late = {"limit": _MOST, "seconds": 2 * scans_are_late_after(installation.settings)}
    for row in installation.rows(sql.LATE, late):
        count, age = row["count"], duration(row["age"])
        if row["held"]:
            yield LEASES_EXPIRED(f"the leases of {_sagas(count)} ran out, the first {age} ago (of {row['example']}).")
        else:
            yield OVERDUE(f"{_sagas(count)} {_are(count)} due, the first since {age}.")
    for row in installation.rows(sql.QUEUED_LONG, {"limit": _MOST, "seconds": _QUEUED_SECONDS}):
        queue = "sagas.run" if row["status"] == "PENDING" else "sagas.recover"
        wait = "waits" if row["count"] == 1 else "wait"
        yield QUEUED_LONG(f"{_sagas(row['count'])} {wait} in {queue}, the first for {duration(row['age'])}.")


def _paused(installation: Installation) -> Iterator[Finding | str]:
    for row in installation.rows(sql.PAUSES, {"limit": 100, "seconds": _PAUSED_SECONDS}):
        yield PAUSED(
            f"{row['name']!r} was paused {duration(row['age'])} ago by {row['by']}: {row['because']}",
            name=shlex.quote(row["name"]),
        )


def _sagas(count: int) -> str:
    some = "at least " if count >= _MOST else ""
    return f"{some}{count} {'saga' if count == 1 else 'sagas'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


STUCK: Final = Check("stuck", _stuck, (DEAD, LEASES_EXPIRED, OVERDUE, QUEUED_LONG), needs=("schema",))
PAUSES: Final = Check("pauses", _paused, (PAUSED,), needs=("schema",))
