"""The storage contract: what an engine needs from a database, and what it may rely on.

Every write of a holder is *fenced*: it names the lease (saga, version, token) that it was made under, and changes
nothing once anybody else has acquired the saga. All times are the storage's own. `sagas.storage.rules` has the rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Final, Self
from uuid import UUID

from sagas.errors import LeaseLost, SagaExists, SagaNotFound
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
    SagaRecord,
)
from sagas.storage.transactions import CallersTransaction, callers_transaction
from sagas.storage.transitions import Transition

DEFAULT_MAX_RECOVERY_ATTEMPTS: Final = 5
#: The largest number of rows or seconds that a storage takes.
LARGEST: Final = 2**31 - 1
#: The largest number of failed attempts: far enough below what the column holds that statements can add to it.
MOST_ATTEMPTS: Final = 1_000_000_000


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
    def register_definition(self, definition: Definition) -> None:
        """Store a definition, in a commit of its own, unless one with its hash is stored already."""

    @abstractmethod
    def load_definition(self, definition_hash: str) -> Definition:
        """Return a stored definition.

        Raises:
            DefinitionNotFound: none has this hash.
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
    ) -> list[tuple[UUID, bool]]:
        """Store new sagas; return for each its id and whether it is new.

        One whose (name, idempotency_key) exists already is not stored: the id of the existing one is returned.

        Args:
            sagas: at version 0 and PENDING.
            queued: whether messages are about to be sent for them.
            lease: acquires them in the same statement, at version 1 and RUNNING.
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
    def acquire(
        self,
        saga_id: UUID,
        request: LeaseRequest,
        *,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        """Acquire the lease of a saga, or say why not; one atomic compare-and-set.

        What is ready, queued, or whose lease has expired can be acquired. An expired lease is reclaimed: its holder
        was lost, which the log and `last_error` say and which may spend an attempt (`rules.crash_counts`); one that
        reaches the maximum makes the saga dead. A saga of a paused name becomes paused. The log in the record has every
        row that was written before.

        Args:
            saga_id: which.
            request: the owner, how long the lease lasts, and its token.
            max_recovery_attempts: after how many failed attempts a saga is dead.
            version: only at this version: the one that a message was sent for.
            by_hand: an operator asks: also while it backs off, is dead or paused, never while another holds the lease.
        """

    @abstractmethod
    def apply(self, lease: Lease, transition: Transition) -> Applied:
        """Write a transition, with everything that follows from it, in one fenced statement.

        Raises:
            LeaseLost: the lease is no longer valid; nothing was changed.
        """

    def apply_many(self, asked: Sequence[tuple[Lease, Transition]]) -> list[Applied | LeaseLost]:
        """Write transitions of different sagas, in one statement where the storage can; each is fenced on its own.

        Returns:
            For each what it did, or that its lease is no longer valid. Another error fails them all.
        """
        results: list[Applied | LeaseLost] = []
        for lease, transition in asked:
            try:
                results.append(self.apply(lease, transition))
            except LeaseLost as error:
                results.append(error)
        return results

    @abstractmethod
    def renew(self, lease: Lease, seconds: float) -> bool:
        """Extend a lease to so many seconds from now.

        Returns:
            Whether a yield is requested: an operator waits for the saga, or its name is paused. The holder then gives
            it back at the next step's boundary.

        Raises:
            LeaseLost: the lease is no longer valid.
        """

    @abstractmethod
    def request_yield(self, saga_id: UUID, *, by: str, for_seconds: float) -> None:
        """Request that the holder gives the saga back at the next step's boundary; forgotten after so many seconds."""

    @abstractmethod
    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        """Give a saga that version 0.1.0 started the definition that it was started with.

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
        """Acquire a saga by hand and apply what is decided of it, in one transaction.

        Nobody ever sees the saga held: should `decide` raise or this process die, the saga is as it was, its version,
        attempts and deadline included.

        Args:
            saga_id: which.
            decide: is given the saga with its log; must be quick, as nobody else can acquire it meanwhile.
            owner: who acts, for the log.
            max_recovery_attempts: after how many failed attempts a saga is dead.
        """

    # -- dispatching ------------------------------------------------------------------------------------------

    @abstractmethod
    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        """Queue what is due, so that no other scan does so too, and what has lost its message.

        What waits in the queue is topped up to `limit`, never beyond. Expired leases are reclaimed as `acquire`
        reclaims them. What is due of a paused name becomes paused; what is paused of a name that is no longer paused
        becomes ready.

        Messages are first in, first out. So a queued saga has lost its message once one that was queued later, by
        `rules.OVERTAKING_SECONDS` or more, has reached a worker (`note_delivery`). While no message reaches a worker,
        the oldest `rules.PROBES` that are due are sent again, each after waits that double, and none while another was
        probed lately (`rules.probed_lately`). Those of a paused name become paused instead.

        Args:
            pending: claim sagas that never ran, instead of recoverable ones.
            limit: how many may wait in the queue at most.
            max_recovery_attempts: after how many failed attempts a saga is dead.
        """

    @abstractmethod
    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        """Queue those of these sagas that never ran, are ready and due, and whose names are not paused.

        Returns:
            The claims, in the order of the ids.
        """

    @abstractmethod
    def note_delivery(self, claim: Claim) -> None:
        """Note that the message of a claim has reached a worker, whatever became of it there.

        A pending claim without a time is of a message that `start` sent: its saga was queued when it was created.
        """

    @abstractmethod
    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        """Reclaim at once every saga that a lost owner holds, as if its lease had expired; return how many."""

    @abstractmethod
    def release_claims(self, claims: Sequence[Claim]) -> None:
        """Make claimed sagas ready whose messages could not be sent; leave alone what was acquired meanwhile."""

    # -- pausing ----------------------------------------------------------------------------------------------

    @abstractmethod
    def pause(self, name: str, *, by: str, because: str) -> int:
        """Pause a saga name, and what is due of it; return how many sagas are paused now.

        Nothing of that name is sent or acquired by message from then on; holders give theirs back at the next step's
        boundary; an operator may still acquire one by hand. Pausing again changes the reason.

        Raises:
            UnstorableText: the name, the person or the reason holds what no database can.
        """

    @abstractmethod
    def resume(self, name: str) -> int:
        """End the pause of a saga name, and make ready what was paused; return how many sagas that were."""

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
