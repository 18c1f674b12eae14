"""What a storage answers: whether a saga was acquired, what a transition did, and what a scan claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sagas.outbox import OutboxTask
from sagas.progress import SagaStatus
from sagas.storage.leases import Lease
from sagas.storage.records import Claim, LogEntry, SagaRecord, SagaState


class Refusal(StrEnum):
    """Why a saga was not acquired."""

    NOT_FOUND = "not found"
    FINISHED = "finished"
    HELD = "held"
    OUTDATED = "outdated"
    WAITING = "waiting"
    PAUSED = "paused"
    DEAD = "dead"
    DIED = "died"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class NotAcquired:
    """The saga was not acquired; `record` (without its log) is its present state."""

    why: Refusal
    record: SagaRecord | None = None


@dataclass(frozen=True, slots=True)
class Acquired:
    """The saga was acquired; `record` is the saga under the lease, `status_before` its status before."""

    lease: Lease
    record: SagaRecord
    status_before: SagaStatus


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What a transition did, as the storage's own statement reports it.

    Attributes:
        status, state, recovery_attempts: the values in the record afterwards.
        available_at: when a suspended or given back saga is due; None if the saga is held, dead or finished, or waits
            without a deadline.
        log: the rows that were added, as stored.
        inbox: how many signals and requests were delivered to the saga.
        outbox: the tasks that were written to the outbox, and are to be sent.
    """

    status: SagaStatus
    state: SagaState
    recovery_attempts: int
    available_at: datetime | None
    log: tuple[LogEntry, ...] = field(default_factory=tuple)
    inbox: int = 0
    outbox: tuple[OutboxTask, ...] = ()

    def followed_by(self, last: Applied) -> Applied:
        """Return what two transitions did together."""
        return replace(last, log=(*self.log, *last.log), outbox=(*self.outbox, *last.outbox))

    @classmethod
    def with_log_on_demand(
        cls, *, status: SagaStatus, state: SagaState, inbox: int, log: Callable[[], tuple[LogEntry, ...]]
    ) -> Applied:
        """Return one of a saga that goes on or ended, its log made when somebody reads it: only observers do."""
        applied = object.__new__(cls)
        applied.__dict__.update(
            status=status, state=state, recovery_attempts=0, available_at=None, inbox=inbox, _log=log
        )
        return applied

    def __getattr__(self, name: str) -> Any:
        make = self.__dict__.get("_log") if name == "log" else None
        if make is None:
            raise AttributeError(name)
        self.__dict__["log"] = log = make()
        return log


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """What one scan did.

    Attributes:
        claims: the sagas to send messages for.
        died: the sagas that are dead now, because a crash spent their last attempt.
        lost: how many of the claims replace a message that was lost, or probe whether it is lost.
    """

    claims: tuple[Claim, ...] = ()
    died: tuple[UUID, ...] = ()
    lost: int = 0
