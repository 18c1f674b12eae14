"""What keeps a saga, and what happens to it next, in words; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sagas.cli.render import one_line, utc, when
from sagas.errors import SagaError
from sagas.plan import plan_as_started
from sagas.progress import Action, End, next_move
from sagas.registry import Registry
from sagas.storage.operator_answers import Surroundings
from sagas.storage.records import SagaRecord
from sagas.storage.XXX import PAUSED, QUEUE
from sagas.text import printable


class Standing(StrEnum):
    """Who may act on a saga next."""

    FINISHED = "finished"
    PAUSED = "paused"
    DEAD = "dead"
    QUEUED = "queued"
    OVERDUE = "overdue"
    HELD = "held"
    EXPIRED = "expired"
    WAITING = "waiting"
    DUE = "due"


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What a saga does when it goes on; only `words` if it merely ends, or if that is not known here."""

    words: str
    step: str | None = None
    action: Action | None = None
    attempt: int | None = None


def standing(record: SagaRecord, now: datetime) -> Standing:
    """Return how the saga stands at this time."""
    if record.status.finished:
        return Standing.FINISHED
    if record.lease_owner == PAUSED:
        return Standing.PAUSED
    if record.dead:
        return Standing.DEAD
    later = record.available_at is None or record.available_at > now
    if record.lease_owner == QUEUE:
        return Standing.QUEUED if later else Standing.OVERDUE
    if record.lease_owner is not None:
        return Standing.HELD if later else Standing.EXPIRED
    return Standing.WAITING if later else Standing.DUE


def in_brief(record: SagaRecord, now: datetime) -> str:
    """Return who holds the saga or until when it waits, short enough for a list."""
    owner = printable(record.lease_owner or "")
    match standing(record, now):
        case Standing.FINISHED:
            return ""
        case Standing.HELD:
            return f"held by {owner}"
        case Standing.EXPIRED:
            return f"lease of {owner} ran out"
        case Standing.WAITING:
            return f"until {utc(record.available_at)}"
        case Standing.QUEUED | Standing.OVERDUE:
            return "in the queue"
        case other:
            return str(other)


def in_words(record: SagaRecord, now: datetime, surroundings: Surroundings | None = None) -> str:
    """Return who holds the saga until when, or what happens to it next and when.

    Args:
        record: the saga.
        now: what ages are counted from.
        surroundings: whether its name is paused, and whether it is asked back.
    """
    return "; ".join([_by_itself(record, now), *_by_operators(record, now, surroundings)])


def _by_itself(record: SagaRecord, now: datetime) -> str:
    owner, until = printable(record.lease_owner or ""), when(record.available_at, now)
    match standing(record, now):
        case Standing.FINISHED:
            return "nothing more happens to it"
        case Standing.DEAD:
            return f"dead: see to the cause, then `sagas recover {record.id}` runs it once more"
        case Standing.PAUSED:
            name = printable(record.name)
            return f"its name is paused: `sagas resume {name}` lets it go on, `sagas recover {record.id}` too"
        case Standing.QUEUED:
            return "in the queue: the next worker that is free takes it"
        case Standing.OVERDUE:
            return (
                "in the queue: the next worker that is free takes it, or, if its message is gone from the broker, "
                "the next scans send it again"
            )
        case Standing.HELD:
            return f"held by {owner} until {until}, renewed while that worker lives"
        case Standing.EXPIRED:
            return f"the lease of {owner} ran out at {until}: the next scan sends it to another worker"
        case Standing.WAITING:
            return f"waits until {until}; the next scan after that sends it to a worker"
        case Standing.DUE:
            return f"due since {until}: the next scan sends it to a worker"


def _by_operators(record: SagaRecord, now: datetime, surroundings: Surroundings | None) -> Iterable[str]:
    state = standing(record, now)
    if surroundings is None or state in (Standing.FINISHED, Standing.DEAD):
        return
    if surroundings.asked_back_by is not None and state is Standing.HELD:
        yield f"{printable(surroundings.asked_back_by)} asked it back: given back at the next step's boundary"
    if (pause := surroundings.pause) is not None:
        effect = {
            Standing.PAUSED: "paused",
            Standing.HELD: "its name is paused, so it is given back at the next step's boundary and parked;",
        }.get(state, "its name is paused, so it is parked instead;")
        yield f"{effect} by {printable(pause.by)} since {utc(pause.since)}: {one_line(pause.because)}"


def next_step(record: SagaRecord, registry: Registry | SagaError) -> NextStep | None:
    """Return what the saga does when it goes on, as this process's code has it; None for a finished one.

    Args:
        record: the saga with its log.
        registry: the code, or why there is none.
    """
    if record.status.finished:
        return None
    try:
        if isinstance(registry, SagaError):
            raise registry
        saga = registry.fitting(record.name, record.definition_version)
        move = next_move(plan_as_started(saga, record.definition_version), record.log)
    except SagaError as error:
        return NextStep(words=f"unknown to this shell: {one_line(str(error))}")
    if isinstance(move, End):
        return NextStep(words=f"none is left: it ends as {move.status}")
    begun = ", which may have begun before" if record.interrupted else ""
    words = f"{move.action} {printable(move.step.name)}, attempt {move.attempt}{begun}"
    return NextStep(words=words, step=move.step.name, action=move.action, attempt=move.attempt)
