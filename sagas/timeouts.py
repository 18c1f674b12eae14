"""Timeouts: how long an action of a step may take. One that takes longer may still take effect.

A coroutine is cancelled. A sync action cannot be stopped: its thread is left behind, and what it returns is ignored.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from sagas.errors import OutcomeUnknown, StepTimedOut
from sagas.failures import is_of_the_step
from sagas.loops import start_thread

#: How often a thread that waits for a coroutine checks that its event loop still runs.
_LOOP_CHECK_SECONDS: Final = 1.0


def timed_out(timeout: float | None) -> StepTimedOut:
    """Return the error for an action that took longer than so many seconds."""
    return StepTimedOut(f"it took longer than its timeout of {timeout:g} seconds, and may still take effect")


def call_in_time(action: Callable[[], Any], timeout: float) -> Any:
    """Call an action in a thread of its own, and return what it returned.

    Raises:
        StepTimedOut: it took longer than so many seconds.
        BaseException: any error that the action raised.
    """
    outcome: Future[Any] = Future()
    context = contextvars.copy_context()  # the caller's: it has the saga for log lines, and the present span
    start_thread(partial(context.run, action), outcome, name="sagas-step")
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.done():
            return outcome.result()  # the action ended in this moment, or raised the TimeoutError itself
        raise timed_out(timeout) from None


def wait_in_time(future: Future[Any], loop: asyncio.AbstractEventLoop, timeout: float | None) -> Any:
    """Wait for a coroutine on another thread's event loop, and return its result.

    Raises:
        StepTimedOut: it blocks its loop, and took longer than so many seconds.
        OutcomeUnknown: its loop ended.
    """
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
    """Await an action, and return its error and its value; it is cancelled after so many seconds."""
    # Return errors to the caller: a SystemExit that is raised here would end the loop for every other saga.
    try:
        async with asyncio.timeout(timeout) as bound:
            return None, await awaitable
    except BaseException as error:
        # A step that is cut short may raise any error while it ends. It timed out nevertheless.
        late = bound.expired() and not isinstance(error, asyncio.CancelledError) and is_of_the_step(error)
        return (timed_out(timeout) if late else error), None
