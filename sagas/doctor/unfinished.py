"""Checks that scans run, that this code fits the stored sagas, and that no saga is dead or stuck."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Final, TypeVar
from uuid import UUID

from sagas.definitions import Definitions
from sagas.doctor.check import Check, Installation
from sagas.doctor.finding import Finding, problem, warning
from sagas.duration import duration
from sagas.errors import DefinitionNotFound, LogDoesNotFit, SagaNotFound, UnknownSaga
from sagas.inspection.models import Count, Statistics
from sagas.plan import plan_for
from sagas.settings import Settings
from sagas.storage.records import SagaState
from sagas.storage.rules import SCHEDULED

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
    settings, statistics = installation.settings, _statistics(installation)
    last = statistics.last_scan
    if last is None:
        yield SCAN_LATE.seen("no scan ever ran on this database.")
        return
    age = (statistics.now - last.at).total_seconds()
    ran = f"the last scan ran {duration(age)} ago, on {last.host}"
    if age > scans_are_late_after(settings):
        yield SCAN_LATE.seen(f"{ran}; one is due every {settings.scan_interval_seconds:g} s.")
    else:
        yield ran


def _definitions(installation: Installation) -> Iterator[Finding | str]:
    counts = _statistics(installation).unfinished
    alike = _grouped(counts, lambda count: (count.name, count.definition, count.definition_version))
    many = "" if len(alike) == 1 else "s"
    yield f"{_sum(counts)} unfinished, {len(alike)} definition{many}"
    definitions = Definitions(installation.storage, installation.registry)
    misfits: dict[tuple[str, str], list[Count]] = defaultdict(list)
    for same in alike.values():
        if misfit := _misfit(installation, definitions, same[0].example):
            misfits[same[0].name, misfit] += same
    for (name, misfit), same in misfits.items():
        yield DEFINITION_CHANGED.seen(f"{_sagas(_sum(same))} named {name!r}: {misfit}", example=same[0].example)
    for name, same in _grouped((count for count in counts if count.declined), _name).items():
        what = f"{_sagas(_sum(same))} named {name!r}: {same[0].last_error}"
        yield DECLINED.seen(what, example=same[0].example)


def _misfit(installation: Installation, definitions: Definitions, example: UUID) -> str | None:
    """Return why this code cannot continue a saga, or None if it can, or if the saga is gone."""
    try:
        plan_for(*definitions.fitting(installation.inspector.details(example).record))
    except (UnknownSaga, LogDoesNotFit, DefinitionNotFound) as error:
        return str(error)
    except SagaNotFound:
        pass
    return None


def _stuck(installation: Installation) -> Iterator[Finding | str]:
    statistics = _statistics(installation)
    for name, same in _grouped(statistics.in_state(SagaState.DEAD), _name).items():
        dead, example = _sum(same), same[0].example
        error = (same[0].last_error or "no error was kept")[:_LAST_ERROR_CHARACTERS]
        message = f"{_sagas(dead)} named {name!r} {_are(dead)} dead, such as {example}: {error}"
        yield DEAD.seen(message, name=shlex.quote(name), example=example)
    overdue = sum(count.due for count in statistics.unfinished if count.state in SCHEDULED)
    oldest = [each for each in (statistics.oldest_pending, statistics.oldest_recoverable) if each]
    if overdue and oldest:
        first = min(oldest, key=lambda each: each.due_since)
        since = duration((statistics.now - first.due_since).total_seconds())
        yield OVERDUE.seen(f"{_sagas(overdue)} {_are(overdue)} due, the first since {since}, such as {first.id}.")


def _statistics(installation: Installation) -> Statistics:
    # Later than a late scan, so that one missed scan is not reported twice.
    late_seconds = 2 * scans_are_late_after(installation.settings)
    return installation.inspector.statistics(ended_within_seconds=0, late_seconds=late_seconds)


def _grouped(counts: Iterable[Count], key: Callable[[Count], Key]) -> dict[Key, list[Count]]:
    grouped: dict[Key, list[Count]] = defaultdict(list)
    for count in counts:
        grouped[key(count)].append(count)
    return grouped


def _name(count: Count) -> str:
    return count.name


def _sum(counts: Iterable[Count]) -> int:
    return sum(count.sagas for count in counts)


def _sagas(number: int) -> str:
    return f"{number} {'saga' if number == 1 else 'sagas'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


SCANS: Final = Check("scans", _scans, (SCAN_LATE,), needs=("schema",))
DEFINITIONS: Final = Check("definitions", _definitions, (DEFINITION_CHANGED, DECLINED), needs=("schema", "code"))
STUCK: Final = Check("stuck", _stuck, (DEAD, OVERDUE), needs=("schema",))
