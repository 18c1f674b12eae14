"""Which event loop async steps run on.

For `run_async` and `recover_async` it is the loop of the caller, so that steps may use clients made there. Everywhere
else it is one loop of the process, in a thread of its own.
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
        """Whether it runs; in a forked child no loop of the parent does, though it looks so."""
        return self.pid == os.getpid() and self.loop.is_running()

    def runs_here(self) -> bool:
        """Whether this is its thread. (asyncio itself would say yes in every greenlet of that thread.)"""
        return self.thread == threading.get_ident() and self.runs()


# The loop of whoever awaits `run_async`; carried along with the context of its thread.
_callers_loop: contextvars.ContextVar[LoopInThread | None] = contextvars.ContextVar("sagas_callers_loop", default=None)
# Kept for as long as the process lives, so that clients and pools that a step keeps serve the next saga too.
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
    """Return the loop on which an async step runs that is performed here."""
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
        # SystemExit in a task that a step spawned stops the loop, and must not leave every other saga waiting; the step
        # gets it too, when it awaits the task.
        with suppress(BaseException):
            loop.run_forever()


def refuse_within_async_step(call: str, instead: str) -> None:
    """Refuse a call that would block the loop of async steps, where it might wait for what only that loop can do.

    Args:
        call: what was called, for the message.
        instead: what to call, for the message.

    Raises:
        RuntimeError: this is that loop's thread.
    """
    if any(each is not None and each.runs_here() for each in (_callers_loop.get(), _process_loop)):
        raise RuntimeError(f"{call}() within an async step would block the event loop it runs on: await {instead}().")


async def call_in_thread(function: Callable[[], _T]) -> _T:
    """Call the function in a thread and return its result; async steps within it run on this loop.

    The thread is one that idles, or else a new one: there is always one, so that sagas never wait for each other's. If
    the caller is cancelled, the function goes on in its thread. It takes none of the loop's default executor, whose
    threads are few: sagas that hold them all would wait for steps that need one, to look up a host's name, say.
    """
    outcome: Future[_T] = Future()
    outcome.set_running_or_notify_cancel()  # so that the caller's cancellation does not reach it
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


def start_thread(function: Callable[[], _T], outcome: Future[_T], *, name: str) -> None:
    """Call the function in a new thread, which does not keep the process from ending, and settle `outcome` by it."""

    threading.Thread(target=_call, args=(function, outcome), name=name, daemon=True).start()


def _call(function: Callable[[], _T], outcome: Future[_T]) -> None:
    try:
        result = function()
    except BaseException as error:  # carried to the caller's thread, whatever it is
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
