"""What `sagas list` prints: a line for each saga."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from rich.text import Text

from sagas.cli.standing import in_brief
from sagas.cli.words import WHOLE, columns, utc
from sagas.duration import duration
from sagas.progress import SagaStatus
from sagas.storage.operator_answers import Listing
from sagas.storage.records import SagaRecord
from sagas.text import printable

STATUS_STYLES: Final = {
    SagaStatus.COMPLETED: "green",
    SagaStatus.COMPENSATED: "yellow",
    SagaStatus.COMPENSATING: "yellow",
    SagaStatus.FAILED: "red",
}

_HEADERS: Final = (WHOLE, "NAME", "STATUS", "ATTEMPTS", "AGE", "UPDATED (UTC)", "HELD BY / WAITS UNTIL")


def listing(records: Sequence[SagaRecord], now: datetime, ids: Mapping[UUID, str], width: int | None = None) -> Text:
    """Return the sagas as a table, in the order given; `ids` are as they are to be shown."""
    return columns(_HEADERS, [_row(record, now, ids) for record in records], width, spare=("UPDATED (UTC)", "ATTEMPTS"))


def next_page(wanted: Listing, last: str, *, as_json: bool) -> str:
    """Return the command that lists what follows this saga, the last of a page."""
    words = ["sagas", "list"]
    for status in wanted.statuses:
        words += ["--status", str(status)]
    for option, value in (
        ("--name", wanted.name),
        ("--leased-by", wanted.leased_by),
        ("--older-than", wanted.older_than_seconds and f"{wanted.older_than_seconds:g}s"),
        ("--newer-than", wanted.newer_than_seconds and f"{wanted.newer_than_seconds:g}s"),
        ("--limit", str(wanted.limit)),
        ("--after", last),
    ):
        words += [option, value] if value else []
    return shlex.join([*words, *["--dead"] * wanted.dead, *["--json"] * as_json])


def status_text(status: SagaStatus) -> Text:
    """Return the status in its colour."""
    return Text(str(status), style=STATUS_STYLES.get(status, ""))


def _row(record: SagaRecord, now: datetime, ids: Mapping[UUID, str]) -> list[Text]:
    return [
        Text(ids[record.id]),
        Text(printable(record.name)),
        status_text(record.status),
        Text(str(record.recovery_attempts)),
        Text(duration((now - record.created_at).total_seconds())),
        Text(utc(record.updated_at)),
        Text(in_brief(record, now)),
    ]
