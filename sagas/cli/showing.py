"""What `sagas show` prints: how one saga stands, and the timeline of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.text import Text

from sagas.cli.listing import status_text
from sagas.cli.standing import in_words
from sagas.cli.words import NOTHING, columns, one_line, printable, utc, when
from sagas.progress import EntryStatus
from sagas.storage.base import LogEntry, SagaRecord

#: A context may be megabytes; its beginning is for a reader, the whole for `--json`.
_CONTEXT_CHARACTERS: Final = 2000
_ERROR_CHARACTERS: Final = 300

_HEADERS: Final = (
    "TIME (UTC)",
    "SECONDS",
    "STEP",
    "ACTION",
    "STATUS",
    "ATTEMPT",
    "VERDICT",
    "IN DOUBT",
    "WORKER",
    "ERROR",
)


def showing(record: SagaRecord, now: datetime, *, max_recovery_attempts: int) -> Text:
    """Return the saga's header, context and timeline.

    Args:
        record: the saga with its log.
        now: what ages are counted from.
        max_recovery_attempts: after how many failed attempts it is dead.
    """
    header = _header(record, now, max_recovery_attempts)
    return Text("\n").join([*header, Text(), *_context(record), Text(), _timeline(record)])


def _header(record: SagaRecord, now: datetime, max_recovery_attempts: int) -> Iterator[Text]:
    for label, value in (
        ("id", Text(str(record.id))),
        ("name", Text(one_line(record.name))),
        ("status", status_text(record.status)),
        ("attempts", Text(f"{record.recovery_attempts} failed of {max_recovery_attempts}")),
        ("next", Text(in_words(record, now))),
        ("last error", Text(one_line(record.last_error or NOTHING))),
        ("key", Text(one_line(record.idempotency_key or NOTHING))),
        ("created", Text(when(record.created_at, now))),
        ("updated", Text(when(record.updated_at, now))),
        ("finished", Text(when(record.finished_at, now))),
    ):
        yield Text(f"{label:<12}", style="bold").append_text(value)


def _context(record: SagaRecord) -> Iterator[Text]:
    whole = json.dumps(json.loads(record.context), indent=2, ensure_ascii=False)
    yield Text("context", style="bold")
    yield Text(printable(whole[:_CONTEXT_CHARACTERS]))
    if len(whole) > _CONTEXT_CHARACTERS:
        yield Text(f"… the first {_CONTEXT_CHARACTERS} of {len(whole)} characters; --json prints all")


def _timeline(record: SagaRecord) -> Text:
    if not record.log:
        return Text("timeline: no step has ended yet")
    befores = [record.created_at, *(entry.created_at for entry in record.log[:-1])]
    rows = [_row(entry, before) for entry, before in zip(record.log, befores, strict=True)]
    return Text("timeline\n", style="bold").append_text(columns(_HEADERS, rows))


def _row(entry: LogEntry, before: datetime | None) -> list[Text]:
    failed = entry.status is EntryStatus.FAILED
    since = (entry.created_at - before).total_seconds() if entry.created_at and before else None
    # The older layout logged what began; what ended has a row of its own.
    status = "started (older layout)" if entry.status is EntryStatus.STARTED else str(entry.status)
    return [
        Text(utc(entry.created_at)),
        Text(NOTHING if since is None else f"{since:+.3f}"),
        Text(one_line(entry.step)),
        Text(str(entry.action)),
        Text(status, style="red" if failed else ""),
        Text(str(entry.attempt)),
        Text(str(entry.verdict or NOTHING)),
        Text("yes" if entry.in_doubt else NOTHING),
        Text(one_line(entry.worker or NOTHING)),
        Text(one_line(f"{entry.error_type}: {entry.message}", _ERROR_CHARACTERS) if failed else NOTHING),
    ]
