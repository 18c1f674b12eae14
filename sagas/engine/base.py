"""What starting, running, signalling, recovering and reading have in common."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sagas.context import ContextT
from sagas.definition import AnySaga, Resolver, Saga, Step
from sagas.definitions import Definitions
from sagas.deliveries import Deliveries
from sagas.execution import Report
from sagas.framework import Framework
from sagas.group_commit import GroupWriter
from sagas.lease import LeaseKeeper, default_node, owner_name
from sagas.loops import call_in_thread
from sagas.reading import Reader
from sagas.recovery import Dispatcher
from sagas.registry import Registry
from sagas.runtime import Runtime
from sagas.schedule import AnySchedule
from sagas.scheduler import Scheduler
from sagas.sending import Sender
from sagas.settings import Settings
from sagas.starting import new_sagas, traced
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import shared_owner
from sagas.storage.records import NewSaga
from sagas.storage.transactions import AsyncTransactionOwner, TransactionOwner, call_within
from sagas.telemetry.observer import Observer
from sagas.telemetry.resolving import resolve_observer

ResultT = TypeVar("ResultT")


class EngineBase:
    """The storage, the settings and the helpers of an engine. The arguments are those of `SagaEngine`."""

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

    def _new_sagas(
        self,
        saga: type[Saga[ContextT]],
        contexts: Sequence[ContextT],
        keys: Sequence[str] | None,
        tags: Mapping[str, str] | None = None,
    ) -> list[NewSaga]:
        return new_sagas(saga, contexts, keys, tags, registry=self.registry, definitions=self.definitions)

    def _start_scheduled(
        self, schedule: AnySchedule, contexts: Sequence[Any], keys: Sequence[str]
    ) -> list[tuple[UUID, bool]]:
        """Store sagas of a schedule in a commit of their own; the scan sends them."""
        new = self._new_sagas(schedule.saga, contexts, keys, {"schedule": schedule.name})
        with resolve_observer(self._observer).starting(new) as traceparent:
            return self.storage.create_sagas(traced(new, traceparent))

    async def _register_in_thread(self, saga: type[Saga[ContextT]]) -> None:
        """Register a saga's definition, so that the event loop need not wait when it is started."""
        if isinstance(saga, type) and issubclass(saga, Saga) and not self.definitions.knows(saga.graph):
            await call_in_thread(partial(self.definitions.register, saga.graph))

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

    async def _shielded(self, running: Coroutine[Any, Any, Report]) -> Report:
        # Keep a reference to the task: the event loop has only a weak one, and the task could be collected.
        task = asyncio.ensure_future(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


def _call_the_class(step: type[Step[Any]]) -> Step[Any]:
    return step()
