"""The storage contract: what an engine needs from a database, and what it may rely on.

Every write of a worker is *fenced*: it names the hold (saga, version, owner) it was made under and changes nothing
once the saga has been taken by anybody else. All times are the storage's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from numbers import Integral
from typing import Any, Final, Literal, Self
from uuid import UUID

from sagas.errors import LeaseLost, SagaExists, SagaNotFound
from sagas.progress import Action, Entry, EntryStatus, SagaStatus, Verdict
from sagas.storable import require_storable
from sagas.storage.transactions import CallersTransaction, callers_transaction

DEFAULT_MAX_RECOVERY_ATTEMPTS: Final = 5
#: The largest number of rows or seconds that a storage takes.
LARGEST: Final = 2**31 - 1
#: The largest number of failed attempts: far enough below what the column holds that statements can add to it.
MOST_ATTEMPTS: Final = 1_000_000_000
#: Holder of a saga for which a message is in the broker.
QUEUE: Final = "queue"
#: Holder of a saga whose name is paused: nothing picks it up by itself until the name is resumed.
PAUSED: Final = "paused"
#: What a start does when its idempotency key is taken: return the saga that has it, or raise `AlreadyStarted`.
OnConflict = Literal["return", "raise"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A worker's claim on a saga: the fencing token (`version`) and who holds it."""

    saga_id: UUID
    version: int
    owner: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A saga marked for dispatch, at the version for which its message is sent."""

    saga_id: UUID
    version: int
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Entry):
    """One row of the log, whole; `by` and `because` if a person wrote it."""

    version: int = 0
    worker: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    by: str | None = None
    because: str | None = None
    id: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRecord:
    """One saga as stored."""

    id: UUID
    name: str
    status: SagaStatus
    context: str
    version: int
    recovery_attempts: int
    lease_owner: str | None
    available_at: datetime | None
    last_error: str | None
    idempotency_key: str | None
    definition_version: str
    interrupted: bool
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    traceparent: str | None = None
    log: tuple[LogEntry, ...] = ()

    @property
    def dead(self) -> bool:
        """Whether recovery gave the saga up: `available_at` is infinity, shown as None, and its name is not paused."""
        return self.status is SagaStatus.FAILED and self.available_at is None and self.lease_owner is None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSaga:
    """A saga to be stored; `traceparent` is the W3C trace context that it was started in.

    Raises:
        UnstorableText: its name or key holds what no database can.
    """

    id: UUID
    name: str
    context: str
    idempotency_key: str | None = None
    definition_version: str = ""
    traceparent: str | None = None

    def __post_init__(self) -> None:
        require_storable(name=self.name, idempotency_key=self.idempotency_key)

    def as_record(self, hold: Hold) -> SagaRecord:
        """The saga as it stands once it is stored under its first hold, without asking for it."""
        now = datetime.now(UTC)
        return SagaRecord(
            id=self.id,
            name=self.name,
            status=SagaStatus.RUNNING,
            context=self.context,
            version=hold.version,
            recovery_attempts=0,
            lease_owner=hold.owner,
            available_at=None,
            last_error=None,
            idempotency_key=self.idempotency_key,
            definition_version=self.definition_version,
            interrupted=False,
            created_at=now,
            updated_at=now,
            finished_at=None,
            traceparent=self.traceparent,
        )


class Refusal(StrEnum):
    """Why a saga was not taken."""

    NOT_FOUND = "not found"
    FINISHED = "finished"
    HELD = "held"
    OUTDATED = "outdated"
    WAITING = "waiting"
    PAUSED = "paused"
    DEAD = "dead"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Refused:
    """The saga was not taken; `record` (without its log) tells how it stands."""

    why: Refusal
    record: SagaRecord | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The saga was taken; `record` is as it stands under the hold, `status_before` as it was before."""

    hold: Hold
    record: SagaRecord
    status_before: SagaStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How a saga is given back.

    Attributes:
        status: what it is from now on.
        after_seconds: how long nobody else may pick it up; None: never by itself (dead).
        failed_attempt: counts one more recovery attempt; dead instead, once `max_recovery_attempts` is reached.
        interrupted: whether the step in progress may have begun.
        to_queue: marks it as dispatched for `after_seconds`, because a message is about to be sent.
        last_error: the reason, kept for the operator; None leaves the one that stands.
    """

    status: SagaStatus
    after_seconds: float = 0.0
    failed_attempt: bool = False
    max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS
    interrupted: bool = False
    to_queue: bool = False
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What an operator does to a saga: a row for its log, and how it stands from then on; with no `release` it ends."""

    entry: LogEntry
    status: SagaStatus
    release: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """What one scan did: what to dispatch, whose crash reached the maximum, whose message was found missing."""

    claims: tuple[Claim, ...] = ()
    died: tuple[UUID, ...] = ()
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A saga name that is paused: by whom, why, and since when."""

    name: str
    by: str
    because: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """What a listing shows: the newest first.

    Raises:
        UnstorableText: the name holds what no database can.
    """

    statuses: Sequence[SagaStatus] = ()
    name: str | None = None
    dead: bool | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        require_storable(name=self.name)


class ISagaStorage(ABC):
    """What an engine stores sagas in. Subclass it, and prove it with `sagas.testing.StorageContract`.

    Raises:
        TypeError: a subclass that lacks a method is constructed; the message names every missing one.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise TypeError(
                f"{cls.__name__} lacks {', '.join(f'{name}()' for name in missing)}, which every saga storage must "
                "have: add it as docs/storage.md describes (see its upgrade notes)."
            )
        return super().__new__(cls)

    # -- the public contract of recovery ----------------------------------------------------------------------

    @abstractmethod
    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        """Return the ids of sagas that need recovery, the oldest first; nothing is marked or locked.

        They are RUNNING, COMPENSATING or FAILED, due (under no live lease, in no queue, not backing off), and have
        fewer than `max_recovery_attempts` failed attempts.

        Args:
            limit: how many at most, 1 or more.
            max_recovery_attempts: sagas with this many or more failed attempts are left out.
            stale_after_seconds: only those last updated longer ago than this.
            saga_name: only those of this name.

        Raises:
            ValueError: a number is out of range, or of the wrong type.
        """

    @abstractmethod
    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        """Count one more failed attempt, atomically, and set the status if one is given.

        `recover_saga()` counts by itself, under its fence; this is for schedulers that recover by other means.
        `sagas.storage.attempts` has the rules for the status. COMPENSATING aborts the saga: a row of the log says so,
        and from then on it only goes backward. The status alone does not tell whether the saga is past its pivot, so
        neither does this method.

        Raises:
            SagaNotFound: no saga has this id.
            IllegalStatusChange: the saga has ended, is dead, is held by a worker, or cannot have this status as it
                stands; nothing was changed.
        """

    @abstractmethod
    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        """Set the number of failed attempts; a dead saga becomes due at once.

        Raises:
            SagaNotFound: no saga has this id.
            ValueError: attempts is no whole number from 0 to 1,000,000,000.
        """

    # -- starting and reading ---------------------------------------------------------------------------------

    @abstractmethod
    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        owner: str | None,
        for_seconds: float = 0.0,
        connection: Any = None,
        on_conflict: OnConflict = "return",
    ) -> list[tuple[UUID, bool]]:
        """Store new sagas; return for each its id and whether it is new.

        One whose (name, idempotency_key) exists already is not stored: the id of the existing one is returned.

        Args:
            owner: `QUEUE` when a message will be sent (PENDING), None when it is free (PENDING), or a worker's name,
                which then holds it at version 1 (RUNNING).
            for_seconds: how long the owner keeps it before anybody else may pick it up.
            connection: what `join` returned; that transaction then decides whether the sagas exist.
            on_conflict: "raise" stores none of them if a (name, idempotency_key) exists already.

        Raises:
            AlreadyStarted: as `on_conflict` asks; it names the first saga that exists.
            SagaExists: an id exists already; nothing was stored.
            TransactionRefused: the connection is of another database, or in no transaction.
            TypeError: a connection of this kind cannot be used.
        """

    def join(self, connection: Any) -> CallersTransaction:
        """Return the transaction of a connection of the caller's, to be given to `create_sagas`.

        Raises:
            TransactionRefused: the connection is in no transaction that could be joined.
            TypeError: a connection of this kind cannot be used.
        """
        return callers_transaction(connection)

    def connect(self) -> None:
        """Do now what the first `create_sagas` with a connection would have to wait for; the default does nothing."""
        return

    @abstractmethod
    def load(self, saga_id: UUID) -> SagaRecord:
        """Return the saga with its log.

        Raises:
            SagaNotFound: no saga has this id.
        """

    @abstractmethod
    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        """Return sagas without their logs, the newest first.

        Raises:
            ValueError: the limit is no whole number from 1.
        """

    # -- holding ----------------------------------------------------------------------------------------------

    @abstractmethod
    def take(
        self,
        saga_id: UUID,
        *,
        owner: str,
        lease_seconds: float,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Taken | Refused:
        """Take the lease of a saga, or say why not; one atomic compare-and-set.

        What is free, waits in the queue, or has an expired lease can be taken. Seizing an expired lease counts the
        crash of its holder, for every hold after the first, and names it in `last_error`; one that reaches the
        maximum makes the saga dead. The log in the record has every row that was written before.

        Args:
            version: only at this version: the one a message was sent for.
            by_hand: an operator asks: also while backing off, dead or paused, never while another holds the lease.
        """

    @abstractmethod
    def checkpoint(
        self,
        hold: Hold,
        entry: LogEntry | None,
        *,
        status: SagaStatus,
        context: str | None = None,
        release: Release | None = None,
    ) -> None:
        """Record how an action ended, and everything that follows from it, in one fenced write.

        A completed or skipped action sets the recovery attempts to 0; a failed one is told in `last_error`, which
        completion of the saga forgets. A finished status ends the saga and gives it back. An operator's note that does
        neither is only added to the log.

        Args:
            entry: the row for the log; None only to end a saga with nothing left to do.
            context: the context as changed; None leaves it.
            release: gives the saga back in the same write.

        Raises:
            LeaseLost: the hold is no longer valid; nothing was changed.
            ValueError: without an entry, the status does not end the saga, or there is a release.
        """

    @abstractmethod
    def renew(self, hold: Hold, lease_seconds: float) -> bool:
        """Extend the lease to so many seconds from now, and mark the saga as just updated.

        Returns:
            Whether the saga is asked back: an operator waits for it, or its name is paused. Its holder then gives it
            back at the next step's boundary.

        Raises:
            LeaseLost: the hold is no longer valid.
        """

    @abstractmethod
    def ask_back(self, saga_id: UUID, *, by: str, for_seconds: float) -> None:
        """Ask whoever holds the saga to give it back at the next step's boundary; forgotten after so many seconds."""

    @abstractmethod
    def release(self, hold: Hold, release: Release) -> None:
        """Give the saga back, fenced.

        Raises:
            LeaseLost: the hold is no longer valid; nothing was changed.
        """

    @abstractmethod
    def intervene(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Intervention],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Refused | None:
        """Take a saga as `take` does by hand, write what is decided of it as `checkpoint` does, all or nothing.

        Nobody ever sees the saga held: should `decide` raise or this process die, the saga is as it was, its version,
        attempts and wait included.

        Args:
            decide: given the saga as it stands, with its log; is to be quick, as nobody else can take it meanwhile.

        Returns:
            Why it was not taken, or None.
        """

    # -- dispatching ------------------------------------------------------------------------------------------

    @abstractmethod
    def claim_sagas(
        self,
        *,
        pending: bool,
        limit: int,
        max_recovery_attempts: int,
        mark_seconds: float,
        messages_waiting: int = 0,
    ) -> ClaimResult:
        """Claim what is due for dispatch, so that no other scan claims it too.

        The mark (`lease_owner = 'queue'`) tops up what waits in the queue to `limit`, never beyond. Expired leases
        are seized as `take` seizes them. Marks that are due although fewer messages wait than marks are due
        have lost theirs: they are freed, to be claimed by a later scan.

        What is due of a name that is paused is parked instead (`lease_owner = 'paused'`), until the name is resumed.
        What a `resume` that was cut off has left parked is freed.

        Args:
            pending: claim sagas that never ran, instead of recoverable ones.
            limit: how many may wait in the queue at most.
            mark_seconds: how long a mark protects before it is compared with the messages that wait.
            messages_waiting: messages in the queue now.
        """

    @abstractmethod
    def claim_by_id(self, saga_ids: Sequence[UUID], *, mark_seconds: float) -> list[Claim]:
        """Claim those of these sagas that never ran, are free and are due, so that a message can be sent for each.

        Args:
            mark_seconds: how long the mark protects them, as in `claim_sagas`.

        Returns:
            The claims, in the order of the ids.
        """

    @abstractmethod
    def seize_orphans(self, owner: str, *, max_recovery_attempts: int) -> int:
        """Free at once every saga held by an owner known to be dead, as if its lease had expired; return how many."""

    @abstractmethod
    def unclaim(self, claims: Sequence[Claim]) -> None:
        """Free claimed sagas whose messages could not be sent; those taken meanwhile are left alone."""

    # -- pausing ----------------------------------------------------------------------------------------------

    @abstractmethod
    def pause(self, name: str, *, by: str, because: str) -> int:
        """Pause a saga name and park what is due of it; return how many sagas were parked now.

        Nothing of that name is dispatched or taken by message from then on; holders give theirs back at the next
        step's boundary; an operator may still take one by hand. Pausing again changes the reason.

        Raises:
            UnstorableText: the name, the person or the reason holds what no database can.
        """

    @abstractmethod
    def resume(self, name: str) -> int:
        """End the pause of a saga name and make due what was parked; return how many sagas that were."""

    @abstractmethod
    def pauses(self) -> list[Pause]:
        """Return the names that are paused, in alphabetical order."""

    # -- housekeeping -----------------------------------------------------------------------------------------

    @abstractmethod
    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        """Delete up to `limit` finished sagas that ended longer ago than this; return how many."""

    @abstractmethod
    def check_schema(self) -> None:
        """Make sure that the stored layout is the one this code needs.

        Raises:
            SchemaBehind: it is older; the message gives the command to run.
        """


def completed(step: str, action: Action, attempt: int = 1) -> LogEntry:
    """A log row of an action that completed."""
    return LogEntry(step=step, action=action, status=EntryStatus.COMPLETED, attempt=attempt)


def failed(step: str, action: Action, verdict: Verdict, attempt: int = 1, *, in_doubt: bool = False) -> LogEntry:
    """A log row of an action that failed."""
    return LogEntry(
        step=step,
        action=action,
        status=EntryStatus.FAILED,
        attempt=attempt,
        verdict=verdict,
        in_doubt=in_doubt,
    )


def note(command: str, *, by: str, because: str) -> LogEntry:
    """A log row of what a person did to the saga: the command, who, and why.

    Raises:
        UnstorableText: one of them holds what no database can.
    """
    require_storable(command=command, by=by, reason=because)
    return LogEntry(step=command, action=Action.OPERATOR, status=EntryStatus.COMPLETED, by=by, because=because)


def describe(entry: LogEntry) -> str | None:
    """Say in a line why an action failed, for `last_error`; None for one that did not, and for an operator's note."""
    if entry.status is not EntryStatus.FAILED or entry.action is Action.OPERATOR:
        return None
    return f"{entry.step}, {entry.action}, attempt {entry.attempt}: {entry.error_type}: {entry.message}"


def not_found(saga_id: UUID) -> SagaNotFound:
    """The error for an id that no saga has."""
    return SagaNotFound(f"no saga has the id {saga_id}: check it, or see whether the saga was pruned.")


def lease_lost(hold: Hold) -> LeaseLost:
    """The error for a write under a hold that is no longer valid."""
    return LeaseLost(
        f"saga {hold.saga_id} is no longer held by {hold.owner} at version {hold.version}: another worker may have "
        "it by now, so nothing was written; stop here."
    )


def exists(saga_id: UUID | str) -> SagaExists:
    """The error for a new saga whose id is that of another."""
    return SagaExists(f"a saga with the id {saga_id} exists already, so nothing was stored: give each saga a new id.")


def require_end(status: SagaStatus, release: Release | None) -> None:
    """Refuse a checkpoint without an entry that does anything but end the saga.

    Raises:
        ValueError: it does.
    """
    if not status.finished or release is not None:
        does = "release it" if status.finished else f"set it to {status}"
        raise ValueError(
            f"a checkpoint without an entry ends a saga and cannot {does}: give an entry, or use release()."
        )


def require_recovery_arguments(limit: int, max_attempts: int, stale_after_seconds: float | None) -> None:
    """Refuse what `get_sagas_for_recovery` cannot mean.

    Raises:
        ValueError: naming the argument and its value.
    """
    require_counts(limit=limit, max_recovery_attempts=max_attempts)
    if stale_after_seconds is not None:
        require_seconds(stale_after_seconds=stale_after_seconds)


def require_attempts(attempts: int) -> None:
    """Refuse what is no number of attempts.

    Raises:
        ValueError: naming the argument and its value.
    """
    _require_whole("attempts", attempts, 0, MOST_ATTEMPTS)


def require_counts(**values: int) -> None:
    """Refuse what is no whole number from 1 to `LARGEST`, by name.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        _require_whole(name, value, 1, LARGEST)


def require_seconds(**values: Any) -> None:
    """Refuse what is no number of seconds from 0 to `LARGEST`, by name.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r:.60}: give a number of seconds from 0 to {LARGEST}.")


def require_positive(**values: float) -> None:
    """Refuse numbers that are not above 0, by name.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: give a number above 0.")


def _require_whole(name: str, value: Any, least: int, most: int) -> None:
    # A bool is an int to Python, and a float would be rounded by one storage and kept by another.
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ValueError(f"{name} is {value!r:.60}: give a whole number from {least} to {most}.")
