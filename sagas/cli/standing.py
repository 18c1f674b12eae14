"""What keeps a saga, and what happens to it next, in words; pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sagas.cli.words import one_line, utc, when
from sagas.storage.base import PAUSED, QUEUE, SagaRecord


class Standing(StrEnum):
    """Who may act on a saga next."""

    FINISHED = "finished"
    DEAD = "dead"
    QUEUED = "queued"
    HELD = "held"
    EXPIRED = "expired"
    WAITING = "waiting"
    PAUSED = "paused"
    DUE = "due"


def standing(record: SagaRecord, now: datetime) -> Standing:
    """Return how the saga stands at this time."""
    if record.status.finished:
        return Standing.FINISHED
    if record.dead:
        return Standing.DEAD
    if record.lease_owner == QUEUE:
        return Standing.QUEUED
    if record.lease_owner == PAUSED:
        return Standing.PAUSED
    later = record.available_at is None or record.available_at > now
    if record.lease_owner is not None:
        return Standing.HELD if later else Standing.EXPIRED
    return Standing.WAITING if later else Standing.DUE


def in_brief(record: SagaRecord, now: datetime) -> str:
    """Return who holds the saga or until when it waits, short enough for a list."""
    owner = one_line(record.lease_owner or "")
    match standing(record, now):
        case Standing.FINISHED:
            return ""
        case Standing.HELD:
            return f"held by {owner}"
        case Standing.EXPIRED:
            return f"lease of {owner} ran out"
        case Standing.WAITING:
            return f"until {utc(record.available_at)}"
        case Standing.QUEUED:
            return "in the queue"
        case other:
            return str(other)


def in_words(record: SagaRecord, now: datetime) -> str:
    """Return who holds the saga until when, or what happens to it next and when."""
    owner, until = one_line(record.lease_owner or ""), when(record.available_at, now)
    match standing(record, now):
        case Standing.FINISHED:
            return "nothing more happens to it"
        case Standing.DEAD:
            return f"dead: see to the cause, then `sagas recover {record.id}` runs it once more"
        case Standing.PAUSED:
            return f"its name is paused: `sagas resume {record.name}` lets it go on, `sagas recover {record.id}` too"
        case Standing.QUEUED:
            return "in the queue: the next worker that is free takes it"
        case Standing.HELD:
            return f"held by {owner} until {until}, renewed while that worker lives"
        case Standing.EXPIRED:
            return f"the lease of {owner} ran out at {until}: the next scan sends it to another worker"
        case Standing.WAITING:
            return f"waits until {until}; the next scan after that sends it to a worker"
        case Standing.DUE:
            return f"due since {until}: the next scan sends it to a worker"
