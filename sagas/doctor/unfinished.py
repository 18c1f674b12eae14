"""Checks that scans run, that this code fits the stored sagas, and that no saga is dead or stuck."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Final, TypeVar

from sagas.doctor.check import Check, Installation
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.inspector import LIMIT, Row
from sagas.duration import duration
from sagas.errors import LogDoesNotFit, UnknownSaga
from sagas.plan import plan_as_started
from sagas.registry import Registry
from sagas.settings import Settings

Key = TypeVar("Key", bound=Hashable)

_LAST_ERROR_CHARACTERS: Final = 200

SCAN_LATE: Final = problem(
    "scan-late",
    what="no scan ran when it should have",
    why="Sagas of a worker that died are not taken over, failed attempts are not repeated, and messages that the "
    "broker lost are not sent again.",
    cure="Start `celery -A sagas beat` with the broker of the workers, and a worker that consumes the queue "
    "`sagas.scan`: `celery -A sagas inspect active_queues` lists the queues.",
)
DEFINITION_CHANGED: Final = problem(
    "definition-changed",
    what="this code does not fit unfinished sagas",
    why="Workers with this code decline them, so they neither finish nor compensate.",
    cure="Deploy the code that they were started with, or make this code continue them: `aliases` for a renamed step "
    "or saga, `continues` for a version (docs/changing-sagas.md). `sagas show {example}` shows one.",
)
DECLINED: Final = warning(
    "sagas-declined",
    what="workers decline unfinished sagas",
    why="The workers' code does not fit, so these sagas wait for a worker whose code does. This is normal during a "
    "deployment; afterwards it does not end by itself.",
    cure="If no deployment is under way, deploy code that fits. `sagas show {example}` gives the reason for one.",
)
DEAD: Final = problem(
    "sagas-dead",
    what="sagas are dead",
    why="Their attempts are exhausted. No worker acquires them again, so they neither finish nor compensate.",
    cure="`sagas list --dead --name {name}` lists them, and `sagas show {example}` gives the reason for one. Fix the "
    "cause, then run `sagas retry --dead --name {name}`.",
)
OVERDUE: Final = problem(
    "sagas-overdue",
    what="sagas are due, and no worker acquires them",
    why="They were started, failed an attempt, or lost their worker, and stand still.",
    cure="Fix what `scans`, `broker` and `workers` report. If they report nothing, there are too few workers: start "
    "more (`celery -A sagas worker`), or raise their `-c`. `sagas recover ID` runs one saga now.",
)


def scans_are_late_after(settings: Settings) -> float:
    """Return after how many seconds a scan is late: three intervals, and a moment for a busy worker."""
    return 3 * settings.scan_interval_seconds + 10


def _scans(installation: Installation) -> Iterator[Finding | str]:
    settings, last = installation.settings, installation.inspector.last_scan()
    if last is None:
        yield SCAN_LATE.seen("no scan ever ran on this database.")
        return
    ran = f"the last scan ran {duration(last['age'])} ago, on {last['worker']}"
    if last["age"] > scans_are_late_after(settings):
        yield SCAN_LATE.seen(f"{ran}; one is due every {settings.scan_interval_seconds:g} s.")
    else:
        yield ran


def _definitions(installation: Installation) -> Iterator[Finding | str]:
    rows = _unfinished(installation)
    definitions = _merged(rows, _definition)
    many = "" if len(definitions) == 1 else "s"
    yield f"{_number(sum(row['sagas'] for row in rows))} unfinished, {len(definitions)} definition{many}"
    misfits = {definition: _misfit(installation.registry, *definition) for definition in definitions}
    for (name, misfit), row in _merged(rows, lambda row: (row["name"], misfits[_definition(row)])).items():
        if misfit:
            yield DEFINITION_CHANGED.seen(f"{_sagas(row)} named {name!r}: {misfit}", example=row["example"])
    for name, row in _merged(_in_state("declined", rows), lambda row: row["name"]).items():
        yield DECLINED.seen(f"{_sagas(row)} named {name!r}: {row['last_error']}", example=row["example"])


def _misfit(registry: Registry, name: str, definition_version: str) -> str | None:
    """Return why this code cannot continue these sagas, or None if it can."""
    try:
        plan_as_started(registry.fitting(name, definition_version), definition_version)
    except (UnknownSaga, LogDoesNotFit) as error:
        return str(error)
    return None


def _stuck(installation: Installation) -> Iterator[Finding | str]:
    rows = _unfinished(installation)
    for name, row in _merged(_in_state("dead", rows), lambda row: row["name"]).items():
        error = (row["last_error"] or "no error was kept")[:_LAST_ERROR_CHARACTERS]
        message = f"{_sagas(row)} named {name!r} {_are(row)} dead, such as {row['example']}: {error}"
        yield DEAD.seen(message, name=shlex.quote(name), example=row["example"])
    for row in _merged(_in_state("overdue", rows), lambda row: row["state"]).values():
        since = f"the first since {duration(row['age'])}, such as {row['example']}"
        yield OVERDUE.seen(f"{_sagas(row)} {_are(row)} due, {since}.")


def _unfinished(installation: Installation) -> list[Row]:
    # Later than a late scan, so that one missed scan is not reported twice.
    return installation.inspector.unfinished(overdue_seconds=2 * scans_are_late_after(installation.settings))


def _in_state(state: str, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["state"] == state]


def _merged(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, Row]:
    """Return one row for each key, with the total of sagas and the greatest age."""
    merged: dict[Key, Row] = {}
    for row in rows:
        same = merged.setdefault(key(row), {**row, "sagas": 0})
        age = max(same["age"] or 0, row["age"] or 0)
        merged[key(row)] = {**same, "sagas": same["sagas"] + row["sagas"], "age": age}
    return merged


def _definition(row: Row) -> tuple[str, str]:
    return row["name"], row["definition_version"]


def _number(count: int) -> str:
    return f"{'at least ' if count >= LIMIT else ''}{count}"


def _sagas(row: Row) -> str:
    return f"{_number(row['sagas'])} {'saga' if row['sagas'] == 1 else 'sagas'}"


def _are(row: Row) -> str:
    return "is" if row["sagas"] == 1 else "are"


SCANS: Final = Check("scans", _scans, (SCAN_LATE,), needs=("schema",))
DEFINITIONS: Final = Check("definitions", _definitions, (DEFINITION_CHANGED, DECLINED), needs=("schema", "code"))
STUCK: Final = Check("stuck", _stuck, (DEAD, OVERDUE), needs=("schema",))
