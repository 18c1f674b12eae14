"""Describes who may act on a saga next, and when, from its state and whether it is due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sagas.duration import utc, when
from sagas.inspection.models import SagaDetails
from sagas.inspection.view import waiting_for
from sagas.storage.records import SagaRecord, SagaState
from sagas.text import one_line, printable


def in_brief(record: SagaRecord, now: datetime) -> str:
    """Return who holds the saga, or until when it waits, in few words for a list."""
    match record.state:
        case SagaState.FINISHED:
            return ""
        case SagaState.QUEUED:
            return "in the queue"
        case SagaState.RUNNING:
            owner = printable(record.lease_owner or "")
            return f"lease of {owner} ran out" if record.due(now) else f"held by {owner}"
        case SagaState.WAITING if record.available_at is None:
            return "for a signal"
        case SagaState.READY | SagaState.WAITING:
            return "due" if record.due(now) else f"until {utc(record.available_at)}"
        case SagaState.PAUSED | SagaState.DEAD:
            return str(record.state)


def in_words(details: SagaDetails) -> str:
    """Return who holds the saga and until when, or what happens to it next, and what operators have asked for."""
    return "; ".join([_by_itself(details.record, details.now), *_by_operators(details)])


def _by_itself(record: SagaRecord, now: datetime) -> str:
    owner, until, due = printable(record.lease_owner or ""), when(record.available_at, now), record.due(now)
    match record.state:
        case SagaState.FINISHED:
            return "nothing more happens to it"
        case SagaState.DEAD:
            return f"dead: see to the cause, then `sagas recover {record.id}` runs it once more"
        case SagaState.PAUSED:
            name = printable(record.name)
            return f"its name is paused: `sagas resume {name}` lets it go on, `sagas recover {record.id}` too"
        case SagaState.QUEUED:
            again = "; the next scans send it again if its message is lost" if due else ""
            return f"in the queue: the next worker that is free takes it{again}"
        case SagaState.RUNNING if due:
            return f"the lease of {owner} ran out at {until}: the next scan sends it to another worker"
        case SagaState.RUNNING:
            return f"held by {owner} until {until}, renewed while that worker lives"
        case SagaState.WAITING if not due:
            limit = "without a limit" if record.available_at is None else f"until {until}"
            return f"waits for {printable(' and '.join(waiting_for(record))) or 'a signal'}, {limit}"
        case SagaState.READY | SagaState.WAITING:
            if due:
                return f"due since {until}: the next scan sends it to a worker"
            return f"waits until {until}; the next scan after that sends it to a worker"


def _by_operators(details: SagaDetails) -> Iterator[str]:
    record, pause = details.record, details.pause
    if record.state in (SagaState.FINISHED, SagaState.DEAD):
        return
    held = record.state is SagaState.RUNNING and not record.due(details.now)
    if details.yield_requested_by is not None and held:
        yield f"{printable(details.yield_requested_by)} asked it back: given back at the next step's boundary"
    if pause is not None:
        effect = "its name is paused, so it is paused instead;"
        if record.state is SagaState.PAUSED:
            effect = "paused"
        elif held:
            effect = "its name is paused, so it is given back at the next step's boundary and paused;"
        yield f"{effect} by {printable(pause.actor)} since {utc(pause.since)}: {one_line(pause.reason)}"
