"""What counting a failed attempt does to a saga: one rule for both storages, as a function of the saga's record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sagas.errors import IllegalStatusChange
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict, aborted
from sagas.storage.contract import MOST_ATTEMPTS
from sagas.storage.records import LogEntry, SagaRecord, SagaState
from sagas.storage.rules import expired, reclaim

_COMMAND: Final = "increment_recovery_attempts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedAttempt:
    """How a saga stands after one more failed attempt.

    Attributes:
        status, state, suspect: as in its record.
        freed: whether it becomes due at once, because the lease of a lost holder ends.
        events: rows for its log.
    """

    status: SagaStatus
    state: SagaState
    suspect: bool
    freed: bool = False
    events: tuple[LogEntry, ...] = ()


def count_attempt(record: SagaRecord, new_status: SagaStatus, *, now: datetime) -> CountedAttempt:
    """Return what becomes of a saga when a failed attempt is counted and its status set.

    | from | to | |
    |---|---|---|
    | any | the same | legal, whoever holds the saga |
    | COMPLETED, COMPENSATED | any other | refused: it has ended |
    | any | COMPLETED, COMPENSATED | refused: a failed attempt ends no saga |
    | any other | PENDING | refused: it has begun |
    | any, held by a worker or dead | any other | refused |
    | any that has begun to compensate | RUNNING | refused: it never runs forward again |
    | any that has not | COMPENSATING | legal: it is aborted, in its log too |
    | the rest | | legal |

    Args:
        record: the saga with its log, as it stands.
        new_status: what its status is to be.
        now: the storage's time.

    Raises:
        IllegalStatusChange: as the table says.
    """
    before = record.status
    if new_status is before:
        return CountedAttempt(status=before, state=record.state, suspect=record.suspect)
    lost = expired(record, now)
    has_aborted = before is SagaStatus.COMPENSATING or aborted(record.log)
    if before.finished:
        reason = "it has ended"
    elif new_status.finished:
        reason = "a failed attempt does not end a saga"
    elif new_status is SagaStatus.PENDING:
        reason = "it has begun"
    elif record.state is SagaState.RUNNING and not lost:
        reason = f"{record.lease_owner} holds it and decides its status; wait until its lease is over"
    elif record.dead:
        reason = "it is dead; set_recovery_attempts() makes it due again"
    elif new_status is SagaStatus.RUNNING and has_aborted:
        reason = "it has begun to compensate and never runs forward again"
    else:
        events = []
        if lost:
            reclaimed = reclaim(record, now, max_recovery_attempts=MOST_ATTEMPTS)
            events.append(reclaimed.event)
        if new_status is SagaStatus.COMPENSATING and not has_aborted:
            events.append(_abort(record))
        return CountedAttempt(
            status=new_status,
            state=SagaState.READY if lost else record.state,
            suspect=reclaimed.record.suspect if lost else record.suspect,
            freed=lost,
            events=tuple(events),
        )
    raise IllegalStatusChange(f"saga {record.id} is {before} and cannot be set to {new_status}: {reason}.")


def _abort(record: SagaRecord) -> LogEntry:
    return LogEntry(
        step=_COMMAND,
        action=Action.OPERATOR,
        status=EntryStatus.COMPLETED,
        version=record.version,
        verdict=Verdict.TURN_BACK,
        by=_COMMAND,
        because="the status was set to COMPENSATING",
    )
