"""The engine connects storage, registry, settings and dispatcher. It starts, runs and recovers sagas."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar, Unpack
from uuid import UUID

from sagas import recovery, signals
from sagas.async_driver import execute_async
from sagas.context import ContextT
from sagas.definition import AnySaga, Resolver, Saga, Step
from sagas.definitions import Definitions
from sagas.deliveries import Deliveries
from sagas.drivers import execute
from sagas.errors import ConfigurationError
from sagas.execution import Report
from sagas.framework import Framework
from sagas.group_commit import GroupWriter
from sagas.inspection.view import SagaSummary, SagaView
from sagas.lease import LeaseKeeper, default_node, owner_name
from sagas.loops import call_in_thread, refuse_within_async_step
from sagas.plugins import installed_dispatcher, named_resolver
from sagas.reading import Filters, Reader, SagaReference
from sagas.recovery import Dispatcher, ScanReport, parse_saga_id
from sagas.registry import Registry
from sagas.runtime import Runtime
from sagas.schedule import AnySchedule
from sagas.scheduler import Scheduler
from sagas.sending import Sender
from sagas.settings import Settings
from sagas.starting import just_started, new_sagas, start_time, started_before, traced
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import shared_owner
from sagas.storage.postgres import PostgresSagaStorage
from sagas.storage.records import Claim, LogEntry, NewSaga, OnConflict, Signal
from sagas.storage.transactions import AsyncTransactionOwner, TransactionOwner, call_within
from sagas.telemetry.observer import Observer
from sagas.telemetry.resolving import resolve_observer

ResultT = TypeVar("ResultT")


class SagaEngine:
    """Starts, runs and recovers sagas.

    Args:
        storage: stores the sagas.
        dispatcher: sends sagas to workers; without one, sagas that `start` stores wait for a scan of another process.
        settings: leases, attempts and backoff.
        sagas: classes that this process can run; `start` and `run` add theirs.
        resolver: builds a step from its class; default: call the class. A DI container plugs in here.
        node: the name of this worker or host, shown as the holder of leases.
        stopping: whether this process was asked to stop at the next step's boundary.
        in_doubt_on: exceptions raised into a step from outside, after which it may have taken effect.
        observer: is notified of what happens. OpenTelemetry is notified too if this process has set it up.
        framework: the framework that the application is built on; integrations pass it.
        shared: whether this process may hold several sagas at once. Its crash then spends no attempt of any of them.
            Each of them becomes suspect, and runs alone until it makes progress.
    """

    def __init__(
        self,
        storage: ISagaStorage,
        *,
        dispatcher: Dispatcher | None = None,
        settings: Settings | None = None,
        sagas: Iterable[AnySaga] = (),
        resolver: Resolver | None = None,
        node: str | None = None,
        stopping: Callable[[], bool] = lambda: False,
        in_doubt_on: tuple[type[BaseException], ...] = (),
        observer: Observer | None = None,
        framework: Framework | None = None,
        shared: bool = False,
    ) -> None:
        self.storage = storage
        self.dispatcher = dispatcher
        self.settings = settings or Settings()
        self.registry = Registry(sagas)
        self.node = node or default_node()
        self._resolver = resolver or _call_the_class
        self._stopping = stopping
        self._in_doubt_on = in_doubt_on
        self._observer = observer
        self._framework = framework or Framework()
        self._shared = shared
        self._keeper = LeaseKeeper(storage, self.settings.lease_seconds)
        self.definitions = Definitions(storage, self.registry)
        self._reader = Reader(storage, self.registry, self.definitions)
        self._deliveries = Deliveries(storage)
        self._writer = GroupWriter(storage)
        self._scheduler = Scheduler(
            storage, self._start_scheduled, scan_interval_seconds=self.settings.scan_interval_seconds
        )
        self._tasks: set[asyncio.Task[Report]] = set()
        self._owner: tuple[int, str] | None = None
        self._sender = Sender(storage, lambda: self.dispatcher)
        self._connected = False

    @classmethod
    def from_environment(
        cls,
        settings: Settings | None = None,
        *,
        storage: Callable[[Settings], ISagaStorage] | None = None,
        **options: Any,
    ) -> SagaEngine:
        """Return the engine that the `SAGAS_...` variables describe, with Celery as its dispatcher if installed.

        Args:
            settings: used instead of the variables.
            storage: returns the storage for these settings; default: PostgreSQL.
            options: arguments of the class.

        Raises:
            ConfigurationError: a setting cannot work.
        """
        settings = settings or Settings.from_environment()
        options.setdefault("dispatcher", installed_dispatcher())
        if settings.resolver:
            options.setdefault("resolver", named_resolver(settings.resolver))
        engine = cls((storage or _storage)(settings), settings=settings, **options)
        engine.registry.load(settings.modules)
        return engine

    # -- starting ---------------------------------------------------------------------------------------------

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

    def run(self, saga: type[Saga[ContextT]], context: ContextT, *, idempotency_key: str | None = None) -> Report:
        """Start a saga and run it in this process, without the broker. If the process dies, a worker takes over.

        A second call with the same idempotency key runs nothing and reports the status of that saga.

        Async steps run on one event loop of the process, in a thread of its own.

        Raises:
            ContextError: as for `start`.
            StorageUnavailable: as for `start`.
            RuntimeError: called within an async step, whose loop it would block: await `run_async`.
        """
        refuse_within_async_step("run", "run_async")
        keys = None if idempotency_key is None else [idempotency_key]
        new = self._new_sagas(saga, [context], keys)
        runtime = self.runtime()
        request = runtime.request()
        with runtime.observer.starting(new) as traceparent:
            new = traced(new, traceparent)
            ((saga_id, is_new),) = self.storage.create_sagas(new, lease=request)
        if not is_new:
            return started_before(self.storage.load(saga_id))
        return execute(saga, saga.graph, just_started(self.storage, new[0], request), runtime)

    async def run_async(
        self, saga: type[Saga[ContextT]], context: ContextT, *, idempotency_key: str | None = None
    ) -> Report:
        """Do as `run` does, from a coroutine. Async steps run on the caller's event loop, sync ones in a thread.

        If the caller is cancelled, the saga continues.
        """
        return await self._shielded(self._run_async(saga, context, idempotency_key))

    async def _run_async(self, saga: type[Saga[ContextT]], context: ContextT, key: str | None) -> Report:
        await self._register_in_thread(saga)
        (new,) = self._new_sagas(saga, [context], None if key is None else [key])
        runtime = self.runtime()
        with runtime.observer.starting([new]) as traceparent:
            (new,) = traced([new], traceparent)
            saga_id, is_new, request = await self._writer.create(new, runtime.request())
        if not is_new:
            return started_before(await call_in_thread(partial(self.storage.load, saga_id)))
        begin = partial(just_started, self.storage, new, request)
        acquired = begin() if new.deadline_seconds is None else await call_in_thread(begin)
        return await execute_async(saga, saga.graph, acquired, runtime, self._writer)

    # -- sending to sagas -------------------------------------------------------------------------------------

    def signal(
        self,
        saga: SagaReference,
        name: str,
        payload: object = None,
        *,
        signal_id: str | None = None,
        actor: str | None = None,
        connection: TransactionOwner | None = None,
    ) -> bool:
        """Send a signal to a saga, for one of its waits. It is kept if the saga does not wait for it yet.

        Args:
            saga: its id, or its class or name with its idempotency key: `(PlaceOrder, "order-7")`.
            name: the wait's name.
            payload: what the signal brings: an instance of the wait's type, or plain data that describes one.
            signal_id: the sender's name for the signal. The same one twice is one signal. Default: a random one.
            actor: who sends it, for the log.
            connection: as for `start`: the signal is sent if and only if the caller commits.

        Returns:
            Whether the signal is new.

        Raises:
            SignalRefused: the saga has ended, has no such wait, or the payload is of another type; nothing was stored.
            SagaNotFound, InvalidSagaId: there is no such saga.
            TransactionRefused, StorageUnavailable: as for `start`.
        """
        record = self.storage.head(self._reader.id_of(saga))
        new = signals.new_signal(record, name, payload, definitions=self.definitions, signal_id=signal_id, actor=actor)
        return self._post(new, connection)

    async def signal_async(
        self,
        saga: SagaReference,
        name: str,
        payload: object = None,
        *,
        signal_id: str | None = None,
        actor: str | None = None,
        connection: AsyncTransactionOwner | None = None,
    ) -> bool:
        """Do as `signal` does, from a coroutine."""

        def send(within: TransactionOwner | None) -> bool:
            return self.signal(saga, name, payload, signal_id=signal_id, actor=actor, connection=within)

        return await self._within(send, connection)

    def cancel(
        self,
        saga: SagaReference,
        reason: str,
        *,
        actor: str | None = None,
        connection: TransactionOwner | None = None,
    ) -> None:
        """Ask for a saga to be aborted: what it did is undone. It need not wait for a worker that holds the saga.

        A saga that waits, sleeps, backs off or has not begun is woken for it. A worker that holds the saga aborts it
        after its present step. If that step is the pivot, the request comes too late; the log says so.

        Args:
            saga: as for `signal`.
            reason: why, for the log.
            actor: who asks for it, for the log.
            connection: as for `start`: the request is made if and only if the caller commits.

        Raises:
            SignalRefused: the saga has ended, is being undone already, or is past its pivot.
            SagaNotFound, InvalidSagaId: there is no such saga.
            TransactionRefused, StorageUnavailable: as for `start`.
        """
        record = self.storage.load(self._reader.id_of(saga))
        self._post(signals.request_to_cancel(record, reason, actor=actor, definitions=self.definitions), connection)

    async def cancel_async(
        self,
        saga: SagaReference,
        reason: str,
        *,
        actor: str | None = None,
        connection: AsyncTransactionOwner | None = None,
    ) -> None:
        """Do as `cancel` does, from a coroutine."""
        await self._within(lambda within: self.cancel(saga, reason, actor=actor, connection=within), connection)

    def _post(self, signal: Signal, connection: TransactionOwner | None) -> bool:
        """Store what is sent to a saga, and deliver it once that is committed."""
        if connection is None:
            connection = self._framework.transaction()
        if connection is None:
            is_new, claims = self.storage.post_signal(signal)
            self._sender.send(claims)
            return is_new
        transaction = self.storage.join(connection)
        is_new = self.storage.add_signal(signal, connection=transaction)
        transaction.on_commit(lambda: self._sender.deliver_after_commit(signal.saga_id))
        return is_new

    async def _within(
        self, call: Callable[[TransactionOwner | None], ResultT], connection: AsyncTransactionOwner | None
    ) -> ResultT:
        """Call a blocking function from a coroutine, within the caller's transaction if there is one."""
        if connection is None:
            return await self._framework.in_thread(call, None)
        if not self._connected:
            # Connect in a thread: the event loop must not wait for a connection of the storage.
            await asyncio.to_thread(self.storage.connect)
            self._connected = True
        return await call_within(connection, call)

    # -- recovering -------------------------------------------------------------------------------------------

    def recover(
        self,
        saga_id: UUID | str,
        *,
        version: int | None = None,
        by_hand: bool = False,
        note: LogEntry | None = None,
        delivered: Claim | None = None,
    ) -> Report:
        """Resume a saga from its log, forward or backward, and report what was done.

        It counts a failed attempt and sets the time of the next one. A saga that is finished, or that another worker
        holds, is left alone, and the report says so.

        Args:
            saga_id: the saga.
            version: acquire the saga only at this version, for which the message was sent.
            by_hand: an operator asks, so the saga is also acquired while it backs off, is dead or paused.
            note: the operator's row for the saga's log.
            delivered: the claim of the message that asks for this. It is recorded, so that scans find lost messages.

        Raises:
            SagaNotFound, InvalidSagaId: there is no such saga.
            StorageUnavailable: the database does not answer.
            RuntimeError: called within an async step, whose event loop it would block: await `recover_async`.
        """
        refuse_within_async_step("recover", "recover_async")
        if delivered is not None:
            self._deliveries.note(delivered)
        return recovery.recover(
            parse_saga_id(saga_id),
            runtime=self.runtime(),
            definitions=self.definitions,
            version=version,
            by_hand=by_hand,
            note=note,
        )

    async def recover_async(self, saga_id: UUID | str, *, by_hand: bool = False) -> Report:
        """Do as `recover` does, from a coroutine. Steps run as `run_async` runs them."""
        return await self._shielded(
            recovery.recover_async(
                parse_saga_id(saga_id),
                runtime=self.runtime(),
                definitions=self.definitions,
                writer=self._writer,
                by_hand=by_hand,
            )
        )

    def scan(self) -> ScanReport:
        """Start the sagas of schedules that are due, claim all sagas that are due, and send them to workers.

        Tasks that wait in the outbox are sent too.

        Raises:
            ConfigurationError: this engine has no dispatcher.
            StorageUnavailable: the database does not answer.
        """
        if self.dispatcher is None:
            raise ConfigurationError(
                "this engine has no dispatcher to send sagas to workers with: give it a CeleryDispatcher of "
                "sagas.celery.dispatch, or recover sagas by a loop as in examples/saga_recovery_scheduler.py."
            )
        started = self._scheduler.start_due(self.registry.schedules)
        report = recovery.scan(self.storage, self.dispatcher, self.settings, resolve_observer(self._observer))
        tasks = recovery.send_outbox(self.storage, self.dispatcher)
        return replace(report, scheduled=started.sagas, schedules_failed=started.failed, tasks=tasks)

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, saga: SagaReference) -> SagaView:
        """Return one saga as it is now: its status, its context, the steps that are done, what it waits for.

        Args:
            saga: its id, or a pair of its class (or name) and its idempotency key.

        Raises:
            SagaNotFound: there is no such saga; its transaction has not committed, or it was pruned.
            InvalidSagaId: the text is no id.
            StorageUnavailable: the database does not answer.
        """
        return self._reader.get(saga)

    async def get_async(self, saga: SagaReference) -> SagaView:
        """Do as `get` does, from a coroutine."""
        return await call_in_thread(partial(self.get, saga))

    def find(self, **filters: Unpack[Filters]) -> list[SagaSummary]:
        """Return sagas, the newest first. Each filter narrows what the others leave.

        For the next page, repeat the call with `after`. A key, tags, times, and statuses and states of unfinished sagas
        are found through an index. What other filters want is looked for from the newest saga on: give `created_after`
        too where few sagas match.

        Args:
            filters: `name`: the class, or the name. `status`, `state`: one or several. `key`: the idempotency key.
                `tags`: sagas that have all of these tags, and maybe others. `created_after`, `created_before`: created
                at this time or later, and before this time. `updated_after`, `updated_before`: the same for the last
                write, which for a finished saga is its end. `after`: the id of the last saga of the page before.
                `limit`: how many at most; default: 50.

        Raises:
            ValueError: a filter has a value that it cannot have, or a time has no time zone.
            StorageUnavailable: the database does not answer.
        """
        return self._reader.find(**filters)

    async def find_async(self, **filters: Unpack[Filters]) -> list[SagaSummary]:
        """Do as `find` does, from a coroutine."""
        return await call_in_thread(partial(self.find, **filters))

    def wait(self, saga: SagaReference, timeout: float | None = None) -> SagaView:
        """Return one saga once it is over: COMPLETED, COMPENSATED, or dead.

        It reads the saga's status after 50 milliseconds at first and every second later on. It also waits for a
        database that does not answer. Such an attempt to read may end some seconds after the timeout.

        Args:
            saga: its id, or a pair of its class (or name) and its idempotency key.
            timeout: how many seconds to wait at most; 0 looks once, and None waits without a limit.

        Raises:
            WaitTimedOut: the saga is not over in time, or the database did not answer.
            SagaNotFound, InvalidSagaId: as for `get`.
            ValueError: the timeout is not a number of seconds of 0 or more.
            RuntimeError: called within an async step, whose loop it would block: await `wait_async`.
        """
        return self._reader.wait(saga, timeout)

    async def wait_async(self, saga: SagaReference, timeout: float | None = None) -> SagaView:
        """Do as `wait` does, from a coroutine. The event loop goes on meanwhile."""
        return await self._reader.wait_async(saga, timeout)

    def runtime(self) -> Runtime:
        """Return what an execution in this process needs."""
        if self._owner is None or self._owner[0] != os.getpid():
            owner = owner_name(self.node, os.getpid())
            self._owner = (os.getpid(), shared_owner(owner) if self._shared else owner)
        return Runtime(
            storage=self.storage,
            keeper=self._keeper,
            settings=self.settings,
            owner=self._owner[1],
            resolve=self._resolver,
            stopping=self._stopping,
            send=lambda claim: self._sender.send([claim]),
            send_tasks=self._sender.send_tasks,
            in_doubt_on=self._in_doubt_on,
            observer=resolve_observer(self._observer),
            framework=self._framework,
        )

    # -- details ----------------------------------------------------------------------------------------------

    def _new_sagas(
        self,
        saga: type[Saga[ContextT]],
        contexts: Sequence[ContextT],
        keys: Sequence[str] | None,
        tags: Mapping[str, str] | None = None,
    ) -> list[NewSaga]:
        return new_sagas(saga, contexts, keys, tags, registry=self.registry, definitions=self.definitions)

    async def _register_in_thread(self, saga: type[Saga[ContextT]]) -> None:
        """Register a saga's definition, so that the event loop need not wait when it is started."""
        if isinstance(saga, type) and issubclass(saga, Saga) and not self.definitions.knows(saga.graph):
            await call_in_thread(partial(self.definitions.register, saga.graph))

    def _start_scheduled(
        self, schedule: AnySchedule, contexts: Sequence[Any], keys: Sequence[str]
    ) -> list[tuple[UUID, bool]]:
        """Store sagas of a schedule in a commit of their own; the scan sends them."""
        new = self._new_sagas(schedule.saga, contexts, keys, {"schedule": schedule.name})
        with resolve_observer(self._observer).starting(new) as traceparent:
            return self.storage.create_sagas(traced(new, traceparent))

    async def _shielded(self, running: Coroutine[Any, Any, Report]) -> Report:
        # Keep a reference to the task: the event loop has only a weak one, and the task could be collected.
        task = asyncio.ensure_future(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


def _call_the_class(step: type[Step[Any]]) -> Step[Any]:
    return step()


def _storage(settings: Settings) -> ISagaStorage:
    return PostgresSagaStorage(settings.database_url, pool_size=settings.database_pool_size)
