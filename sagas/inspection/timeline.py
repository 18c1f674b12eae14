"""What happened to a saga, row by row, in words; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sagas.inspection.waits import of_wait
from sagas.progress import Action, EntryStatus, Verdict
from sagas.storage.leases import is_shared
from sagas.storage.records import LogEntry, SagaRecord
from sagas.storage.rules import expired
from sagas.text import one_line, printable

#: A message may be long; its beginning is for a reader, the whole for `--json`.
_MESSAGE_CHARACTERS: Final = 300

#: What a step does; other rows are about the saga as a whole.
_STEP_ACTIONS: Final = (Action.ACT, Action.COMPENSATE)
_CONSEQUENCES: Final = {
    Verdict.RETRY: "; the step is retried",
    Verdict.FALLBACK: "; its fallback is tried",
    Verdict.ABORT: "; the saga aborts",
    Verdict.SET_ASIDE: "; other steps are compensated first",
    Verdict.FAIL_ATTEMPT: "; attempt {} at the saga failed",
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
    failures, before = 0, None
    waits: set[str] = set()
    for entry, seconds in zip(record.log, seconds_between(record), strict=True):
        if before is not None and _changed_hands(before, entry):
            events.append(Event(what="given back: another worker goes on", worker=before.worker))
        failures = _failures_after(entry, failures)
        if entry.status is EntryStatus.ARMED:
            waits.add(entry.step)
        events.append(
            Event(
                what=of_wait(entry, entry.step in waits) or _what(entry, failures),
                step=entry.step if entry.action in _STEP_ACTIONS and not _by_operator(entry) else None,
                at=entry.created_at,
                seconds=seconds,
                worker=entry.worker,
                bad=entry.status in (EntryStatus.FAILED, EntryStatus.LOST),
            )
        )
        before = entry
    return [*events, *_now(record, now)]


def seconds_between(record: SagaRecord) -> list[float | None]:
    """For each row of the log, the seconds since the row before it, or since the saga was started."""
    befores = [record.created_at, *(entry.created_at for entry in record.log)]
    return [
        (entry.created_at - before).total_seconds() if entry.created_at and before else None
        for entry, before in zip(record.log, befores, strict=False)
    ]


def _changed_hands(before: LogEntry, entry: LogEntry) -> bool:
    """Whether another holder wrote the row, and nothing in the log says why."""
    explained = before.action is Action.HOLDER or entry.action is Action.HOLDER
    gave_back = (
        before.verdict in (Verdict.RETRY, Verdict.FAIL_ATTEMPT)
        or before.status is EntryStatus.ARMED
        or Action.OPERATOR in (before.action, entry.action)
        or before.actor is not None
        or entry.actor is not None
    )
    return before.version < entry.version and not (explained or gave_back)


def _failures_after(entry: LogEntry, failures: int) -> int:
    """Return how many attempts at the saga had failed in a row once this row was written."""
    if entry.action in _STEP_ACTIONS and entry.status in (EntryStatus.COMPLETED, EntryStatus.SKIPPED):
        return 0
    if entry.action is Action.OPERATOR:
        return failures if entry.step == "recover" else 0
    if entry.action is Action.HOLDER and entry.status is EntryStatus.LOST:
        # As in dead_letters.crash_counts.
        return failures + (entry.version >= 2 and not is_shared(entry.worker))
    failed = entry.status is EntryStatus.FAILED
    return failures + (failed and (entry.action is Action.HOLDER or entry.verdict is Verdict.FAIL_ATTEMPT))


def _by_operator(entry: LogEntry) -> bool:
    """Whether an operator aborted the saga: such a row names the step that would have been next."""
    return entry.actor is not None and entry.verdict is Verdict.ABORT


def _what(entry: LogEntry, failures: int) -> str:
    if entry.action is Action.HOLDER:
        return _of_holder(entry, failures)
    if entry.actor is not None:
        return _of_operator(entry)
    match entry.status:
        case EntryStatus.STARTED:
            return f"{entry.action} started (older layout)"
        case EntryStatus.COMPLETED:
            return f"{entry.action} completed{f' at attempt {entry.attempt}' if entry.attempt > 1 else ''}"
        case EntryStatus.FAILED:
            doubt = ", in doubt" if entry.in_doubt else ""
            consequence = _CONSEQUENCES[entry.verdict].format(failures)
            return f"{entry.action} failed, attempt {entry.attempt}{doubt}{consequence}: {_error(entry)}"
        case _:
            return printable(f"{entry.action} {entry.status}")


def _of_holder(entry: LogEntry, failures: int) -> str:
    match entry.status:
        case EntryStatus.LOST:
            return f"holder lost: it was killed, froze or was cut off{_in_flight(entry)}"
        case EntryStatus.FAILED:
            return f"attempt {failures} at the saga failed{_in_flight(entry)}: {_error(entry)}"
        case EntryStatus.DECLINED:
            return f"declined, no attempt spent: {one_line(entry.message or '', _MESSAGE_CHARACTERS)}"
        case _:
            return printable(f"{entry.action} {entry.status}")


def _of_operator(entry: LogEntry) -> str:
    by = f"by {printable(entry.actor or '')}: {one_line(entry.reason or '', _MESSAGE_CHARACTERS)}"
    if entry.action is Action.OPERATOR:
        return f"operator: {printable(entry.step)}, {by}"
    if _by_operator(entry):
        doubt = f"; {printable(entry.step)} may have begun, so it is undone too" if entry.in_doubt else ""
        return f"operator: compensate{doubt}, {by}"
    return f"operator: {entry.action} {entry.status}, {by}"


def _in_flight(entry: LogEntry) -> str:
    """Return what the holder may have begun; nothing where any step that could begin may have."""
    if entry.in_flight is None:
        return ""
    return f"; in flight: {printable(', '.join(entry.in_flight)) or 'nothing'}"


def _error(entry: LogEntry) -> str:
    return one_line(f"{entry.error_type}: {entry.message}", _MESSAGE_CHARACTERS)


def _now(record: SagaRecord, now: datetime) -> Iterator[Event]:
    if expired(record, now):
        begun = f"; in flight: {printable(', '.join(record.in_flight))}" if record.in_flight else ""
        yield Event(
            what=f"its lease ran out: the holder was killed, froze or was cut off{begun}",
            at=record.available_at,
            worker=record.lease_owner,
            bad=True,
        )
    if record.dead:
        yield Event(
            what=f"dead, failed attempts: {record.recovery_attempts}; it waits for an operator",
            at=record.updated_at,
            bad=True,
        )
