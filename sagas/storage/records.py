"""The records that a storage keeps: sagas, rows of their logs, signals, definitions. All are plain and immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from sagas.progress import Action, Entry, EntryStatus, Move, SagaStatus, Verdict
from sagas.storable import require_storable
from sagas.storage.leases import LeaseRequest

#: What a start does if a saga has its idempotency key already: return that saga, or raise `AlreadyStarted`.
OnConflict = Literal["return", "raise"]


class SagaState(StrEnum):
    """Who may act on a saga now. `sagas.storage.rules` has the table of states and what each implies.

    READY: free, and due at `available_at`. QUEUED: a message for it is in the broker. RUNNING: a worker holds its
    lease. WAITING: for a signal, a timer or a child. PAUSED: an operator paused its name. DEAD: its attempts are
    spent. FINISHED: it has ended for good.
    """

    READY = "ready"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    DEAD = "dead"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Claim:
    """A saga that is queued: a message is to be sent for it.

    Attributes:
        saga_id: the saga.
        version: the message is void once the saga has another version.
        pending: whether the saga never ran; messages for such sagas have a queue of their own.
        queued_at: when the saga was queued, by the storage's clock. Messages are first in, first out, so this time
            shows which other messages are lost. None if the saga was sent by its start: the storage knows that time.
    """

    saga_id: UUID
    version: int
    pending: bool = False
    queued_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Entry):
    """One row of the log with all its columns.

    Attributes:
        actor, reason: who wrote it and why, if an operator did, or who sent the signal that it is about.
        signal: the signal that it is about: its id, when it was sent, and its payload.
    """

    version: int = 0
    worker: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    actor: str | None = None
    reason: str | None = None
    signal: Mapping[str, Any] | None = None
    id: int = 0
    created_at: datetime | None = None

    @classmethod
    def of(cls, move: Move, status: EntryStatus, **columns: Any) -> LogEntry:
        """Return the row that says how this attempt at an action ended."""
        return cls(step=move.node.name, action=move.action, attempt=move.attempt, status=status, **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRecord:
    """One saga as stored.

    Attributes:
        context: JSON text, byte for byte as it was written.
        available_at: a time whose meaning depends on the state; None is infinity.
        definition: hash of the definition that the saga was started with; None for a saga of version 0.1.0.
        definition_version: what version 0.1.0 stored instead of a definition.
        in_flight: the steps that the holder may have begun since its last write; None for any that could begin.
        suspect: whether its process crashed while it held other sagas too. The saga then runs alone until it makes
            progress.
        root_id, depth: the saga's place in a family of sagas. Rows are locked in this order.
        traceparent: the W3C trace context in which the saga was started.
        inbox: how many signals and requests were delivered to the saga.
        deadline_at: when the saga is to have ended; None if it has no deadline.
        tags: what its program wants to find it by.
    """

    id: UUID
    name: str
    status: SagaStatus
    state: SagaState
    context: str
    version: int
    recovery_attempts: int
    lease_owner: str | None
    available_at: datetime | None
    last_error: str | None
    idempotency_key: str | None
    definition: str | None
    definition_version: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    root_id: UUID
    depth: int = 0
    lease_token: UUID | None = None
    in_flight: tuple[str, ...] | None = None
    suspect: bool = False
    traceparent: str | None = None
    inbox: int = 0
    deadline_at: datetime | None = None
    tags: Mapping[str, str] | None = None
    log: tuple[LogEntry, ...] = ()

    @property
    def dead(self) -> bool:
        """Whether all recovery attempts are spent, so that only an operator can acquire the saga."""
        return self.state is SagaState.DEAD

    def due(self, now: datetime) -> bool:
        """Whether `available_at` has passed."""
        return self.available_at is not None and self.available_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSaga:
    """A saga to be stored.

    Attributes:
        traceparent: the W3C trace context in which it was started.
        tags: what its program wants to find it by.
        deadline_seconds: how long after its start it is to have ended; None for no deadline.

    Raises:
        UnstorableText: its name or key has a character that no database can store.
    """

    id: UUID
    name: str
    context: str
    idempotency_key: str | None = None
    definition: str | None = None
    definition_version: str = ""
    traceparent: str | None = None
    tags: Mapping[str, str] | None = None
    deadline_seconds: float | None = None

    def __post_init__(self) -> None:
        require_storable(name=self.name, idempotency_key=self.idempotency_key)

    def as_record(
        self,
        *,
        now: datetime,
        lease: LeaseRequest | None = None,
        state: SagaState = SagaState.READY,
        due: datetime | None = None,
    ) -> SagaRecord:
        """Return the record of the stored saga, in this state or under its first lease, due at this time."""
        begins = due or now
        return SagaRecord(
            id=self.id,
            name=self.name,
            status=SagaStatus.RUNNING if lease else SagaStatus.PENDING,
            state=SagaState.RUNNING if lease else state,
            context=self.context,
            version=1 if lease else 0,
            recovery_attempts=0,
            lease_owner=lease.owner if lease else None,
            lease_token=lease.token if lease else None,
            available_at=due,
            last_error=None,
            idempotency_key=self.idempotency_key,
            definition=self.definition,
            definition_version=self.definition_version,
            created_at=now,
            updated_at=now,
            finished_at=None,
            root_id=self.id,
            traceparent=self.traceparent,
            tags=self.tags,
            deadline_at=None if self.deadline_seconds is None else begins + timedelta(seconds=self.deadline_seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaHead:
    """What can be read of a saga without its context and its log. Its attributes are those of `SagaRecord`."""

    id: UUID
    name: str
    status: SagaStatus
    state: SagaState
    definition: str | None
    definition_version: str


class SignalKind(StrEnum):
    """What was sent to a saga: SIGNAL: a signal for a wait. CANCEL: a request to abort it."""

    SIGNAL = "signal"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Something that was sent to a saga from outside.

    Attributes:
        saga_id: the saga.
        kind: what it asks for.
        name: the wait that it is for; empty for a request to cancel.
        signal_id: the sender's name for it. The same one twice is one signal.
        payload: JSON text, or None.
        actor, reason: who sent it and why, if known.
        id: its place among all signals, once it is stored.
        sent_at: when it was stored.

    Raises:
        UnstorableText: a text has a character that no database can store.
    """

    saga_id: UUID
    kind: SignalKind = SignalKind.SIGNAL
    name: str = ""
    signal_id: str
    payload: str | None = None
    actor: str | None = None
    reason: str | None = None
    id: int = field(default=0, compare=False)
    sent_at: datetime | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_storable(name=self.name, signal_id=self.signal_id, actor=self.actor, reason=self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The stored graph of a saga class. Each distinct graph is stored once.

    Attributes:
        hash: SHA-256 of the name and the graph, in hexadecimal digits.
        name: the saga's name.
        graph: JSON.
    """

    hash: str
    name: str
    graph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A paused saga name: who paused it, why, and since when."""

    name: str
    actor: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleTicks:
    """What a storage knows of some schedules.

    Attributes:
        now: the storage's time.
        last: by schedule, the last tick that was noted; for one that was not known before, the time now.
    """

    now: datetime
    last: Mapping[str, datetime]


def completed(step: str, action: Action, attempt: int = 1) -> LogEntry:
    """Return a log row of an action that completed."""
    return LogEntry(step=step, action=action, status=EntryStatus.COMPLETED, attempt=attempt)


def failed(step: str, action: Action, verdict: Verdict, attempt: int = 1, *, in_doubt: bool = False) -> LogEntry:
    """Return a log row of an action that failed."""
    return LogEntry(
        step=step, action=action, status=EntryStatus.FAILED, attempt=attempt, verdict=verdict, in_doubt=in_doubt
    )


def note(command: str, *, actor: str, reason: str) -> LogEntry:
    """Return a log row of an operator action on the saga.

    Raises:
        UnstorableText: an argument has a character that no database can store.
    """
    require_storable(command=command, actor=actor, reason=reason)
    return LogEntry(step=command, action=Action.OPERATOR, status=EntryStatus.COMPLETED, actor=actor, reason=reason)


def utc_now() -> datetime:
    """Return this machine's time, for storages that have no clock of their own."""
    return datetime.now(UTC)
