"""Calls one action of a step: sync or async, with or without a timeout."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from sagas.loops import loop_of_steps, refuse_within_async_step
from sagas.timeouts import call_in_time, settle, wait_in_time


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
        result = call_in_time(action, timeout)
    return _in_loop(result, timeout) if inspect.isawaitable(result) else result


def _in_loop(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    steps = loop_of_steps()
    if steps.runs_here():
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # an unawaited coroutine would warn
        refuse_within_async_step("performing a saga", "run_async")
    future = asyncio.run_coroutine_threadsafe(settle(awaitable, timeout), steps.loop)
    try:
        error, value = wait_in_time(future, steps.loop, timeout)
    except BaseException:
        # Another exception ended the wait, such as Celery's soft time limit. Cancel the step, so that it does not run
        # at the same time as what follows.
        if steps.runs():
            future.cancel()
        raise
    if error is not None:
        raise error
    return value
