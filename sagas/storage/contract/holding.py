"""Acquiring a saga, writing for its holder, and acting for an operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from uuid import UUID

from sagas.errors import ConfigurationError, InboxMoved, LeaseLost
from sagas.storage.answers import Acquired, Applied, NotAcquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import SagaRecord
from sagas.storage.step_transaction import StepSession, StepTransaction
from sagas.storage.transitions import Transition


class Holding(ABC):
    """Writes under leases. Every write is fenced."""

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
        log and `last_error` say that the holder was lost. The loss may spend an attempt (`dead_letters.crash_counts`),
        and the last attempt makes the saga dead. A saga of a paused name becomes paused. The log in the record has
        every row that was written before.

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
