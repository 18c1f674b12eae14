"""What `sagas stats` prints: how many sagas stand how, what the last hour brought, and who looks after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from rich.text import Text

from sagas.cli.plain import iso, pause_as_json
from sagas.cli.words import NOTHING, columns, labelled, when
from sagas.progress import SagaStatus
from sagas.storage.operator_answers import Statistics
from sagas.text import printable

_UNFINISHED: Final = tuple(status for status in SagaStatus if not status.finished)
_NOW: Final = (*map(str, _UNFINISHED), "dead", "queued", "parked")
_LATELY: Final = ("completed", "compensated", "recovered", "failed", "died")


def counting(statistics: Statistics, ids: Mapping[UUID, str], width: int | None = None) -> Text:
    """Return the statistics as two tables of names, now and the last hour, and what does not fit into them below.

    Args:
        statistics: what to tell.
        ids: as they are to be shown.
        width: of the terminal.
    """
    names, total = _by_name(statistics)
    lines = list(_below(statistics, total[0], ids, width))
    if not names:
        return Text("\n").join([Text("no unfinished saga, and none that ended within the last hour"), Text(), *lines])
    every = [(Text(printable(name)), *counts) for name, counts in names.items()]
    if len(every) > 1:
        every.append((Text("all", style="bold"), *total))
    now = columns(_headers(_NOW), [[name, *_cells(_NOW, counts)] for name, counts, _ in every], width)
    lately = columns(_headers(_LATELY), [[name, *_cells(_LATELY, counts)] for name, _, counts in every], width)
    titled = [Text("now", style="bold"), now, Text(), Text("within the last hour", style="bold"), lately]
    return Text("\n").join([*titled, Text(), *lines])


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


def _headers(counted: Sequence[str]) -> list[str]:
    return ["NAME", *(column.upper() for column in counted)]


def _cells(counted: Sequence[str], counts: Counter[str]) -> list[Text]:
    bad = {"dead", "died"}
    return [Text(str(counts[each]), style="red" if counts[each] and each in bad else "") for each in counted]


def _counts_as_json(now: Counter[str], lately: Counter[str]) -> dict[str, Any]:
    return {
        "unfinished": {str(status): now[str(status)] for status in _UNFINISHED},
        **{column: now[column] for column in ("dead", "queued", "parked")},
        "last_hour": {column: lately[column] for column in _LATELY},
    }


def _below(statistics: Statistics, total: Counter[str], ids: Mapping[UUID, str], width: int | None) -> Iterator[Text]:
    now, oldest, scan = statistics.now, statistics.oldest_recoverable, statistics.last_scan
    due = f"{ids[oldest.id]}, {printable(oldest.name)}, since {when(oldest.due_since, now)}" if oldest else NOTHING
    yield labelled("oldest due", due, width)
    waiting = f"{total['queued']}, the first since {when(statistics.queued_since, now)}" if total["queued"] else "empty"
    yield labelled("queue", waiting, width)
    yield labelled("last scan", f"{when(scan.at, now)} on {scan.host}" if scan else "never")
    for pause in statistics.pauses:
        paused = f"{printable(pause.name)}, by {pause.by} since {when(pause.since, now)}: {pause.because}"
        yield labelled("paused", paused, width)
    if statistics.finished_in_total is not None:
        numbers = (f"{statistics.finished_in_total.get(status, 0)} {status}" for status in _FINISHED)
        yield labelled("in total", ", ".join(numbers), width)


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()
