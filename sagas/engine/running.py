"""Running sagas in the process that starts them, without the broker."""

from __future__ import annotations

from functools import partial

from sagas.async_driver import execute_async
from sagas.context import ContextT
from sagas.definition import Saga
from sagas.drivers import execute
from sagas.engine.base import EngineBase
from sagas.execution import Report
from sagas.loops import call_in_thread, refuse_within_async_step
from sagas.starting import just_started, started_before, traced


class Running(EngineBase):
    """Runs sagas in this process."""

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
