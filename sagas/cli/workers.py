"""`sagas workers`: which worker holds which sagas; apart from that, what waits in the queue and what is paused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas.cli.database import operations
from sagas.cli.render import ago, facts, out, table, text, when
from sagas.cli.serialize import AsJson, print_json
from sagas.storage.operator_answers import Holdings

_HEADERS: Final = ("OWNER", "SAGAS", "EXPIRED", "HEARD", "QUIETEST", "NAMES")


def workers(as_json: AsJson = False) -> None:
    """Show who holds which sagas.

    What waits in the queue, and what is parked, is told below. HEARD is when an owner last wrote anything, QUIETEST
    when it last wrote to the saga that it has left alone for the longest.
    """
    holdings = operations().holdings()
    if as_json:
        paused = [
            {"name": each.name, "parked": each.sagas, "by": each.by, "because": each.because, "since": each.since}
            for each in holdings.parked
        ]
        print_json({"at": holdings.now, "workers": holdings.holders, "queue": holdings.queue, "paused": paused})
        return
    rows = [
        (
            holder.owner,
            holder.sagas,
            text(holder.expired, "red" if holder.expired else ""),
            ago(holder.heard_at, holdings.now),
            ago(holder.quietest_since, holdings.now),
            ", ".join(holder.names),
        )
        for holder in holdings.holders
    ]
    out(table(_HEADERS, rows) if rows else "no worker holds a saga", "", facts(_queue_and_pauses(holdings)))


def _queue_and_pauses(holdings: Holdings) -> Iterator[tuple[str, str]]:
    if not holdings.queue:
        yield "queue", "empty"
    for queued in holdings.queue:
        kind = "that never ran" if queued.pending else "to be recovered"
        overdue = f"; {queued.overdue} for longer than a scan leaves them unquestioned" if queued.overdue else ""
        yield "queue", f"{queued.sagas} {kind}, the first since {when(queued.since, holdings.now)}{overdue}"
    for parked in holdings.parked:
        count = f"{parked.name}, {parked.sagas} parked"
        if parked.by is None:
            yield "paused", f"{count} still, although the name was resumed: the next scans free them"
        else:
            yield "paused", f"{count}, by {parked.by} since {when(parked.since, holdings.now)}: {parked.because}"
