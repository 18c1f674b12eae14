"""Calling one action of one step, sync or async, in time or not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeout
from pathlib import Path
from typing import Any

import pytest

from sagas.errors import OutcomeUnknown, StepTimedOut
from sagas.step_runner import perform
from tests.samples import DEADLINE_SECONDS

SHORT = 0.05


async def current_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that is set only after the test, so that what waits for it ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("timeout", [None, DEADLINE_SECONDS])
def test_result_of_a_sync_or_async_action_is_returned(timeout: float | None) -> None:
    async def act() -> str:
        await asyncio.sleep(0)
        return "async"

    assert perform(lambda: "sync", timeout=timeout) == "sync"
    assert perform(act, timeout=timeout) == "async"


@pytest.mark.parametrize("timeout", [None, DEADLINE_SECONDS])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_error_of_an_action_is_the_callers(timeout: float | None, error: BaseException) -> None:
    def act() -> None:
        raise error

    async def act_async() -> None:
        raise error

    for action in (act, act_async):
        with pytest.raises(type(error)) as caught:
            perform(action, timeout=timeout)
        assert caught.value is error


# -- timeouts -----------------------------------------------------------------------------------------------------


def test_sync_action_beyond_its_timeout_is_left_behind_and_in_doubt(never: threading.Event) -> None:
    with pytest.raises(StepTimedOut, match=r"longer than its timeout of 0\.05 seconds") as caught:
        perform(never.wait, timeout=SHORT)

    assert isinstance(caught.value, OutcomeUnknown)


def test_async_action_beyond_its_timeout_is_cancelled() -> None:
    cancelled = threading.Event()

    async def act() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(StepTimedOut, match=r"longer than its timeout of 0\.05 seconds"):
        perform(act, timeout=SHORT)
    assert cancelled.wait(DEADLINE_SECONDS)


def test_async_action_that_raises_another_error_when_cancelled_has_timed_out() -> None:
    async def act() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("closed while waiting") from None

    with pytest.raises(StepTimedOut):
        perform(act, timeout=SHORT)


def test_async_action_that_blocks_the_loop_beyond_its_timeout_counts_as_timed_out(never: threading.Event) -> None:
    async def act() -> None:
        never.wait()

    with pytest.raises(StepTimedOut):
        perform(act, timeout=SHORT)


@pytest.mark.parametrize("kind", [TimeoutError, FuturesTimeout, asyncio.TimeoutError])
@pytest.mark.parametrize("timeout", [None, DEADLINE_SECONDS])
def test_timeout_error_of_the_steps_own_is_not_ours(kind: type[Exception], timeout: float | None) -> None:
    error = kind("the service was slow")

    def act() -> None:
        raise error

    async def act_async() -> None:
        raise error

    for action in (act, act_async):
        with pytest.raises(kind) as caught:
            perform(action, timeout=timeout)
        assert caught.value is error


def test_action_that_ends_the_moment_its_time_is_up_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    wait = Future.result

    def too_late_by_a_hair(self: Future[Any], timeout: float | None = None) -> Any:
        result = wait(self)
        if timeout is not None:
            raise TimeoutError
        return result

    monkeypatch.setattr(Future, "result", too_late_by_a_hair)

    assert perform(lambda: "done", timeout=SHORT) == "done"


# -- the loop -----------------------------------------------------------------------------------------------------


def test_loop_is_kept_so_that_clients_of_one_action_serve_the_next() -> None:
    first = perform(current_loop, timeout=None)

    assert perform(current_loop, timeout=None) is first
    assert perform(current_loop, timeout=DEADLINE_SECONDS) is first


async def exits() -> None:
    sys.exit(3)


async def exits_in_a_task() -> None:
    await asyncio.create_task(exits())


async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize("action", [exits, exits_in_a_task])
def test_exit_in_a_coroutine_does_not_end_the_loop_for_the_others(action: Callable[[], Any]) -> None:
    before = perform(current_loop, timeout=None)

    with pytest.raises(SystemExit):
        perform(action, timeout=DEADLINE_SECONDS)

    assert perform(current_loop, timeout=DEADLINE_SECONDS) is before


def test_action_that_stops_the_loop_does_not_stop_the_others() -> None:
    perform(stops_the_loop, timeout=DEADLINE_SECONDS)

    assert perform(current_loop, timeout=DEADLINE_SECONDS)


def test_actions_of_several_threads_run_at_once() -> None:
    together = 4
    threads_meet = threading.Barrier(together)
    waiting: set[asyncio.Future[None]] = set()

    async def act() -> None:
        waiting.add(mine := asyncio.get_running_loop().create_future())
        if len(waiting) == together:
            for each in waiting:
                each.set_result(None)
        await mine

    def meet(_: int) -> None:
        perform(lambda: threads_meet.wait(DEADLINE_SECONDS), timeout=None)
        perform(act, timeout=DEADLINE_SECONDS)

    with ThreadPoolExecutor(together) as pool:
        assert list(pool.map(meet, range(together))) == [None] * together


def test_action_may_be_called_from_a_coroutine() -> None:
    async def caller() -> str:
        return perform(lambda: asyncio.sleep(0, "ok"), timeout=DEADLINE_SECONDS)  # type: ignore[no-any-return]

    assert asyncio.run(caller()) == "ok"


def test_forked_child_has_a_loop_of_its_own(repository: Path) -> None:
    program = """
import asyncio, os
from sagas.step_runner import perform

async def loop(): return id(asyncio.get_running_loop()), os.getpid()

assert perform(loop, timeout=None)[1] == os.getpid()
if (child := os.fork()) == 0:
    first, second = perform(loop, timeout=10), perform(loop, timeout=10)
    os._exit(0 if first == second and first[1] == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
assert perform(loop, timeout=10)[1] == os.getpid()
"""
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True, timeout=60)
