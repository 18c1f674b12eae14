"""Starting sagas: they are stored, and sent to workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sagas.context import ContextT
from sagas.definition import Saga
from sagas.engine.base import EngineBase
from sagas.recovery import parse_saga_id
from sagas.starting import start_time, traced
from sagas.storage.records import Claim, OnConflict
from sagas.storage.transactions import AsyncTransactionOwner, TransactionOwner
from sagas.telemetry.resolving import resolve_observer


class Starting(EngineBase):
    """Starts sagas."""

    def start(
        self,
        saga: type[Saga[ContextT]],
        context: ContextT,
        *,
        idempotency_key: str | None = None,
        on_conflict: OnConflict = "return",
        connection: TransactionOwner | None = None,
        at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> UUID:
        """Store a saga and send it to a worker; return its id.

        It also succeeds while the broker is down. The saga then runs once the broker is back.

        Args:
            saga: the class.
            context: the data that the steps read and change; stored as JSON.
            idempotency_key: a second start of the same saga with the same key returns the same id and starts nothing.
                The context of the first start is used, and a later one is not compared with it.
            on_conflict: "raise" raises `AlreadyStarted` instead, if the key was used before.
            connection: the caller's own connection or session, of SQLAlchemy or psycopg 3. The saga then exists if and
                only if the caller commits. A session's commit sends it at once. A connection does not report its
                commit: call `send` after it, or else the next scan sends the saga.
            at: when it is to begin: a time with a time zone, or how long from now; default: at once.
            tags: names and values by which `find` finds it.

        Raises:
            ContextError: the context cannot be stored and read back as it is.
            AlreadyStarted: as `on_conflict` asks.
            TransactionRefused: the connection leads to another database, or is in no transaction.
            StorageUnavailable: the database does not answer; whether the saga was stored is unknown, so start it
                again with the same idempotency key.
            SchemaBehind: the database lacks what this version needs.
        """
        keys = None if idempotency_key is None else [idempotency_key]
        started = self.start_or_find_many(
            saga, [context], idempotency_keys=keys, on_conflict=on_conflict, connection=connection, at=at, tags=tags
        )
        return started[0][0]

    def start_many(
        self,
        saga: type[Saga[ContextT]],
        contexts: Sequence[ContextT],
        *,
        idempotency_keys: Sequence[str] | None = None,
        on_conflict: OnConflict = "return",
        connection: TransactionOwner | None = None,
        at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[UUID]:
        """Store many sagas of one class in one statement and send them to workers; return their ids in order.

        All of them are stored or none; none with `on_conflict="raise"` if any of the keys was used before. Arguments
        and errors are those of `start`.
        """
        started = self.start_or_find_many(
            saga,
            contexts,
            idempotency_keys=idempotency_keys,
            on_conflict=on_conflict,
            connection=connection,
            at=at,
            tags=tags,
        )
        return [saga_id for saga_id, _ in started]

    def start_or_find_many(
        self,
        saga: type[Saga[ContextT]],
        contexts: Sequence[ContextT],
        *,
        idempotency_keys: Sequence[str] | None = None,
        on_conflict: OnConflict = "return",
        connection: TransactionOwner | None = None,
        at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[tuple[UUID, bool]]:
        """Do as `start_many` does, and return for each saga its id and whether it is new."""
        if on_conflict not in ("return", "raise"):
            raise ValueError(f"on_conflict is {on_conflict!r}: give 'return' or 'raise'.")
        new = self._new_sagas(saga, contexts, idempotency_keys, tags)
        if not new:
            return []
        options: dict[str, Any] = {} if on_conflict == "return" else {"on_conflict": on_conflict}
        options |= start_time(at)
        with resolve_observer(self._observer).starting(new) as traceparent:
            new = traced(new, traceparent)
            claims: list[Claim] = []
            sent_by_us = self.dispatcher is not None and at is None
            if connection is None:
                connection = self._framework.transaction()
            if connection is not None:
                options["connection"] = transaction = self.storage.join(connection)
                sent_by_us = sent_by_us and transaction.on_commit(lambda: self._sender.send_after_commit(claims))
            created = self.storage.create_sagas(new, queued=sent_by_us, **options)
            claims += [Claim(saga_id, 0, pending=True) for saga_id, is_new in created if is_new]
            if connection is None and sent_by_us:
                self._sender.send(claims)
            return created

    async def start_async(
        self,
        saga: type[Saga[ContextT]],
        context: ContextT,
        *,
        idempotency_key: str | None = None,
        on_conflict: OnConflict = "return",
        connection: AsyncTransactionOwner | None = None,
        at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> UUID:
        """Do as `start` does, from a coroutine; `connection` is an async connection or session of the caller's own."""
        keys = None if idempotency_key is None else [idempotency_key]
        ids = await self.start_many_async(
            saga, [context], idempotency_keys=keys, on_conflict=on_conflict, connection=connection, at=at, tags=tags
        )
        return ids[0]

    async def start_many_async(
        self,
        saga: type[Saga[ContextT]],
        contexts: Sequence[ContextT],
        *,
        idempotency_keys: Sequence[str] | None = None,
        on_conflict: OnConflict = "return",
        connection: AsyncTransactionOwner | None = None,
        at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[UUID]:
        """Do as `start_many` does, from a coroutine."""

        def start(within: TransactionOwner | None) -> list[UUID]:
            return self.start_many(
                saga,
                contexts,
                idempotency_keys=idempotency_keys,
                on_conflict=on_conflict,
                connection=within,
                at=at,
                tags=tags,
            )

        if connection is not None:
            await self._register_in_thread(saga)
        return await self._within(start, connection)

    def send(self, *saga_ids: UUID | str) -> None:
        """Send sagas to workers after the transaction in which they were started or signalled has committed.

        Use it for transactions that do not report their commit. Sagas that were sent already, or that run, are left
        alone. It also succeeds while the broker is down, and a scan sends the sagas later.

        Raises:
            SagaNotFound: no saga has one of these ids; its transaction has not committed, or was rolled back.
            StorageUnavailable: the database does not answer.
        """
        wanted = [parse_saga_id(saga_id) for saga_id in saga_ids]
        claims = self.storage.claim_by_id(wanted) if self.dispatcher is not None else []
        claims += self.storage.deliver(wanted)
        self._sender.send(claims)
        for saga_id in set(wanted) - {claim.saga_id for claim in claims}:
            self.storage.load(saga_id)

    async def send_async(self, *saga_ids: UUID | str) -> None:
        """Do as `send` does, from a coroutine."""
        await asyncio.to_thread(self.send, *saga_ids)
