"""What `sagas workers` prints: who holds what; apart from it, what waits in the queue and what is parked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from sagas.cli.plain import iso
from sagas.cli.words import ago, columns, labelled, when
from sagas.storage.operator_answers import Holder, Holdings, Parked, Queued
from sagas.text import printable

_HEADERS: Final = ("OWNER", "SAGAS", "EXPIRED", "HEARD", "QUIETEST", "NAMES")


def holding(holdings: Holdings, width: int | None = None) -> Text:
    """Return who holds what as a table, and queue and pauses below it."""
    lines = [columns(_HEADERS, [_row(holder, holdings) for holder in holdings.holders], width)]
    if not holdings.holders:
        lines = [Text("no worker holds a saga")]
    return Text("\n").join([*lines, Text(), *_below(holdings, width)])


def holdings_as_json(holdings: Holdings) -> dict[str, Any]:
    """Return who holds what as plain data."""
    return {
        "at": iso(holdings.now),
        "workers": [
            {
                "owner": holder.owner,
                "sagas": holder.sagas,
                "names": list(holder.names),
                "expired": holder.expired,
                "heard_at": iso(holder.heard_at),
                "quietest_since": iso(holder.quietest_since),
                "first_lease_ends": iso(holder.first_lease_ends),
            }
            for holder in holdings.holders
        ],
        "queue": [
            {
                "pending": queued.pending,
                "sagas": queued.sagas,
                "since": iso(queued.since),
                "overdue": queued.overdue,
            }
            for queued in holdings.queue
        ],
        "paused": [
            {
                "name": parked.name,
                "parked": parked.sagas,
                "by": parked.by,
                "because": parked.because,
                "since": iso(parked.since),
            }
            for parked in holdings.parked
        ],
    }


def _row(holder: Holder, holdings: Holdings) -> list[Text]:
    return [
        Text(printable(holder.owner)),
        Text(str(holder.sagas)),
        Text(str(holder.expired), style="red" if holder.expired else ""),
        Text(ago(holder.heard_at, holdings.now)),
        Text(ago(holder.quietest_since, holdings.now)),
        Text(printable(", ".join(holder.names))),
    ]


def _below(holdings: Holdings, width: int | None) -> Iterator[Text]:
    if not holdings.queue:
        yield labelled("queue", "empty")
    for queued in holdings.queue:
        yield labelled("queue", _waiting(queued, holdings), width)
    for parked in holdings.parked:
        yield labelled("paused", _paused(parked, holdings), width)


def _waiting(queued: Queued, holdings: Holdings) -> str:
    kind = "that never ran" if queued.pending else "to be recovered"
    overdue = f"; {queued.overdue} for longer than a scan leaves them unquestioned" if queued.overdue else ""
    return f"{queued.sagas} {kind}, the first since {when(queued.since, holdings.now)}{overdue}"


def _paused(parked: Parked, holdings: Holdings) -> str:
    count = f"{printable(parked.name)}, {parked.sagas} parked"
    if parked.by is None:
        return f"{count} still, although the name was resumed: the next scans free them"
    return f"{count}, by {parked.by} since {when(parked.since, holdings.now)}: {parked.because}"
