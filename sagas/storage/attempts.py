"""Rules for counting and setting failed attempts, as functions of a saga's record. Both storages use them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sagas.errors import IllegalStatusChange
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict, aborted
from sagas.storage import dead_letters
from sagas.storage.arguments import MOST_ATTEMPTS
from sagas.storage.records import LogEntry, SagaRecord, SagaState
from sagas.storage.rules import expired, reclaim

_COMMAND: Final = "increment_recovery_attempts"


@dataclass(frozen=True, slots=True)
class CountedAttempt:
    """A saga after one more failed attempt, and the rows that its log gets."""

    record: SagaRecord
    events: tuple[LogEntry, ...] = ()


def count_attempt(record: SagaRecord, new_status: SagaStatus | None, *, now: datetime) -> CountedAttempt:
    """Return a saga after one more failed attempt is counted, and its status set if one is given.

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
        record: the saga with its log.
        new_status: the new status, or None to leave it.
        now: the storage's time.

    Raises:
        IllegalStatusChange: as the table says.
    """
    before = record.status
    counted = replace(record, recovery_attempts=min(record.recovery_attempts + 1, MOST_ATTEMPTS), updated_at=now)
    if new_status is None or new_status is before:
        return CountedAttempt(counted)
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
            reclaimed = reclaim(record, now, max_recovery_attempts=MOST_ATTEMPTS + 2)
            events.append(reclaimed.event)
            counted = replace(
                reclaimed.record, recovery_attempts=counted.recovery_attempts, last_error=record.last_error
            )
        elif record.state is SagaState.WAITING:
            counted = replace(counted, state=SagaState.READY, available_at=now)
        if new_status is SagaStatus.COMPENSATING and not has_aborted:
            events.append(_abort(record))
        return CountedAttempt(replace(counted, status=new_status), tuple(events))
    raise IllegalStatusChange(f"saga {record.id} is {before} and cannot be set to {new_status}: {reason}.")


def set_attempts(record: SagaRecord, attempts: int, *, now: datetime) -> SagaRecord:
    """Return a saga after its number of failed attempts is set. A dead saga becomes ready and due at once."""
    if not record.dead:
        return replace(record, recovery_attempts=attempts)
    return dead_letters.revived(replace(record, recovery_attempts=attempts), now)


def _abort(record: SagaRecord) -> LogEntry:
    return LogEntry(
        step=_COMMAND,
        action=Action.OPERATOR,
        status=EntryStatus.COMPLETED,
        version=record.version,
        verdict=Verdict.ABORT,
        actor=_COMMAND,
        reason="the status was set to COMPENSATING",
    )
