"""What happened to a saga, row by row: its log, and what can be told from it of workers that were lost; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from sagas.progress import Action, EntryStatus, Verdict
from sagas.storage.records import LogEntry, SagaRecord
from sagas.storage.rules import expired
from sagas.text import one_line, printable

#: A message may be long; its beginning is for a reader, the whole for `--json`.
_MESSAGE_CHARACTERS: Final = 300

_CONSEQUENCES: Final = {
    Verdict.RETRY: "the step is retried",
    Verdict.ABORT: "the saga aborts",
    Verdict.FAIL_ATTEMPT: "a recovery attempt failed",
    None: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        what: in words.
        step: whose; None for what happened to the saga as a whole.
        at: when; None where nothing tells.
        seconds: since the row before, or since the saga was started.
        worker: who did it, or to whom it happened.
        bad: whether something failed.
    """

    what: str
    step: str | None = None
    at: datetime | None = None
    seconds: float | None = None
    worker: str | None = None
    bad: bool = False


def timeline(record: SagaRecord, now: datetime) -> list[Event]:
    """Return what happened, the oldest first."""
    events: list[Event] = []
    seconds = seconds_between(record)
    for place, (before, entry) in enumerate(pairwise([None, *record.log])):
        assert entry is not None
        if before is not None and _changed_hands(before, entry):
            events.append(Event(what="another worker goes on: this one gave the saga back", worker=before.worker))
        of_saga = entry.action in (Action.OPERATOR, Action.HOLDER) or _is_abort(entry)
        events.append(
            Event(
                what=_what(entry),
                step=None if of_saga else entry.step,
                at=entry.created_at,
                seconds=seconds[place],
                worker=entry.worker,
                bad=entry.status in (EntryStatus.FAILED, EntryStatus.LOST),
            )
        )
    events += _now(record, now)
    return events


def seconds_between(record: SagaRecord) -> list[float | None]:
    """For each row of the log, the seconds since the row before it, or since the saga was started."""
    befores = [record.created_at, *(entry.created_at for entry in record.log)]
    return [
        (entry.created_at - before).total_seconds() if entry.created_at and before else None
        for entry, before in zip(record.log, befores, strict=False)
    ]


def _changed_hands(before: LogEntry, entry: LogEntry) -> bool:
    """Whether another holder wrote the row, and nothing in the log says why."""
    explained = before.action is Action.HOLDER
    gave_back = before.verdict in (Verdict.RETRY, Verdict.FAIL_ATTEMPT) or before.by is not None or entry.by is not None
    return before.version < entry.version and not (explained or gave_back)


def _is_abort(entry: LogEntry) -> bool:
    return entry.by is not None and entry.verdict is Verdict.ABORT


def _what(entry: LogEntry) -> str:
    by = f"{printable(entry.by or '')}: {one_line(entry.because or '', _MESSAGE_CHARACTERS)}"
    if entry.action is Action.HOLDER:
        begun = f"; it may have begun {printable(', '.join(entry.in_flight))}" if entry.in_flight else ""
        return f"the worker was lost: it was killed, froze or was cut off{begun}"
    if entry.action is Action.OPERATOR:
        return f"operator: {printable(entry.step)}, by {by}"
    if _is_abort(entry):
        doubt = f"; {printable(entry.step)} may have begun, so it is undone too" if entry.in_doubt else ""
        return f"operator: compensate{doubt}, by {by}"
    if entry.status is EntryStatus.SKIPPED:
        return f"operator: {entry.action} skipped, by {by}"
    if entry.status is EntryStatus.STARTED:
        return f"{entry.action} started (older layout)"
    if entry.status is EntryStatus.COMPLETED:
        return f"{entry.action} completed{f' at attempt {entry.attempt}' if entry.attempt > 1 else ''}"
    parts = [f"{entry.action} failed, attempt {entry.attempt}", *["in doubt"] * entry.in_doubt]
    consequence = _CONSEQUENCES[entry.verdict]
    message = one_line(f"{entry.error_type}: {entry.message}", _MESSAGE_CHARACTERS)
    return f"{', '.join(parts)}{f'; {consequence}' if consequence else ''}: {message}"


def _now(record: SagaRecord, now: datetime) -> Iterator[Event]:
    if expired(record, now):
        yield Event(
            what="its lease ran out: the worker was killed, froze or was cut off",
            at=record.available_at,
            worker=record.lease_owner,
            bad=True,
        )
    if record.dead:
        yield Event(
            what=f"dead, failed recovery attempts: {record.recovery_attempts}; it waits for an operator",
            at=record.updated_at,
            bad=True,
        )
