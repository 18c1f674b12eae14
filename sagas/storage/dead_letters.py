"""Dead letters: sagas whose attempts are spent. They wait for an operator, or for a request to cancel them.

A failed attempt counts, and so does the crash of a worker. Progress resets the number of attempts.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sagas.progress import SagaStatus
from sagas.storage.leases import is_shared
from sagas.storage.records import SagaRecord, SagaState


def crash_counts(record: SagaRecord) -> bool:
    """Whether the loss of the saga's holder spends an attempt.

    The first lease is not a recovery, so its loss is not a failed recovery. The loss of a process that may have held
    other sagas spends no attempt either, because another saga may have caused the crash.
    """
    return record.version >= 2 and not is_shared(record.lease_owner)


def dies(record: SagaRecord, *, max_recovery_attempts: int) -> bool:
    """Whether the loss of the saga's holder spends its last attempt."""
    return crash_counts(record) and record.recovery_attempts + 1 >= max_recovery_attempts


def spent(record: SagaRecord, *, max_recovery_attempts: int) -> bool:
    """Whether a saga that has begun has no attempt left."""
    return record.status is not SagaStatus.PENDING and record.recovery_attempts >= max_recovery_attempts


def dead(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a saga that nobody holds after its attempts are spent."""
    return replace(record, status=SagaStatus.FAILED, state=SagaState.DEAD, available_at=None, updated_at=now)


def revived(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a dead saga after it is made ready and due at once."""
    return replace(record, state=SagaState.READY, available_at=now)
