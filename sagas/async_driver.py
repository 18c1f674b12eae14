"""Runs sagas as coroutines on an event loop. Many sagas share each commit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from sagas.definition import AnySaga
from sagas.drivers import (
    CHECK_SECONDS,
    Driver,
    action_of,
    at_work,
    failed_outside,
    interruption,
    is_transactional,
    timeout_of,
)
from sagas.errors import LeaseLost, StorageUnavailable
from sagas.execution import Report, saga_loop
from sagas.execution.commands import (
    Apply,
    Begin,
    Command,
    Delay,
    Done,
    Interrupted,
    Load,
    Loop,
    Perform,
    ReadSignals,
    Send,
    SendTasks,
)
from sagas.framework import Framework
from sagas.graph import Graph
from sagas.group_commit import GroupWriter
from sagas.lease import KeptLease
from sagas.loops import call_in_thread
from sagas.progress import Move
from sagas.runtime import Runtime
from sagas.step_runner import perform
from sagas.storage.answers import Acquired
from sagas.timeouts import settle, timed_out


async def execute_async(
    saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime, writer: GroupWriter
) -> Report:
    """Do as `drivers.execute` does, on this event loop; writes go through `writer`."""
    try:
        with at_work(acquired), runtime.keeper.keep(acquired.lease) as kept, runtime.observer.running(acquired):
            return await AsyncDriver(acquired, runtime, kept, writer).drive(saga_loop(saga, graph, acquired, runtime))
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:
        with suppress(Exception):  # a failed write must not hide the original error
            await writer.apply(acquired.lease, failed_outside(acquired, runtime, error))
        raise


class AsyncDriver(Driver):
    """Executes the commands that a saga's loop yields, on the event loop of its caller.

    Async steps run on this event loop. Each sync step runs in a thread of its own, because it would block the loop.

    Args:
        acquired, runtime, kept: as for `Driver`.
        writer: writes transitions in groups.
    """

    def __init__(self, acquired: Acquired, runtime: Runtime, kept: KeptLease, writer: GroupWriter) -> None:
        super().__init__(acquired, runtime, kept)
        self._writer = writer
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
        finally:
            self._roll_back_all()

    async def _do(self, command: Command) -> Any:
        ended = self._take_ended()
        if ended is not None:
            if isinstance(command, Apply) and command.commits:
                return await asyncio.wrap_future(ended.apply(command.transition, command.then))
            await asyncio.wrap_future(ended.roll_back())
        match command:
            case Interrupted():
                return interruption(self._runtime, self._kept)
            case Apply(transition):
                return await self._writer.apply(self._acquired.lease, transition)
            case Perform(begin):
                return await self._perform(begin)
            case Load():
                return await call_in_thread(partial(self._runtime.storage.load, self._acquired.lease.saga_id))
            case Delay(seconds, interruptible):
                return await self._wait(seconds, interruptible=interruptible)
            case Send(claim):
                return await call_in_thread(partial(self._runtime.send, claim))
            case ReadSignals():
                return await call_in_thread(partial(self._runtime.storage.signals, self._acquired.lease.saga_id))
            case SendTasks(tasks):
                return await call_in_thread(partial(self._runtime.send_tasks, tasks))

    async def _perform(self, begin: tuple[Begin, ...]) -> Done:
        if len(begin) == 1 and not self._running:
            (only,) = begin
            action = self._action(only)
            try:
                return self._noted(Done(only.move, await action))
            except BaseException as error:
                return self._noted(Done(only.move, error=error))
        for each in begin:
            self._running[asyncio.ensure_future(self._action(each))] = each.move
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        ended = next(iter(done))
        move = self._running.pop(ended)
        if ended.cancelled():
            return self._noted(Done(move, error=asyncio.CancelledError()))
        failure = ended.exception()
        return self._noted(Done(move, error=failure) if failure is not None else Done(move, ended.result()))

    def _action(self, begin: Begin) -> Coroutine[Any, Any, Any]:
        if is_transactional(begin):
            return self._in_transaction(begin)
        action = action_of(self._part(begin.part), begin)
        return self._act(begin, action, is_async=inspect.iscoroutinefunction(action.func))

    async def _in_transaction(self, begin: Begin) -> Any:
        """Perform a transactional step in a thread of its own, which then waits for the checkpoint."""
        outcome = asyncio.wrap_future(self._open_step(begin, own_thread=True).perform())
        done, _ = await asyncio.wait([outcome], timeout=timeout_of(begin))
        if not done:
            raise timed_out(timeout_of(begin))
        return outcome.result()

    async def _act(self, begin: Begin, action: Any, *, is_async: bool) -> Any:
        runtime = self._runtime
        self._show_work(begin.move)
        with runtime.observer.acting(self._acquired.record, begin.move):
            if is_async and type(runtime.framework) is Framework:
                error, value = await settle(action(), timeout_of(begin))
                if error is not None:
                    raise error
                return value
            around = runtime.framework.around(action)
            return await call_in_thread(partial(self._in_thread, partial(perform, around, timeout=timeout_of(begin))))

    def _in_thread(self, action: Any) -> Any:
        try:
            return action()
        finally:
            self._runtime.framework.thread_ends()

    async def _wait(self, seconds: float, *, interruptible: bool) -> None:
        left = seconds
        while left > 0 and not (interruptible and interruption(self._runtime, self._kept)):
            await asyncio.sleep(min(left, CHECK_SECONDS))
            left -= CHECK_SECONDS
