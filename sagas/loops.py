"""Chooses the event loop on which async steps run.

`run_async` and `recover_async` use the caller's loop, so that steps may use clients that were made there. Everything
else uses one loop of the process, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue
from typing import Final, TypeVar

_T = TypeVar("_T")
#: Seconds for which a thread waits for more to do.
_IDLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class LoopInThread:
    """An event loop, and the process and thread that it runs in."""

    loop: asyncio.AbstractEventLoop
    pid: int
    thread: int | None

    def runs(self) -> bool:
        """Whether the loop runs. In a forked child, a loop of the parent looks running but does not run."""
        return self.pid == os.getpid() and self.loop.is_running()

    def runs_here(self) -> bool:
        """Whether the caller is in the loop's thread. (asyncio would also say so in every greenlet of that thread.)"""
        return self.thread == threading.get_ident() and self.runs()


# The loop of the coroutine that awaits `run_async`. The context of each thread carries it.
_callers_loop: contextvars.ContextVar[LoopInThread | None] = contextvars.ContextVar("sagas_callers_loop", default=None)
# Kept until the process ends, so that clients and pools that a step keeps can serve the next saga too.
_process_loop: LoopInThread | None = None
_lock = threading.Lock()
#: The threads that have nothing to do, by the queues that they wait at. Starting one takes longer than most steps do.
_idle: list[Queue[Callable[[], None]]] = []


def _forget_threads() -> None:
    """After a fork, forget the threads, which stayed with the parent, and a lock that one of them may hold."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, where programs start sagas too
    os.register_at_fork(after_in_child=_forget_threads)


def loop_of_steps() -> LoopInThread:
    """Return the event loop for async steps that this thread runs."""
    global _process_loop  # noqa: PLW0603
    callers = _callers_loop.get()
    if callers is not None and callers.runs():
        return callers
    with _lock:
        if _process_loop is None or _process_loop.pid != os.getpid():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_keep_running, args=(loop,), name="sagas-loop", daemon=True)
            thread.start()
            _process_loop = LoopInThread(loop, os.getpid(), thread.ident)
        return _process_loop


def _keep_running(loop: asyncio.AbstractEventLoop) -> None:
    while not loop.is_closed():
        # A SystemExit in a task that a step spawned stops the loop. Run the loop again, so that other sagas do not wait
        # for ever. The step also gets the SystemExit when it awaits the task.
        with suppress(BaseException):
            loop.run_forever()


def refuse_within_async_step(call: str, instead: str) -> None:
    """Refuse a call that would block the loop of async steps. The call might wait for work that only that loop can do.

    Args:
        call: the function that was called, for the message.
        instead: the function to call, for the message.

    Raises:
        RuntimeError: this is that loop's thread.
    """
    if any(each is not None and each.runs_here() for each in (_callers_loop.get(), _process_loop)):
        raise RuntimeError(f"{call}() within an async step would block the event loop it runs on: await {instead}().")


async def call_in_thread(function: Callable[[], _T]) -> _T:
    """Call the function in a thread and return its result. Async steps within it run on this loop.

    The thread is an idle one, or else a new one, so that no saga waits for the thread of another. If the caller is
    cancelled, the function continues in its thread. The thread is not one of the loop's default executor, which has
    few: sagas that hold all of them would wait for steps that need one, to look up a host's name, for example.
    """
    outcome: Future[_T] = Future()
    outcome.set_running_or_notify_cancel()  # a running future is not cancelled with the caller
    context = contextvars.copy_context()
    here = LoopInThread(asyncio.get_running_loop(), os.getpid(), threading.get_ident())
    context.run(_callers_loop.set, here)
    work = partial(_call, partial(context.run, function), outcome)
    try:
        _idle.pop().put(work)
    except IndexError:
        inbox: Queue[Callable[[], None]] = Queue()
        inbox.put(work)
        threading.Thread(target=_work, args=(inbox,), name="sagas-run", daemon=True).start()
    del work  # or this coroutine would refer to itself, by the future that it awaits
    return await asyncio.wrap_future(outcome)


def _work(inbox: Queue[Callable[[], None]]) -> None:
    """Do what comes, one piece after another, until nothing came for a while."""
    while True:
        try:
            inbox.get(timeout=_IDLE_SECONDS)()
        except Empty:
            try:
                _idle.remove(inbox)
            except ValueError:
                continue  # somebody has just taken it, so work comes
            return
        _idle.append(inbox)


class SerialThread:
    """A thread that calls functions one after another, in the context in which it was made.

    Args:
        at_end: called in the thread after the last function.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._inbox: Queue[tuple[Callable[[], None], bool]] = Queue()
        self._at_end = at_end
        work = partial(contextvars.copy_context().run, self._work)
        threading.Thread(target=work, name="sagas-transaction", daemon=True).start()

    def call(self, function: Callable[[], _T], *, last: bool) -> Future[_T]:
        """Have the function called after those before it; the thread ends after the last."""
        outcome: Future[_T] = Future()
        outcome.set_running_or_notify_cancel()  # a running future is not cancelled with whoever waits for it
        self._inbox.put((partial(_call, function, outcome), last))
        return outcome

    def _work(self) -> None:
        last = False
        while not last:
            work, last = self._inbox.get()
            work()
            del work
        with suppress(Exception):
            self._at_end()


def start_thread(function: Callable[[], _T], outcome: Future[_T], *, name: str) -> None:
    """Call the function in a new daemon thread, and set its result or error on `outcome`."""

    threading.Thread(target=_call, args=(function, outcome), name=name, daemon=True).start()


def _call(function: Callable[[], _T], outcome: Future[_T]) -> None:
    try:
        result = function()
    except BaseException as error:  # passed on to the caller's thread
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
