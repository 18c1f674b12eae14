"""`sagas stats`: how many sagas stand how, what the last hour brought, and whether scans run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from sagas.cli.database import inspector
from sagas.cli.ids import shown_ids
from sagas.cli.render import NOTHING, facts, out, table, text
from sagas.cli.serialize import AsJson, as_stored, print_json
from sagas.duration import when
from sagas.inspection.models import Statistics
from sagas.progress import SagaStatus
from sagas.storage.records import SagaState

_UNFINISHED: Final = tuple(str(status) for status in SagaStatus if not status.finished)
_FINISHED: Final = tuple(status for status in SagaStatus if status.finished)
_AMONG_THEM: Final = {
    SagaState.DEAD: "dead",
    SagaState.QUEUED: "queued",
    SagaState.WAITING: "waiting",
    SagaState.PAUSED: "paused",
}
_LATELY: Final = ("completed", "compensated", "recovered", "failed", "died")


def stats(
    whole: Annotated[
        bool, typer.Option("--all", help="Count all finished sagas too, which takes long with millions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count unfinished sagas, and what the last hour brought.

    DEAD, QUEUED, WAITING and PAUSED are among the statuses before them. RECOVERED sagas ended within the last hour
    after more than one worker had acquired them.
    """
    asked = inspector()
    statistics = asked.statistics(whole=whole)
    if as_json:
        print_json(_as_json(statistics))
        return
    names = _by_name(statistics)
    if names:
        out(text("now", "bold"), _counts(names, (*_UNFINISHED, *_AMONG_THEM.values())), "")
        out(text("within the last hour", "bold"), _counts(names, _LATELY), "")
    else:
        out("no unfinished saga, and none that ended within the last hour", "")
    oldest = statistics.oldest_recoverable
    short = shown_ids([oldest.id] if oldest else [], asked)
    out(facts(_facts(statistics, _total(names), short[oldest.id] if oldest else "")))


def _by_name(statistics: Statistics) -> dict[str, Counter[str]]:
    """Return for each name how many of its sagas stand how, and what became of how many within the last hour."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for count in statistics.unfinished:
        counts = names[count.name]
        counts[count.status] += count.sagas
        if count.state in _AMONG_THEM:
            counts[_AMONG_THEM[count.state]] += count.sagas
        if count.state is SagaState.DEAD:
            counts["died"] += count.lately
        elif count.status is SagaStatus.FAILED:
            counts["failed"] += count.lately
    for ended in statistics.ended:
        names[ended.name].update({str(ended.status).lower(): ended.sagas, "recovered": ended.recovered})
    return dict(sorted(names.items()))


def _total(names: Mapping[str, Counter[str]]) -> Counter[str]:
    return sum(names.values(), Counter())


def _counts(names: Mapping[str, Counter[str]], columns: tuple[str, ...]) -> Text:
    rows: list[tuple[Text | str, Counter[str]]] = [*names.items()]
    if len(names) > 1:
        rows.append((text("all", "bold"), _total(names)))
    return table(
        ("NAME", *(column.upper() for column in columns)),
        [(name, *(_count(column, counts[column]) for column in columns)) for name, counts in rows],
    )


def _count(column: str, sagas: int) -> Text:
    return text(sagas, "red" if sagas and column in ("dead", "died") else "")


def _facts(statistics: Statistics, total: Counter[str], oldest_id: str) -> Iterator[tuple[str, str]]:
    now, oldest, scan = statistics.now, statistics.oldest_recoverable, statistics.last_scan
    yield "oldest due", f"{oldest_id}, {oldest.name}, since {when(oldest.due_since, now)}" if oldest else NOTHING
    queued = total["queued"]
    yield "queue", f"{queued}, the first since {when(statistics.queued_since, now)}" if queued else "empty"
    yield "last scan", f"{when(scan.at, now)} on {scan.host}" if scan else "never"
    for pause in statistics.pauses:
        yield "paused", f"{pause.name}, by {pause.actor} since {when(pause.since, now)}: {pause.reason}"
    if (ended := statistics.finished_in_total) is not None:
        yield "in total", ", ".join(f"{ended.get(status, 0)} {status}" for status in _FINISHED)


def _as_json(statistics: Statistics) -> dict[str, Any]:
    now, oldest, scan = statistics.now, statistics.oldest_recoverable, statistics.last_scan
    names, ended = _by_name(statistics), statistics.finished_in_total
    total = _total(names)
    return {
        "at": now,
        "sagas": [{"name": name, **_counts_as_json(counts)} for name, counts in names.items()],
        "total": _counts_as_json(total),
        "oldest_recoverable": oldest
        and {
            "id": oldest.id,
            "name": oldest.name,
            "due_since": oldest.due_since,
            "age_seconds": _age(oldest.due_since, now),
        },
        "queue": {
            "sagas": total["queued"],
            "since": statistics.queued_since,
            "age_seconds": _age(statistics.queued_since, now),
        },
        "paused": [as_stored(pause) for pause in statistics.pauses],
        "last_scan": scan and {"host": scan.host, "at": scan.at, "age_seconds": _age(scan.at, now)},
        "finished_in_total": None if ended is None else {status: ended.get(status, 0) for status in _FINISHED},
    }


def _counts_as_json(counts: Counter[str]) -> dict[str, Any]:
    return {
        "unfinished": {status: counts[status] for status in _UNFINISHED},
        **{column: counts[column] for column in _AMONG_THEM.values()},
        "last_hour": {column: counts[column] for column in _LATELY},
    }


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()
