"""Storing definitions, and sagas as they start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sagas.storage.leases import LeaseRequest
from sagas.storage.records import Definition, NewSaga, OnConflict
from sagas.storage.transactions import CallersTransaction, callers_transaction


class Starting(ABC):
    """Stores new sagas."""

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
