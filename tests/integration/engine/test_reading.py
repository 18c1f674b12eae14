"""`get`, `find` and `wait`, on both storages, and on a database that goes away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import sagas
from sagas import (
    ISagaStorage,
    MemorySagaStorage,
    PostgresSagaStorage,
    RetryPolicy,
    SagaEngine,
    SagaStatus,
    Settings,
    WaitTimedOut,
)
from sagas.errors import InvalidSagaId, SagaNotFound, StorageUnavailable
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, SagaState, completed
from sagas.storage.transitions import Ended
from tests.samples import DEADLINE_SECONDS, QuickEngine, Stage, Trip, always, book

SLOW = RetryPolicy(max_attempts=9, first_delay=600, max_delay=600, jitter=0)


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest) -> QuickEngine:
    """An engine on one storage, and then on the other."""
    memory = request.param == "memory"
    return QuickEngine(MemorySagaStorage() if memory else request.getfixturevalue("emptied_storage"))


@pytest.fixture
def process(either: QuickEngine) -> Iterator[QuickEngine]:
    """The same engine, as that of the process."""
    sagas.configure(either)
    yield either
    sagas.configure(None)


def held(storage: ISagaStorage, **values: Any) -> Callable[[], object]:
    """Store a saga that a worker holds; return what ends it."""
    request = LeaseRequest(owner="worker-1", seconds=600)
    new = NewSaga(**{"id": new_saga_id(), "name": "trip", "context": "{}"} | values)
    storage.create_sagas([new], lease=request)
    lease = Lease(new.id, 1, request.owner, request.token)
    ended = Ended(events=(completed("hotel", Action.ACT),), status=SagaStatus.COMPLETED)
    return lambda: storage.apply(lease, ended)


# -- get ------------------------------------------------------------------------------------------------------


def test_a_saga_is_got_by_its_id_or_its_class_or_name_and_key(stage: Stage, either: QuickEngine) -> None:
    trip = stage.saga(
        stage.step("hotel", [book]), stage.step("car", [ConnectionError("no car")], retry=SLOW), aliases=["tour"]
    )
    saga_id = either.run(trip, Trip(), idempotency_key="k").saga_id

    views = [either.get(which) for which in (saga_id, str(saga_id), (trip, "k"), ("trip", "k"), ("tour", "k"))]

    assert {view.id for view in views} == {saga_id}
    view = views[0]
    assert (view.name, view.status, view.state) == ("tour", SagaStatus.RUNNING, SagaState.READY)
    assert (view.done, view.waiting_for, view.context) == (("hotel",), ("car",), Trip(["hotel"]))
    assert view.until is not None
    assert timedelta(seconds=590) < view.until - view.updated_at < timedelta(seconds=610)


def test_without_the_class_the_context_is_plain_data(stage: Stage, either: QuickEngine) -> None:
    trip = stage.saga(stage.step("hotel", [book]))
    saga_id = either.run(trip, Trip(), idempotency_key="k").saga_id

    view = SagaEngine(either.storage).get(saga_id)

    assert view.context == {"booked": ["hotel"], "note": None}
    assert (view.done, view.over) == (("hotel",), True)
    assert SagaEngine(either.storage).get((trip, "k")).context == Trip(["hotel"])


def test_a_class_of_another_version_does_not_read_the_context(stage: Stage, either: QuickEngine) -> None:
    saga_id = either.run(stage.saga("hotel"), Trip()).saga_id
    newer = SagaEngine(either.storage, sagas=[stage.saga("hotel", version=2)])

    assert newer.get(saga_id).context == {"booked": [], "note": None}
    assert (
        SagaEngine(either.storage, sagas=[stage.saga("hotel", version=2, continues=[1])]).get(saga_id).context == Trip()
    )


def test_what_no_saga_has_is_said(stage: Stage, either: QuickEngine) -> None:
    missing = new_saga_id()

    with pytest.raises(SagaNotFound, match=str(missing)):
        either.get(missing)
    with pytest.raises(SagaNotFound, match="no saga named 'trip' has the idempotency key 'k': "):
        either.get((stage.saga("hotel"), "k"))
    with pytest.raises(SagaNotFound, match="no saga named 'parcel'"):
        either.get(("parcel", "k"))
    with pytest.raises(InvalidSagaId):
        either.get("k")
    with pytest.raises(TypeError, match="is no saga: give its class, or its name"):
        either.get((7, "k"))  # type: ignore[arg-type]


# -- find -----------------------------------------------------------------------------------------------------


def test_sagas_are_found_by_each_filter_the_newest_first(stage: Stage, either: QuickEngine) -> None:
    trip = stage.saga(stage.step("hotel", [None, ValueError("full")]), aliases=["tour"])
    done, undone = either.run(trip, Trip(), idempotency_key="a").saga_id, either.run(trip, Trip()).saga_id
    tagged = NewSaga(id=new_saga_id(), name="parcel", context='{"to": "Rome"}', tags={"customer": "c-7", "shop": "1"})
    either.storage.create_sagas([tagged])
    began = either.get(tagged.id).created_at

    def ids(**filters: Any) -> list[UUID]:
        return [saga.id for saga in either.find(**filters)]

    assert ids() == [tagged.id, undone, done]
    assert ids(name=trip) == ids(name="trip") == ids(name="tour") == [undone, done]
    assert ids(status=SagaStatus.COMPENSATED) == ids(status="COMPENSATED") == [undone]
    assert ids(status=[SagaStatus.COMPLETED, SagaStatus.PENDING]) == [tagged.id, done]
    assert ids(state=SagaState.READY) == ids(state=["ready"]) == ids(tags={"customer": "c-7"}) == [tagged.id]
    assert ids(key="a") == ids(key="a", name=trip) == [done]
    assert ids(tags={"customer": "c-8"}) == []
    assert ids(created_before=began, status=SagaStatus.COMPLETED) == [done]
    assert ids(updated_after=began) == [tagged.id]
    assert ids(limit=1) == [tagged.id]
    assert ids(limit=1, after=tagged.id) == ids(limit=1, after=str(tagged.id)) == [undone]
    assert [saga.context for saga in either.find()] == [{"to": "Rome"}, Trip(), Trip()]
    assert not hasattr(either.find()[0], "done")


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        ({"status": "DONE"}, ValueError, "'DONE' is not a valid SagaStatus"),
        ({"tags": {"customer": 7}}, ValueError, "tag 'customer' is 7: give text for both"),
        ({"created_after": datetime(2031, 1, 1)}, ValueError, "created_after is 2031-01-01 00:00:00: give it a time"),
        ({"limit": 0}, ValueError, "limit is 0"),
        ({"after": "k"}, InvalidSagaId, "is not a saga's id"),
        ({"owner": "me"}, TypeError, "find\\(\\) has no filter 'owner': it has name, status, "),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    either: QuickEngine, filters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        either.find(**filters)


# -- wait -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["COMPLETED", "COMPENSATED", "dead"])
def test_a_wait_returns_a_saga_that_is_over(stage: Stage, either: QuickEngine, how: str) -> None:
    if how == "dead":
        step = stage.step("hotel", [ValueError("full")], always(ConnectionError("away")))
        either.settings = Settings(max_recovery_attempts=1)
        trip = stage.saga("flight", stage.step("car", undo=always(ConnectionError("away"))), step)
    else:
        trip = stage.saga(stage.step("hotel", [None if how == "COMPLETED" else ValueError("full")]))
    saga_id = either.run(trip, Trip(), idempotency_key="k").saga_id

    view = either.wait((trip, "k"), timeout=0)

    assert (view.id, view.over) == (saga_id, True)
    assert how in (view.status, view.state)
    assert view == either.get(saga_id)


def test_a_wait_ends_with_the_saga(either: QuickEngine) -> None:
    saga_id = new_saga_id()
    end = held(either.storage, id=saga_id)
    looks: list[object] = []
    seen = threading.Event()
    head = either.storage.head

    def look(which: UUID) -> Any:
        looks.append(which)
        if len(looks) == 2:
            seen.set()
        return head(which)

    either.storage.head = look  # type: ignore[method-assign]
    ending = threading.Thread(target=lambda: (seen.wait(DEADLINE_SECONDS), end()))
    ending.start()

    view = either.wait(saga_id, timeout=DEADLINE_SECONDS)

    ending.join()
    assert (view.status, view.done) == (SagaStatus.COMPLETED, ("hotel",))
    assert len(looks) >= 3


def test_a_wait_reads_neither_context_nor_log_before_the_end(
    either: QuickEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = new_saga_id()
    held(either.storage, id=saga_id)
    if isinstance(either.storage, PostgresSagaStorage):
        monkeypatch.setattr(either.storage, "load", lambda _: pytest.fail("it was loaded"))
        monkeypatch.setattr(either.storage, "find", lambda _: pytest.fail("it was found"))

    with pytest.raises(WaitTimedOut, match=f"saga {saga_id} has not ended within 0.2 seconds and is RUNNING"):
        either.wait(saga_id, timeout=0.2)


def test_a_dead_saga_that_is_made_to_go_on_is_waited_for_again(stage: Stage, either: QuickEngine) -> None:
    saga_id = new_saga_id()
    end = held(either.storage, id=saga_id)
    head = either.storage.head
    answers = iter([replace(head(saga_id), status=SagaStatus.FAILED, state=SagaState.DEAD)])

    def look(which: UUID) -> Any:
        answer = next(answers, None)
        if answer is None:
            end()
            answer = head(which)
        return answer

    either.storage.head = look  # type: ignore[method-assign]
    assert either.wait(saga_id, timeout=DEADLINE_SECONDS).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
def test_what_is_no_timeout_is_refused(either: QuickEngine, timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout is .*: give a number of seconds"):
        either.wait(new_saga_id(), timeout=timeout)


def test_waiting_for_no_saga_fails_at_once(either: QuickEngine) -> None:
    with pytest.raises(SagaNotFound):
        either.wait(new_saga_id())
    with pytest.raises(SagaNotFound, match="no saga named 'trip'"):
        either.wait(("trip", "k"))


def test_waiting_within_an_async_step_is_refused(stage: Stage, either: QuickEngine) -> None:
    async def act(context: Trip, call: sagas.Call) -> None:
        either.wait(call.saga_id)

    saga_id = either.run(stage.saga(stage.step("hotel", [act])), Trip()).saga_id

    error = either.get(saga_id).last_error
    assert error is not None
    assert "await wait_async()" in error


def test_a_database_that_comes_back_in_time_is_waited_for(emptied_storage: PostgresSagaStorage) -> None:
    engine, saga_id = SagaEngine(emptied_storage), new_saga_id()
    held(emptied_storage, id=saga_id, idempotency_key="k")()
    failed: list[str] = []

    class Away(PostgresSagaStorage):
        """Fails at the first call of each method."""

        def _fail(self, method: str) -> None:
            if method not in failed:
                failed.append(method)
                raise StorageUnavailable("away")

        def find_id(self, name: str, idempotency_key: str) -> Any:
            self._fail("find_id")
            return super().find_id(name, idempotency_key)

        def head(self, saga_id: UUID) -> Any:
            self._fail("head")
            return super().head(saga_id)

        def load(self, saga_id: UUID) -> Any:
            self._fail("load")
            return super().load(saga_id)

    with closing(Away(emptied_storage.connections.url)) as away:
        view = SagaEngine(away).wait(("trip", "k"), timeout=DEADLINE_SECONDS)

    assert failed == ["find_id", "head", "load"]
    assert view == engine.get(saga_id)


def test_a_database_that_stays_away_is_told_at_the_timeout() -> None:
    with closing(PostgresSagaStorage("postgresql+psycopg://nobody@127.0.0.1:1/none")) as storage:
        began = time.monotonic()
        with pytest.raises(WaitTimedOut, match=r"within 0\.3 seconds is unknown, because the database at") as caught:
            SagaEngine(storage).wait(new_saga_id(), timeout=0.3)

    assert time.monotonic() - began >= 0.3
    assert isinstance(caught.value.__cause__, StorageUnavailable)


# -- from a coroutine, and for the engine of the process ------------------------------------------------------


def test_coroutines_get_find_and_wait_while_the_loop_goes_on(process: QuickEngine) -> None:
    saga_id = new_saga_id()
    end = held(process.storage, id=saga_id, tags={"customer": "c-7"})

    async def program() -> tuple[Any, ...]:
        waiting = asyncio.create_task(sagas.wait_async(saga_id, timeout=DEADLINE_SECONDS))
        got, (found,) = await asyncio.gather(sagas.get_async(saga_id), sagas.find_async(tags={"customer": "c-7"}))
        for _ in range(20):
            await asyncio.sleep(0.01)  # as the loop goes on, so do others on it
        assert not waiting.done()
        await asyncio.to_thread(end)
        return got.status, found.id, (await waiting).status

    assert asyncio.run(program()) == (SagaStatus.RUNNING, saga_id, SagaStatus.COMPLETED)
    assert sagas.get(saga_id) == process.get(saga_id)
    assert sagas.find(status=SagaStatus.COMPLETED) == process.find()
    assert sagas.wait(saga_id, 0).done == ("hotel",)


def test_a_coroutine_that_waits_for_a_slow_database_does_not_block_the_loop(either: QuickEngine) -> None:
    saga_id = new_saga_id()
    held(either.storage, id=saga_id)()
    asked, loop_went_on = threading.Event(), threading.Event()
    head = either.storage.head
    in_time: list[bool] = []

    def slow(which: UUID) -> Any:
        asked.set()
        in_time.append(loop_went_on.wait(3.0))
        return head(which)

    either.storage.head = slow  # type: ignore[method-assign]

    async def program() -> None:
        waiting = asyncio.create_task(either.wait_async(saga_id, timeout=DEADLINE_SECONDS))
        while not asked.is_set():
            await asyncio.sleep(0)
        loop_went_on.set()
        assert (await waiting).over

    asyncio.run(program())
    assert in_time == [True]


def test_a_coroutine_that_waits_is_told_at_the_timeout_and_can_be_cancelled(either: QuickEngine) -> None:
    saga_id = new_saga_id()
    held(either.storage, id=saga_id)

    async def program() -> None:
        with pytest.raises(WaitTimedOut):
            await either.wait_async(saga_id, timeout=0.1)
        waiting = asyncio.create_task(either.wait_async(saga_id))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(program())


def test_a_hundred_coroutines_wait_at_once(either: QuickEngine) -> None:
    ends = []
    ids = [new_saga_id() for _ in range(100)]
    for saga_id in ids:
        ends.append(held(either.storage, id=saga_id))

    async def program() -> set[SagaStatus]:
        waiting = [asyncio.create_task(either.wait_async(saga_id, timeout=60)) for saga_id in ids]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(lambda: [end() for end in ends])
        return {view.status for view in await asyncio.gather(*waiting)}

    assert asyncio.run(program()) == {SagaStatus.COMPLETED}
