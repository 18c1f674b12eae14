"""Calling one action of one step: sync or async, with or without a timeout."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from sagas.errors import StepTimedOut


def perform(action: Callable[[], Any], *, timeout: float | None) -> Any:
    """Call the action and return what it returned, awaited if it is awaitable.

    Args:
        action: to be called without arguments.
        timeout: seconds it may take; None for no limit. A sync action cannot be stopped: it is left behind in its
            thread, with a context that is no longer looked at.

    Raises:
        StepTimedOut: it took longer.
        BaseException: whatever the action raised.
    """
    if timeout is None:
        result = action()
    else:
        # Whether it is async shows only when called, and calling may block: so it is called in a thread.
        result = _in_thread(action, timeout)
    return _in_loop(result, timeout) if inspect.isawaitable(result) else result


def _in_thread(action: Callable[[], Any], timeout: float) -> Any:
    outcome: Future[Any] = Future()
    context = contextvars.copy_context()  # of the caller: which saga this is, and the span it is part of

    def run() -> None:
        try:
            outcome.set_result(context.run(action))
        except BaseException as error:  # carried to the caller's thread, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name="sagas-step", daemon=True).start()
    return _result(outcome, timeout, within=timeout)


def _result(outcome: Future[Any], timeout: float | None, *, within: float | None) -> Any:
    try:
        return outcome.result(within)
    except TimeoutError:
        if outcome.done():
            return outcome.result()  # it ended this very moment, or the error is the step's own
        raise _timed_out(timeout) from None


def _timed_out(timeout: float | None) -> StepTimedOut:
    return StepTimedOut(f"it took longer than its timeout of {timeout:g} seconds, and may still take effect")


# One event loop for the process, in a thread of its own, so that clients and pools that a step keeps survive between
# sagas, and so that sagas may be run from threads and from coroutines alike.
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
_loop_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().__setitem__("_loop_lock", threading.Lock()))


def _event_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603
    with _loop_lock:
        if _loop is None or _loop[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_keep_running, args=(loop,), name="sagas-loop", daemon=True).start()
            _loop = (os.getpid(), loop)
        return _loop[1]


def _keep_running(loop: asyncio.AbstractEventLoop) -> None:
    while not loop.is_closed():
        # SystemExit in a task that a step spawned stops the loop, and must not leave every other saga waiting; the step
        # gets it too, when it awaits the task.
        with suppress(BaseException):
            loop.run_forever()


def _in_loop(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    future = asyncio.run_coroutine_threadsafe(_settle(awaitable, timeout), _event_loop())
    # A step that blocks the loop cannot be cancelled by it; a second more, and it counts as timed out all the same.
    error, value = _result(future, timeout, within=None if timeout is None else timeout + 1)
    if error is not None:
        raise error
    return value


async def _settle(awaitable: Awaitable[Any], timeout: float | None) -> tuple[BaseException | None, Any]:
    # SystemExit and the like would end the loop for every other saga: they are handed to the caller instead.
    try:
        async with asyncio.timeout(timeout) as bound:
            return None, await awaitable
    except BaseException as error:
        # Cut short, a step may raise what it likes on its way out; it timed out all the same.
        late = isinstance(error, Exception) and bound.expired()
        return (_timed_out(timeout) if late else error), None
