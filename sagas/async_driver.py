"""Runs sagas as coroutines on an event loop. Many sagas share each commit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from sagas.definition import AnySaga, Step
from sagas.drivers import failed_outside, interruption
from sagas.errors import LeaseLost, StorageUnavailable
from sagas.execution import Apply, Begin, Command, Done, Interrupted, Load, Loop, Perform, Report, Send, Wait, saga_loop
from sagas.framework import Framework
from sagas.graph import Graph
from sagas.group_commit import GroupWriter
from sagas.lease import KeptLease
from sagas.loops import call_in_thread
from sagas.progress import Action, Move
from sagas.runtime import Runtime
from sagas.step_runner import perform, settle
from sagas.storage.records import Acquired
from sagas.telemetry.logs import working_on

#: How often a waiting saga checks whether the wait is interrupted.
_CHECK_SECONDS = 0.1


async def execute_async(
    saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime, writer: GroupWriter
) -> Report:
    """Do as `drivers.execute` does, on this event loop; writes go through `writer`."""
    try:
        with _working_on(acquired), runtime.keeper.keep(acquired.lease) as kept, runtime.observer.running(acquired):
            return await AsyncDriver(acquired, runtime, kept, writer).drive(saga_loop(saga, graph, acquired, runtime))
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:
        with suppress(Exception):  # a failed write must not hide the original error
            await writer.apply(acquired.lease, failed_outside(acquired, runtime, error))
        raise


@contextmanager
def _working_on(acquired: Acquired) -> Iterator[None]:
    work = working_on.set((acquired.record, None))
    try:
        yield
    finally:
        working_on.reset(work)


class AsyncDriver:
    """Executes the commands that a saga's loop yields, on the event loop of its caller.

    Async steps run on this event loop. Each sync step runs in a thread of its own, because it would block the loop.

    Args:
        acquired: the saga's lease and record.
        runtime: its storage, resolver and observer are used.
        kept: the lease, which the keeper renews.
        writer: writes transitions in groups.
    """

    def __init__(self, acquired: Acquired, runtime: Runtime, kept: KeptLease, writer: GroupWriter) -> None:
        self._acquired = acquired
        self._runtime = runtime
        self._kept = kept
        self._writer = writer
        self._steps: dict[type[Step[Any]], Step[Any]] = {}
        self._running: dict[asyncio.Task[Any], Move] = {}

    async def drive(self, loop: Loop) -> Report:
        """Run a loop to its end, and return its report."""
        try:
            command = next(loop)
            while True:
                try:
                    answer = await self._do(command)
                except BaseException as error:
                    command = loop.throw(error)
                else:
                    command = loop.send(answer)
        except StopIteration as stop:
            report: Report = stop.value
            return report

    async def _do(self, command: Command) -> Any:
        match command:
            case Interrupted():
                return interruption(self._runtime, self._kept)
            case Apply(transition):
                return await self._writer.apply(self._acquired.lease, transition)
            case Perform(begin):
                return await self._perform(begin)
            case Load():
                return await call_in_thread(partial(self._runtime.storage.load, self._acquired.lease.saga_id))
            case Wait(seconds, interruptible):
                return await self._wait(seconds, interruptible=interruptible)
            case Send(claim):
                return await call_in_thread(partial(self._runtime.send, claim))

    async def _perform(self, begin: tuple[Begin, ...]) -> Done:
        if len(begin) == 1 and not self._running:
            (only,) = begin
            action = self._action(only)
            try:
                return Done(only.move, await action)
            except BaseException as error:
                return Done(only.move, error=error)
        for each in begin:
            self._running[asyncio.ensure_future(self._action(each))] = each.move
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        ended = next(iter(done))
        move = self._running.pop(ended)
        if ended.cancelled():
            return Done(move, error=asyncio.CancelledError())
        failure = ended.exception()
        return Done(move, error=failure) if failure is not None else Done(move, ended.result())

    def _action(self, begin: Begin) -> Coroutine[Any, Any, Any]:
        # Resolve outside of the action: an error that the resolver raises is not a failure of the step.
        step = self._steps.get(begin.step) or self._steps.setdefault(begin.step, self._runtime.resolve(begin.step))
        method = step.act if begin.move.action is Action.ACT else step.compensate
        return self._act(begin, partial(method, begin.context, begin.call), is_async=_is_async(method))

    async def _act(self, begin: Begin, action: Any, *, is_async: bool) -> Any:
        runtime, record, move = self._runtime, self._acquired.record, begin.move
        self._kept.work = work = (record, move)
        working_on.set(work)
        with runtime.observer.acting(record, move):
            if is_async and type(runtime.framework) is Framework:
                error, value = await settle(action(), begin.step.timeout)
                if error is not None:
                    raise error
                return value
            around = runtime.framework.around(action)
            return await call_in_thread(partial(self._in_thread, partial(perform, around, timeout=begin.step.timeout)))

    def _in_thread(self, action: Any) -> Any:
        try:
            return action()
        finally:
            self._runtime.framework.thread_ends()

    async def _wait(self, seconds: float, *, interruptible: bool) -> None:
        left = seconds
        while left > 0 and not (interruptible and interruption(self._runtime, self._kept)):
            await asyncio.sleep(min(left, _CHECK_SECONDS))
            left -= _CHECK_SECONDS


def _is_async(method: Any) -> bool:
    return inspect.iscoroutinefunction(method)
