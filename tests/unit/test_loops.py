"""Which event loop async steps run on, and that nothing waits for a loop that it blocks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import sagas
from sagas import Call, MemorySagaStorage, Report, SagaEngine, SagaStatus, configure
from sagas.errors import OutcomeUnknown
from sagas.loops import call_in_thread
from sagas.step_runner import perform
from tests.samples import DEADLINE_SECONDS, QuickEngine, Stage, Trip, always


@pytest.fixture
def engine() -> SagaEngine:
    return QuickEngine(MemorySagaStorage())


def on_a_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run the coroutine on a loop of its own; it must end in time."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main(), DEADLINE_SECONDS)

    return asyncio.run(bounded())


# -- which loop ---------------------------------------------------------------------------------------------------


def test_async_steps_run_on_the_loop_of_who_awaits_the_run(stage: Stage, engine: SagaEngine) -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    async def note(*_: object) -> None:
        seen.append(asyncio.get_running_loop())

    saga = stage.saga(
        stage.step("hotel", [note], [note]),
        stage.step("car", [note], [note], timeout=DEADLINE_SECONDS),
        stage.step("plane", [lambda *_: 1 / 0]),
    )

    async def main() -> asyncio.AbstractEventLoop:
        assert (await engine.run_async(saga, Trip())).outcome == "compensated"
        return asyncio.get_running_loop()

    here = on_a_loop(main)
    assert seen == [here] * 4

    seen.clear()
    assert engine.run(stage.saga(stage.step("hotel", [note])), Trip()).outcome == "completed"
    assert perform(note, timeout=None) is None
    assert seen[0] is seen[1]
    assert seen[0] is not here


def test_async_steps_of_a_recovery_run_on_the_loop_of_who_awaits_it(stage: Stage, engine: SagaEngine) -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    async def note(*_: object) -> None:
        seen.append(asyncio.get_running_loop())

    first, second = (engine.start(stage.saga(stage.step("hotel", [note] * 2)), Trip()) for _ in range(2))
    configure(engine)

    async def main() -> None:
        assert (await engine.recover_async(first)).outcome == "completed"
        assert (await sagas.recover_saga_async(second)).outcome == "completed"
        assert seen == [asyncio.get_running_loop()] * 2

    try:
        on_a_loop(main)
    finally:
        configure(None)


def test_step_uses_a_client_that_was_made_on_the_callers_loop(stage: Stage, engine: SagaEngine) -> None:
    async def main() -> str:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        lock = asyncio.Lock()

        async def ask(context: Trip, _: Call) -> None:
            async with lock:
                writer.write(b"a room\n")
                context.note = (await reader.readline()).decode()

        saga = stage.saga(stage.step("hotel", always(ask)), stage.step("car", always(ask), timeout=DEADLINE_SECONDS))
        runs = await asyncio.gather(*(engine.run_async(saga, Trip()) for _ in range(5)))
        assert [report.outcome for report in runs] == ["completed"] * 5
        writer.close()
        server.close()
        return str(engine.storage.load(runs[0].saga_id).context)

    assert "a room" in on_a_loop(main)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


def test_context_variables_of_the_caller_reach_steps_of_both_kinds(stage: Stage, engine: SagaEngine) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="none")
    seen: list[str] = []

    async def note_async(*_: object) -> None:
        seen.append(tenant.get())

    saga = stage.saga(stage.step("hotel", [lambda *_: seen.append(tenant.get())]), stage.step("car", [note_async]))

    async def main() -> None:
        tenant.set("acme")
        await engine.run_async(saga, Trip())

    on_a_loop(main)
    assert seen == ["acme", "acme"]


# -- nothing hangs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["run", "run_async"])
@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda engine, saga, saga_id: engine.run(saga, Trip()), "run_async"),
        (lambda engine, saga, saga_id: sagas.run(saga, Trip()), "run_async"),
        (lambda engine, saga, saga_id: engine.recover(saga_id), "recover_async"),
        (lambda engine, saga, saga_id: sagas.recover_saga(saga_id), "recover_async"),
    ],
    ids=["run", "api.run", "recover", "api.recover_saga"],
)
def test_call_that_would_block_the_loop_of_async_steps_is_refused(
    stage: Stage, engine: SagaEngine, begin: str, call: Callable[..., Report], instead: str
) -> None:
    async def nothing(*_: object) -> None: ...

    inner = stage.saga(stage.step("room", [nothing]), name="inner")
    waiting = engine.start(inner, Trip())
    told: list[str] = []

    async def outer(*_: object) -> None:
        with pytest.raises(RuntimeError) as caught:
            call(engine, inner, waiting)
        told.append(str(caught.value))

    saga = stage.saga(stage.step("hotel", [outer]), name="outer")
    configure(engine)
    try:
        if begin == "run":
            report = _in_time(lambda: engine.run(saga, Trip()))
        else:
            report = on_a_loop(lambda: engine.run_async(saga, Trip()))
    finally:
        configure(None)

    assert report.outcome == "completed"
    assert told[0].endswith(f"within an async step would block the event loop it runs on: await {instead}().")
    assert engine.storage.load(waiting).status is SagaStatus.PENDING
    assert _in_time(lambda: engine.run(inner, Trip())).outcome == "completed"


@pytest.mark.parametrize("begin", ["run", "run_async"])
def test_saga_within_an_async_step_runs_when_it_is_awaited(stage: Stage, engine: SagaEngine, begin: str) -> None:
    loops = set()

    async def note(*_: object) -> None:
        loops.add(asyncio.get_running_loop())

    inner = stage.saga(stage.step("room", [note] * 2), name="inner")

    async def outer(*_: object) -> None:
        loops.add(asyncio.get_running_loop())
        assert (await engine.run_async(inner, Trip())).outcome == "completed"
        assert (await asyncio.to_thread(engine.run, inner, Trip())).outcome == "completed"

    saga = stage.saga(stage.step("hotel", [outer]), name="outer")
    if begin == "run":
        assert _in_time(lambda: engine.run(saga, Trip())).outcome == "completed"
    else:
        assert on_a_loop(lambda: engine.run_async(saga, Trip())).outcome == "completed"
    assert len(loops) == 1


def test_saga_within_a_sync_step_runs(stage: Stage, engine: SagaEngine) -> None:
    async def nothing(*_: object) -> None: ...

    inner = stage.saga(stage.step("room", [nothing] * 2), name="inner")
    saga = stage.saga(stage.step("hotel", [lambda *_: engine.run(inner, Trip()) and None] * 2), name="outer")

    assert _in_time(lambda: engine.run(saga, Trip())).outcome == "completed"
    assert on_a_loop(lambda: engine.run_async(saga, Trip())).outcome == "completed"


def test_run_from_a_coroutine_without_awaiting_it_ends(stage: Stage, engine: SagaEngine) -> None:
    async def nothing(*_: object) -> None: ...

    async def main() -> Report:
        return engine.run(stage.saga(stage.step("hotel", [nothing])), Trip())

    assert _in_time(lambda: asyncio.run(main())).outcome == "completed"


def test_many_runs_at_once_leave_threads_to_their_steps(stage: Stage, engine: SagaEngine) -> None:
    """Each of them holds a thread; were they of the loop's executor, no step would ever get one."""
    many = 60
    inner = stage.saga("room", name="inner")

    async def use_a_thread(*_: object) -> None:
        await asyncio.to_thread(time.sleep, 0)
        await engine.start_async(inner, Trip())
        await engine.run_async(inner, Trip())

    saga = stage.saga(stage.step("hotel", [use_a_thread] * many), name="outer")

    async def main() -> list[Report]:
        return await asyncio.gather(*(engine.run_async(saga, Trip()) for _ in range(many)))

    assert [report.outcome for report in on_a_loop(main)] == ["completed"] * many


def _in_time(function: Callable[[], Report]) -> Report:
    """Call it in a thread, so that a test of what might hang fails instead."""
    done: list[Report] = []
    thread = threading.Thread(target=lambda: done.append(function()), daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), "it hangs"
    return done[0]


# -- ends of loops, runs and processes ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_saga_goes_on_when_who_awaits_it_is_cancelled(stage: Stage, engine: SagaEngine) -> None:
    go_on = threading.Event()
    ended = threading.Event()

    async def wait(*_: object) -> None:
        await asyncio.to_thread(go_on.wait, DEADLINE_SECONDS)

    saga = stage.saga(stage.step("hotel", [wait]), stage.step("car", [lambda *_: ended.set()]))

    async def main() -> None:
        run = asyncio.create_task(engine.run_async(saga, Trip()))
        while not stage.seen:
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        go_on.set()
        assert await asyncio.to_thread(ended.wait, DEADLINE_SECONDS)

    on_a_loop(main)
    for thread in threading.enumerate():
        if thread.name == "sagas-run":
            thread.join(DEADLINE_SECONDS)
    assert stage.seen == ["act hotel", "act car"]


def test_step_whose_loop_stands_still_is_in_doubt() -> None:
    loop = asyncio.new_event_loop()
    begun = threading.Event()
    raised: list[BaseException] = []

    async def act() -> None:
        begun.set()
        await asyncio.Event().wait()

    def run() -> None:
        with pytest.raises(OutcomeUnknown) as caught:
            perform(act, timeout=None)
        raised.append(caught.value)

    ended = threading.Event()

    def run_and_tell() -> None:
        run()
        ended.set()

    async def main() -> None:
        call = asyncio.create_task(call_in_thread(run_and_tell))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        call.cancel()

    loop.run_until_complete(main())
    assert ended.wait(DEADLINE_SECONDS)
    assert "its event loop ended before it did" in str(raised[0])
    loop.close()


def _functions_of(thread: int) -> set[str]:
    return {frame.name for frame in traceback.extract_stack(sys._current_frames()[thread])}


def test_step_is_cancelled_when_something_else_ends_the_wait_for_it() -> None:
    class TimeLimit(Exception):
        pass

    def limit(*_: object) -> None:
        raise TimeLimit

    cancelled = threading.Event()
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    async def act() -> None:
        while "wait_in_time" not in _functions_of(main_thread):
            await asyncio.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are handled in the main thread only")
    before = signal.signal(signal.SIGUSR1, limit)
    try:
        with pytest.raises(TimeLimit):
            perform(act, timeout=None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cancelled.wait(DEADLINE_SECONDS)


def test_child_that_is_forked_within_an_awaited_run_has_a_loop_that_runs(repository: Path) -> None:
    program = """
import asyncio, os
from sagas.loops import call_in_thread
from sagas.step_runner import perform

async def pid(): return os.getpid()

def fork():
    if (child := os.fork()) == 0:
        right = False
        try:
            right = perform(pid, timeout=5) == os.getpid()
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1]

assert asyncio.run(call_in_thread(fork)) == 0
"""
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True, timeout=60, env=os.environ)


def test_async_steps_of_greenlets_run_beside_each_other_and_none_may_block_the_loop(repository: Path) -> None:
    """Every greenlet is in the thread of the loop, as far as asyncio can see."""
    pytest.importorskip("gevent")
    program = """
from gevent import monkey; monkey.patch_all()
import asyncio, gevent
from dataclasses import dataclass
from sagas import MemorySagaStorage, Saga, SagaEngine, Step

@dataclass
class Trip: note: str = ""

waiting = []

class Meet(Step[Trip]):
    async def act(self, trip, call):
        waiting.append(mine := asyncio.get_running_loop().create_future())
        if len(waiting) == 5:
            for each in waiting:
                each.set_result(None)
        await mine

class Block(Step[Trip]):
    async def act(self, trip, call):
        engine.run(Meeting, Trip())

class Meeting(Saga[Trip]): steps = [Meet]
class Blocking(Saga[Trip]): steps = [Block]

engine = SagaEngine(MemorySagaStorage())
runs = [gevent.spawn(engine.run, Meeting, Trip()) for _ in range(5)]
print([str(run.get(timeout=20).outcome) for run in runs])
print(gevent.spawn(engine.run, Blocking, Trip()).get(timeout=20).events)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.splitlines() == [
        "['completed', 'completed', 'completed', 'completed', 'completed']",
        "('block: act failed (RuntimeError), abort',)",
    ], done.stderr[-3000:]


def test_a_thread_that_has_nothing_to_do_is_used_again_and_then_ends() -> None:
    async def main() -> set[threading.Thread]:
        threads = set()
        for _ in range(50):
            threads.add(await call_in_thread(threading.current_thread))
        return threads

    threads = asyncio.run(main())

    assert len(threads) < 50
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
