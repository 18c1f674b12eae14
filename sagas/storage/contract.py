"""The storage contract: what an engine needs from a database, and what it may rely on.

Every write of a holder is *fenced*: it names the lease (saga, version, token) under which it is made, and changes
nothing once another worker has acquired the saga. All times are the storage's own. `sagas.storage.rules` has the rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from numbers import Integral
from typing import Any, Final, Self
from uuid import UUID

from sagas.errors import ConfigurationError, InboxMoved, LeaseLost, SagaExists, SagaNotFound
from sagas.outbox import OutboxTask
from sagas.progress import SagaStatus
from sagas.storage.records import (
    Acquired,
    Applied,
    Claim,
    ClaimResult,
    Definition,
    Lease,
    LeaseRequest,
    NewSaga,
    NotAcquired,
    OnConflict,
    Pause,
    SagaFilter,
    SagaHead,
    SagaRecord,
    ScheduleTicks,
    Signal,
)
from sagas.storage.step_transaction import StepSession, StepTransaction
from sagas.storage.transactions import CallersTransaction, callers_transaction
from sagas.storage.transitions import Transition

DEFAULT_MAX_RECOVERY_ATTEMPTS: Final = 5
#: The largest number of rows or seconds that a storage takes.
LARGEST: Final = 2**31 - 1
#: The largest number of failed attempts. It is below the column's limit, so that statements can add to it.
MOST_ATTEMPTS: Final = 1_000_000_000


class ISagaStorage(ABC):
    """Stores sagas for an engine. Subclass it, and test the subclass with `sagas.testing.StorageContract`.

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
            stale_after_seconds: return only sagas last updated longer ago than this.
            saga_name: return only sagas of this name.

        Raises:
            ValueError: a number is out of range, or of the wrong type.
        """

    @abstractmethod
    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        """Count one more failed attempt, atomically, and set the status if one is given.

        It is for schedulers that recover sagas by other means: `recover_saga()` counts under its own fence.
        `sagas.storage.attempts` has the rules for the status. COMPENSATING aborts the saga: a row of the log says so,
        and from then on the saga only goes backward. This method does not check whether the saga is past its pivot,
        because the status does not show that.

        Raises:
            SagaNotFound: no saga has this id.
            IllegalStatusChange: the saga has ended, is dead, is held by a worker, or cannot have this status in its
                present state; nothing was changed.
        """

    @abstractmethod
    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        """Set the number of failed attempts; a dead saga becomes due at once.

        Raises:
            SagaNotFound: no saga has this id.
            ValueError: attempts is not a whole number from 0 to 1,000,000,000.
        """

    # -- starting and reading ---------------------------------------------------------------------------------

    @abstractmethod
    def register_definition(self, definition: Definition) -> None:
        """Store a definition in a commit of its own, unless one with this hash is stored already."""

    @abstractmethod
    def load_definition(self, definition_hash: str) -> Definition:
        """Return a stored definition.

        Raises:
            DefinitionNotFound: no definition has this hash.
        """

    @abstractmethod
    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        queued: bool = False,
        lease: LeaseRequest | None = None,
        connection: Any = None,
        on_conflict: OnConflict = "return",
        at: datetime | None = None,
        after_seconds: float = 0.0,
    ) -> list[tuple[UUID, bool]]:
        """Store new sagas; return for each its id and whether it is new.

        A saga whose (name, idempotency_key) exists already is not stored, and the id of the existing saga is returned.

        Args:
            sagas: the new sagas; they are stored PENDING and at version 0.
            queued: whether messages are about to be sent for them.
            lease: if given, the same statement acquires them, so that they are RUNNING and at version 1.
            connection: what `join` returned. The sagas exist if and only if that transaction commits.
            on_conflict: "raise" stores none of them if a (name, idempotency_key) exists already.
            at: when they are due; default: now. It is only for sagas that are neither queued nor acquired.
            after_seconds: the same, from now by the clock of the storage.

        Raises:
            AlreadyStarted: as `on_conflict` asks; it names the first saga that exists.
            SagaExists: an id exists already; nothing was stored.
            TransactionRefused: the connection is of another database, or in no transaction.
            TypeError: a connection of this kind cannot be used.
        """

    def join(self, connection: Any) -> CallersTransaction:
        """Return the transaction of the caller's connection, for `create_sagas`.

        Raises:
            TransactionRefused: the connection is in no transaction that could be joined.
            TypeError: a connection of this kind cannot be used.
        """
        return callers_transaction(connection)

    def connect(self) -> None:
        """Connect now, so that the first `create_sagas` with a connection need not wait. The default does nothing."""
        return

    @abstractmethod
    def load(self, saga_id: UUID) -> SagaRecord:
        """Return the saga with its log.

        Raises:
            SagaNotFound: no saga has this id.
        """

    def head(self, saga_id: UUID) -> SagaHead:
        """Return a saga without its context and log. Override it if the storage can read that for less than `load`.

        Raises:
            SagaNotFound: no saga has this id.
        """
        saga = self.load(saga_id)
        return SagaHead(
            id=saga.id,
            name=saga.name,
            status=saga.status,
            state=saga.state,
            definition=saga.definition,
            definition_version=saga.definition_version,
        )

    @abstractmethod
    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        """Return the sagas that a filter wants, without their logs. The newest are first: the greatest ids.

        A storage may rely on `new_saga_id`: an id begins with the time of its start, by a clock that differs from the
        storage's by less than an hour.

        Raises:
            ValueError: the limit is not a whole number of 1 or more.
        """

    @abstractmethod
    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        """Return the id of the saga of this name that was started with this key, or None."""

    # -- signals ----------------------------------------------------------------------------------------------

    @abstractmethod
    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        """Store a signal, unless one of this saga, kind, name and id is stored already. Return whether it is new.

        It locks no saga: a caller may keep its transaction open for long. `deliver` must follow the commit.

        Args:
            signal: whether its saga exists is not checked.
            connection: what `join` returned. The signal exists if and only if that transaction commits.

        Raises:
            TransactionRefused: the connection is of another database.
        """

    def post_signal(self, signal: Signal) -> tuple[bool, list[Claim]]:
        """Store a signal and deliver it, in one commit if the storage can.

        Returns:
            Whether the signal is new, and what `deliver` returned.
        """
        return self.add_signal(signal), self.deliver([signal.saga_id])

    @abstractmethod
    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        """Count the new signals of these sagas in their inboxes, and queue sagas that waited, as `rules.deliver` says.

        The signals of a saga that does not exist are deleted: it was pruned while they were on their way.

        Returns:
            The claims of the sagas that were queued, in the order of the ids.
        """

    @abstractmethod
    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        """Return sagas whose signals were stored longer ago than this and not delivered."""

    @abstractmethod
    def signals(self, saga_id: UUID) -> list[Signal]:
        """Return what was sent to a saga, the oldest first."""

    # -- holding ----------------------------------------------------------------------------------------------

    @abstractmethod
    def acquire(
        self,
        saga_id: UUID,
        request: LeaseRequest,
        *,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        """Acquire the lease of a saga, or return why not, in one atomic compare-and-set.

        A saga can be acquired if it is ready or queued, or if its lease has expired. An expired lease is reclaimed: the
        log and `last_error` say that the holder was lost. The loss may spend an attempt (`rules.crash_counts`), and the
        last attempt makes the saga dead. A saga of a paused name becomes paused. The log in the record has every row
        that was written before.

        Args:
            saga_id: the saga.
            request: the owner, how long the lease lasts, and its token.
            max_recovery_attempts: after how many failed attempts a saga is dead.
            version: acquire the saga only at this version, for which a message was sent.
            by_hand: an operator asks, so the saga is also acquired while it backs off, is dead or paused. It is never
                acquired while another holds the lease.
        """

    @abstractmethod
    def apply(self, lease: Lease, transition: Transition) -> Applied:
        """Write a transition, with all columns that it changes and its tasks for the outbox, in one fenced statement.

        Raises:
            LeaseLost: the lease is no longer valid; nothing was changed.
            InboxMoved: more was delivered to the saga than the transition says was seen; nothing was changed.
        """

    def begin_step(self, lease: Lease, step: str, session: type[StepSession]) -> StepTransaction:
        """Begin the transaction that one attempt at a transactional step shares with its checkpoint.

        Args:
            lease: the lease under which the step is performed.
            step: the step's name.
            session: the kind of session that the step writes with.

        Raises:
            StorageUnavailable: the database does not answer.
            ConfigurationError: this storage has no such transactions, which is what the default says.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot run the transactional step {step!r}: keep these sagas in PostgreSQL, or "
            "make it a plain Step."
        )

    def apply_and_begin(
        self, lease: Lease, transition: Transition, step: str, session: type[StepSession]
    ) -> tuple[Applied, StepTransaction | None]:
        """Write a transition as `apply` does, and begin the transaction of the step that follows as `begin_step` does.

        Returns:
            What the transition did; and the transaction, or None if the step begins it by itself when its turn comes,
            which is the default.
        """
        return self.apply(lease, transition), None

    def apply_many(self, asked: Sequence[tuple[Lease, Transition]]) -> list[Applied | LeaseLost | InboxMoved]:
        """Write transitions of different sagas, in one statement if the storage can. Each has its own fence.

        Returns:
            For each transition what it did, or why it was not written. Another error fails all of them.
        """
        results: list[Applied | LeaseLost | InboxMoved] = []
        for lease, transition in asked:
            try:
                results.append(self.apply(lease, transition))
            except (LeaseLost, InboxMoved) as error:
                results.append(error)
        return results

    @abstractmethod
    def renew(self, lease: Lease, seconds: float) -> bool:
        """Extend a lease to end this many seconds from now.

        Returns:
            Whether a yield is requested: an operator waits for the saga, or its name is paused. The holder then gives
            it back at the next step's boundary.

        Raises:
            LeaseLost: the lease is no longer valid.
        """

    @abstractmethod
    def request_yield(self, saga_id: UUID, *, actor: str, for_seconds: float) -> None:
        """Request that the holder gives the saga back at the next step's boundary. The request ends after this time."""

    @abstractmethod
    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        """Store for a saga of version 0.1.0 the definition that it was started with.

        Raises:
            LeaseLost: the lease is no longer valid.
        """

    @abstractmethod
    def operate(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Transition],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Applied | NotAcquired:
        """Acquire a saga by hand and apply the transition that `decide` returns, in one transaction.

        Other transactions never see the saga held. If `decide` raises or this process dies, the saga is unchanged,
        including its version, attempts and deadline.

        Args:
            saga_id: the saga.
            decide: called with the saga and its log. It must be quick, as no worker can acquire the saga meanwhile.
            owner: the actor, for the log.
            max_recovery_attempts: after how many failed attempts a saga is dead.
        """

    # -- dispatching ------------------------------------------------------------------------------------------

    @abstractmethod
    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        """Queue sagas that are due, and again those that have lost their message. One scan claims each saga.

        The number of queued sagas never grows beyond `limit`. Expired leases are reclaimed as `acquire` reclaims them.
        Due sagas of a paused name become paused. Paused sagas of a name that was resumed become ready.

        Messages are first in, first out. So a queued saga has lost its message once a message that was queued
        `rules.OVERTAKING_SECONDS` or more later has reached a worker (`note_delivery`). While no message reaches a
        worker, the oldest `rules.PROBES` queued sagas that are due are sent again, after waits that double each time.
        None is sent while another was probed lately (`rules.probed_lately`). Such sagas of a paused name become paused.

        Args:
            pending: claim sagas that never ran, instead of recoverable ones.
            limit: how many may wait in the queue at most.
            max_recovery_attempts: after how many failed attempts a saga is dead.
        """

    @abstractmethod
    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        """Queue the given sagas that never ran, are ready and due, and whose names are not paused.

        Returns:
            The claims, in the order of the ids.
        """

    @abstractmethod
    def note_delivery(self, claim: Claim) -> None:
        """Record that the message of a claim has reached a worker, whether or not the worker acquired the saga.

        A pending claim without a time belongs to a message that `start` sent: its saga was queued when it was created.
        """

    @abstractmethod
    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        """Reclaim every saga that a lost owner holds, as if its lease had expired. Return how many."""

    @abstractmethod
    def release_claims(self, claims: Sequence[Claim]) -> None:
        """Make claimed sagas ready whose messages could not be sent. Sagas acquired meanwhile are left alone."""

    # -- the outbox -------------------------------------------------------------------------------------------

    @abstractmethod
    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        """Return tasks that have been in the outbox for longer than this, the oldest first, and claim them.

        The worker that wrote them died, or its broker did not answer. For as long as `older_than_seconds` says, no
        other call returns them.
        """

    @abstractmethod
    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        """Delete tasks that were sent. An id that is not there is ignored."""

    # -- pausing ----------------------------------------------------------------------------------------------

    @abstractmethod
    def pause(self, name: str, *, actor: str, reason: str) -> int:
        """Pause a saga name and its sagas that are due. Return how many sagas are paused now.

        From then on, no saga of that name is sent, or acquired by a message. Holders give their sagas back at the next
        step's boundary. An operator may still acquire one by hand. Pausing again changes the reason.

        Raises:
            UnstorableText: the name, the actor or the reason has a character that no database can store.
        """

    @abstractmethod
    def resume(self, name: str) -> int:
        """End the pause of a saga name, and make its paused sagas ready. Return how many."""

    @abstractmethod
    def pauses(self) -> list[Pause]:
        """Return the names that are paused, in alphabetical order."""

    # -- schedules --------------------------------------------------------------------------------------------

    @abstractmethod
    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        """Return the last tick of each of these schedules, and the storage's time.

        A schedule that is not known yet is stored with the present time, so that its ticks begin after that. A schedule
        that another scan stores at this moment may be missing from the result.
        """

    @abstractmethod
    def note_tick(self, name: str, tick: datetime) -> None:
        """Record that a schedule has dealt with its ticks up to this one. The record never goes back in time."""

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


def not_found(saga_id: UUID) -> SagaNotFound:
    """The error for an id that no saga has."""
    return SagaNotFound(f"no saga has the id {saga_id}: check it, or see whether the saga was pruned.")


def lease_lost(lease: Lease) -> LeaseLost:
    """The error for a write under a lease that is no longer valid."""
    return LeaseLost(
        f"saga {lease.saga_id} is no longer held by {lease.owner} at version {lease.version}: another worker may have "
        "it by now, so nothing was written; stop here."
    )


def exists(saga_id: UUID | str) -> SagaExists:
    """The error for a new saga whose id is that of another."""
    return SagaExists(f"a saga with the id {saga_id} exists already, so nothing was stored: give each saga a new id.")


def require_recovery_arguments(limit: int, max_attempts: int, stale_after_seconds: float | None) -> None:
    """Refuse arguments of `get_sagas_for_recovery` that are out of range.

    Raises:
        ValueError: the message names the argument and its value.
    """
    require_counts(limit=limit, max_recovery_attempts=max_attempts)
    if stale_after_seconds is not None:
        require_seconds(stale_after_seconds=stale_after_seconds)


def require_attempts(attempts: int) -> None:
    """Refuse a value that is not a number of attempts.

    Raises:
        ValueError: the message names the argument and its value.
    """
    _require_whole("attempts", attempts, 0, MOST_ATTEMPTS)


def require_counts(**values: int) -> None:
    """Refuse named arguments that are not whole numbers from 1 to `LARGEST`.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        _require_whole(name, value, 1, LARGEST)


def require_seconds(**values: Any) -> None:
    """Refuse named arguments that are not numbers of seconds from 0 to `LARGEST`.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r:.60}: give a number of seconds from 0 to {LARGEST}.")


def require_positive(**values: float) -> None:
    """Refuse named arguments that are not above 0.

    Raises:
        ValueError: the message names the argument and its value.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: give a number above 0.")


def _require_whole(name: str, value: Any, least: int, most: int) -> None:
    # A bool is an int to Python, and a float would be rounded by one storage and kept by another.
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ValueError(f"{name} is {value!r:.60}: give a whole number from {least} to {most}.")
