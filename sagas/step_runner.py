"""Calls one action of a step: sync or async, with or without a timeout."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from sagas.errors import OutcomeUnknown, StepTimedOut
from sagas.failures import is_of_the_step
from sagas.loops import loop_of_steps, refuse_within_async_step, start_thread

#: How often a thread that waits for a coroutine checks that its event loop still runs.
_LOOP_CHECK_SECONDS: Final = 1.0


def perform(action: Callable[[], Any], *, timeout: float | None) -> Any:
    """Call the action and return what it returned, awaited if it is awaitable.

    Args:
        action: called without arguments.
        timeout: seconds it may take; None for no limit. A sync action cannot be stopped: it continues in its thread,
            and its result and its context are ignored.

    Raises:
        StepTimedOut: it took longer.
        BaseException: any error that the action raised.
    """
    if timeout is None:
        result = action()
    else:
        # Call it in a thread: only the call shows whether it is async, and a sync action blocks the caller.
        result = _in_thread(action, timeout)
    return _in_loop(result, timeout) if inspect.isawaitable(result) else result


def _in_thread(action: Callable[[], Any], timeout: float) -> Any:
    outcome: Future[Any] = Future()
    context = contextvars.copy_context()  # the caller's: it has the saga for log lines, and the present span
    start_thread(partial(context.run, action), outcome, name="sagas-step")
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.done():
            return outcome.result()  # the action ended in this moment, or raised the TimeoutError itself
        raise timed_out(timeout) from None


def timed_out(timeout: float | None) -> StepTimedOut:
    """Return the error for an action that took longer than so many seconds."""
    return StepTimedOut(f"it took longer than its timeout of {timeout:g} seconds, and may still take effect")


def _in_loop(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    steps = loop_of_steps()
    if steps.runs_here():
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # an unawaited coroutine would warn
        refuse_within_async_step("performing a saga", "run_async")
    future = asyncio.run_coroutine_threadsafe(settle(awaitable, timeout), steps.loop)
    try:
        error, value = _wait(future, steps.loop, timeout)
    except BaseException:
        # Another exception ended the wait, such as Celery's soft time limit. Cancel the step, so that it does not run
        # at the same time as what follows.
        if steps.runs():
            future.cancel()
        raise
    if error is not None:
        raise error
    return value


def _wait(future: Future[Any], loop: asyncio.AbstractEventLoop, timeout: float | None) -> Any:
    # The loop cannot cancel a step that blocks it. Such a step counts as timed out one second after its timeout.
    ends_at = float("inf") if timeout is None else time.monotonic() + timeout + 1
    stood_still = False
    while True:
        left = ends_at - time.monotonic()
        try:
            return future.result(min(max(left, 0), _LOOP_CHECK_SECONDS))
        except TimeoutError:
            if future.done():
                return future.result()  # the action ended in this moment
            if left <= 0:
                raise timed_out(timeout) from None
            # Check twice in a row: while `asyncio.run` ends, its loop stands still for moments.
            if stood_still and not loop.is_running():
                raise OutcomeUnknown("its event loop ended before it did, and it may have taken effect") from None
            stood_still = not loop.is_running()


async def settle(awaitable: Awaitable[Any], timeout: float | None) -> tuple[BaseException | None, Any]:
    # Return errors to the caller: a SystemExit that is raised here would end the loop for every other saga.
    try:
        async with asyncio.timeout(timeout) as bound:
            return None, await awaitable
    except BaseException as error:
        # A step that is cut short may raise any error while it ends. It timed out nevertheless.
        late = bound.expired() and not isinstance(error, asyncio.CancelledError) and is_of_the_step(error)
        return (timed_out(timeout) if late else error), None
