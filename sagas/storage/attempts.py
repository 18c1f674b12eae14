"""What counting a failed attempt does to a saga: one rule for both storages, as a function of the saga's record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sagas.errors import IllegalStatusChange
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict, turned_back
from sagas.storage.base import PAUSED, QUEUE, LogEntry, SagaRecord

_COMMAND: Final = "increment_recovery_attempts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedAttempt:
    """How a saga stands after one more failed attempt.

    Attributes:
        status: its status.
        interrupted: as in its record.
        frees: whether the lease of a holder that is gone ends.
        note: a row for its log.
    """

    status: SagaStatus
    interrupted: bool
    frees: bool = False
    note: LogEntry | None = None


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
        return CountedAttempt(status=before, interrupted=record.interrupted)
    holder = None if record.lease_owner in (QUEUE, PAUSED) else record.lease_owner
    expired = holder is not None and record.available_at is not None and record.available_at <= now
    aborted = before is SagaStatus.COMPENSATING or turned_back(record.log)
    if before.finished:
        reason = "it has ended"
    elif new_status.finished:
        reason = "a failed attempt does not end a saga"
    elif new_status is SagaStatus.PENDING:
        reason = "it has begun"
    elif holder is not None and not expired:
        reason = f"{holder} holds it and decides its status; wait until its lease is over"
    elif record.dead:
        reason = "it is dead; set_recovery_attempts() makes it due again"
    elif new_status is SagaStatus.RUNNING and aborted:
        reason = "it has begun to compensate and never runs forward again"
    else:
        aborts = new_status is SagaStatus.COMPENSATING and not aborted
        interrupted = record.interrupted or expired
        return CountedAttempt(
            status=new_status,
            # What may have begun is in doubt from now on, by the note.
            interrupted=interrupted and not aborts,
            frees=expired,
            note=_abort(record, in_doubt=interrupted) if aborts else None,
        )
    raise IllegalStatusChange(f"saga {record.id} is {before} and cannot be set to {new_status}: {reason}.")


def _abort(record: SagaRecord, *, in_doubt: bool) -> LogEntry:
    return LogEntry(
        step=_COMMAND,
        action=Action.OPERATOR,
        status=EntryStatus.COMPLETED,
        version=record.version,
        verdict=Verdict.TURN_BACK,
        in_doubt=in_doubt,
        by=_COMMAND,
        because="the status was set to COMPENSATING",
    )
