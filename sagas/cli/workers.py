"""`sagas workers`: which worker holds which sagas; apart from that, what waits in the queue and what is paused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas.cli.database import inspector
from sagas.cli.render import ago, facts, out, table, text
from sagas.cli.serialize import AsJson, as_stored, print_json
from sagas.duration import when
from sagas.inspection.models import Workers

_HEADERS: Final = ("OWNER", "SAGAS", "EXPIRED", "HEARD", "QUIETEST", "NAMES")


def workers(as_json: AsJson = False) -> None:
    """Show who holds which sagas.

    The lines below the table count the sagas that are queued or paused. HEARD is when an owner last wrote anything.
    QUIETEST is when it last wrote to the saga that it has left alone for the longest.
    """
    found = inspector().workers()
    if as_json:
        paused = [as_stored(name) for name in found.paused]
        print_json({"at": found.now, "workers": found.workers, "queue": found.queue, "paused": paused})
        return
    rows = [
        (
            holder.owner,
            holder.sagas,
            text(holder.expired, "red" if holder.expired else ""),
            ago(holder.heard_at, found.now),
            ago(holder.quietest_since, found.now),
            ", ".join(holder.names),
        )
        for holder in found.workers
    ]
    out(table(_HEADERS, rows) if rows else "no worker holds a saga", "", facts(_queue_and_pauses(found)))


def _queue_and_pauses(found: Workers) -> Iterator[tuple[str, str]]:
    if not found.queue:
        yield "queue", "empty"
    for queued in found.queue:
        kind = "that never ran" if queued.pending else "to be recovered"
        overdue = f"; {queued.overdue} for longer than a scan leaves them unquestioned" if queued.overdue else ""
        yield "queue", f"{queued.sagas} {kind}, the first since {when(queued.since, found.now)}{overdue}"
    for paused in found.paused:
        count = f"{paused.name}, {paused.paused} paused"
        if paused.actor is None:
            yield "paused", f"{count} still, although the name was resumed: the next scans free them"
        else:
            yield "paused", f"{count}, by {paused.actor} since {when(paused.since, found.now)}: {paused.reason}"
