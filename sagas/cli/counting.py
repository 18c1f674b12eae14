"""What `sagas stats` prints: how many sagas stand how, what the last hour brought, and who looks after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from sagas.cli.plain import iso, pause_as_json
from sagas.cli.words import NOTHING, columns, labelled, one_line, when
from sagas.progress import SagaStatus
from sagas.storage.operator_answers import Statistics

_UNFINISHED: Final = tuple(status for status in SagaStatus if not status.finished)
_NOW: Final = (*map(str, _UNFINISHED), "dead", "queued", "parked")
_LATELY: Final = ("completed", "compensated", "recovered", "failed", "died")


def counting(statistics: Statistics) -> Text:
    """Return the statistics as a table of names, and what does not fit into it below."""
    names, total = _by_name(statistics)
    headers = ["NAME", *(column.upper() for column in _NOW), *(f"{column.upper()}/H" for column in _LATELY)]
    rows = [[Text(one_line(name)), *_cells(now, lately)] for name, (now, lately) in names.items()]
    if len(rows) > 1:
        rows.append([Text("all", style="bold"), *_cells(*total)])
    lines = list(_below(statistics, total[0]))
    if rows:
        return Text("\n").join([columns(headers, rows), Text(), *lines])
    return Text("\n").join([Text("no unfinished saga, and none that ended within the last hour"), Text(), *lines])


def counts_as_json(statistics: Statistics) -> dict[str, Any]:
    """Return the statistics as plain data."""
    names, total = _by_name(statistics)
    now, oldest, scan = statistics.now, statistics.oldest_recoverable, statistics.last_scan
    in_total = statistics.finished_in_total
    return {
        "at": iso(now),
        "sagas": [{"name": name, **_counts_as_json(*counts)} for name, counts in names.items()],
        "total": _counts_as_json(*total),
        "oldest_recoverable": oldest
        and {
            "id": str(oldest.id),
            "name": oldest.name,
            "due_since": iso(oldest.due_since),
            "age_seconds": _age(oldest.due_since, now),
        },
        "queue": {
            "sagas": total[0]["queued"],
            "since": iso(statistics.queued_since),
            "age_seconds": _age(statistics.queued_since, now),
        },
        "paused": [pause_as_json(pause) for pause in statistics.pauses],
        "last_scan": scan and {"host": scan.host, "at": iso(scan.at), "age_seconds": _age(scan.at, now)},
        "finished_in_total": None if in_total is None else {str(s): in_total.get(s, 0) for s in _FINISHED},
    }


_FINISHED: Final = tuple(status for status in SagaStatus if status.finished)
_Counts = tuple[Counter[str], Counter[str]]


def _by_name(statistics: Statistics) -> tuple[dict[str, _Counts], _Counts]:
    """How many of each name stand how now and what became of how many lately, and the same of all names."""
    names: dict[str, _Counts] = {}
    for count in statistics.unfinished:
        now, lately = names.setdefault(count.name, (Counter(), Counter()))
        now.update({str(count.status): count.sagas, "dead": count.dead, "queued": count.queued, "parked": count.parked})
        lately.update(failed=count.failed_lately, died=count.died_lately)
    for ended in statistics.ended_lately:
        _, lately = names.setdefault(ended.name, (Counter(), Counter()))
        lately.update({str(ended.status).lower(): ended.sagas, "recovered": ended.recovered})
    total: _Counts = (Counter(), Counter())
    for counts in names.values():
        for whole, part in zip(total, counts, strict=True):
            whole.update(part)
    return dict(sorted(names.items())), total


def _cells(now: Counter[str], lately: Counter[str]) -> list[Text]:
    bad = {"dead", "died"}
    numbers = [(column, now[column]) for column in _NOW] + [(column, lately[column]) for column in _LATELY]
    return [Text(str(number), style="red" if number and column in bad else "") for column, number in numbers]


def _counts_as_json(now: Counter[str], lately: Counter[str]) -> dict[str, Any]:
    return {
        "unfinished": {str(status): now[str(status)] for status in _UNFINISHED},
        **{column: now[column] for column in ("dead", "queued", "parked")},
        "last_hour": {column: lately[column] for column in _LATELY},
    }


def _below(statistics: Statistics, total: Counter[str]) -> Iterator[Text]:
    now, oldest, scan = statistics.now, statistics.oldest_recoverable, statistics.last_scan
    due = f"{oldest.id}, {oldest.name}, since {when(oldest.due_since, now)}" if oldest else NOTHING
    yield labelled("oldest due", due)
    waiting = f"{total['queued']}, the first since {when(statistics.queued_since, now)}" if total["queued"] else "empty"
    yield labelled("queue", waiting)
    yield labelled("last scan", f"{when(scan.at, now)} on {scan.host}" if scan else "never")
    for pause in statistics.pauses:
        yield labelled("paused", f"{pause.name}, by {pause.by} since {when(pause.since, now)}: {pause.because}")
    if statistics.finished_in_total is not None:
        numbers = (f"{statistics.finished_in_total.get(status, 0)} {status}" for status in _FINISHED)
        yield labelled("in total", ", ".join(numbers))


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()
