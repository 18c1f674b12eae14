"""Starting and running sagas, and the engine of the process; the caller's transactions are in another module."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import sagas
from sagas import Call, MemorySagaStorage, PostgresSagaStorage, SagaEngine, SagaStatus, Settings, Step
from sagas.errors import ConfigurationError, ContextError, InvalidSagaId, SagaNotFound, StorageUnavailable
from sagas.graph import Graph
from sagas.storage.records import Claim
from sagas.storage.saga_filter import SagaFilter
from tests.samples import FakeDispatcher, QuickEngine, Stage, Trip, book


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def engine(dispatcher: FakeDispatcher) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(), dispatcher=dispatcher)


@pytest.fixture(params=["memory", "postgresql"])
def either(request: pytest.FixtureRequest, dispatcher: FakeDispatcher) -> QuickEngine:
    """An engine on one storage, and then on the other."""
    memory = request.param == "memory"
    return QuickEngine(
        MemorySagaStorage() if memory else request.getfixturevalue("emptied_storage"), dispatcher=dispatcher
    )


def count(engine: SagaEngine) -> int:
    return len(engine.storage.find(SagaFilter()))


# -- starting -----------------------------------------------------------------------------------------------------


def test_started_saga_is_stored_and_sent_and_not_yet_run(
    stage: Stage, either: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    saga = stage.saga("hotel")

    saga_id = either.start(saga, Trip(["before"]))

    stored = either.stored()
    assert (stored.id, stored.name, stored.status, stored.state) == (saga_id, "trip", SagaStatus.PENDING, "queued")
    assert saga.codec.load(stored.context) == Trip(["before"])
    assert stored.definition == saga.graph.hash
    assert Graph.parse(either.storage.load_definition(saga.graph.hash).graph) == saga.graph
    assert dispatcher.sent == [Claim(saga_id, 0, pending=True)]
    assert stage.seen == []
    assert either.recover(saga_id, version=0).outcome == "completed"


def test_same_key_again_starts_nothing_and_returns_the_first_id(
    stage: Stage, either: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    saga = stage.saga("hotel")

    first = either.start(saga, Trip(["first"]), idempotency_key="order-1")
    second = either.start(saga, Trip(["second"]), idempotency_key="order-1")

    assert first == second
    assert saga.codec.load(either.stored().context) == Trip(["first"])
    assert [claim.saga_id for claim in dispatcher.sent] == [first]


def test_same_key_for_another_saga_starts_it(stage: Stage, either: QuickEngine) -> None:
    ids = {either.start(stage.saga("hotel", name=name), Trip(), idempotency_key="k") for name in ("trip", "refund")}

    assert len(ids) == 2


def test_sagas_without_a_key_are_each_their_own(stage: Stage, either: QuickEngine) -> None:
    saga = stage.saga("hotel")

    assert either.start(saga, Trip()) != either.start(saga, Trip())


def test_many_sagas_are_started_at_once_in_order(stage: Stage, either: QuickEngine, dispatcher: FakeDispatcher) -> None:
    saga = stage.saga("hotel")
    known = either.start(saga, Trip(["known"]), idempotency_key="b")

    ids = either.start_many(saga, [Trip([key]) for key in "abca"], idempotency_keys=list("abca"))

    assert ids[1] == known
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3
    contexts = [saga.codec.load(either.storage.load(saga_id).context) for saga_id in ids]
    assert contexts == [Trip(["a"]), Trip(["known"]), Trip(["c"]), Trip(["a"])]
    assert [claim.saga_id for claim in dispatcher.sent] == [known, ids[0], ids[2]]


def test_starting_or_finding_tells_which_sagas_are_new(stage: Stage, either: QuickEngine) -> None:
    saga = stage.saga("hotel")
    known = either.start(saga, Trip(), idempotency_key="b")

    found = either.start_or_find_many(saga, [Trip()] * 3, idempotency_keys=list("aba"))

    assert [is_new for _, is_new in found] == [True, False, False]
    assert [saga_id for saga_id, _ in found] == [found[0][0], known, found[0][0]]


def test_no_sagas_are_started_without_asking_anybody(
    stage: Stage, engine: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    assert engine.start_many(stage.saga("hotel"), []) == []
    assert dispatcher.sent == []


def test_one_bad_context_among_many_starts_none(stage: Stage, either: QuickEngine) -> None:
    with pytest.raises(ContextError):
        either.start_many(stage.saga("hotel"), [Trip(), Trip(note={1})])

    assert count(either) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", 7])
def test_key_that_cannot_be_stored_is_refused(stage: Stage, engine: QuickEngine, key: Any) -> None:
    with pytest.raises(ValueError, match="give text of 1 to 255 characters without NUL"):
        engine.start(stage.saga("hotel"), Trip(), idempotency_key=key)


def test_keys_must_be_as_many_as_contexts(stage: Stage, engine: QuickEngine) -> None:
    with pytest.raises(ValueError, match="2 idempotency keys for 1 contexts: give one for each"):
        engine.start_many(stage.saga("hotel"), [Trip()], idempotency_keys=["a", "b"])


def test_key_of_255_characters_is_stored(stage: Stage, either: QuickEngine) -> None:
    either.start(stage.saga("hotel"), Trip(), idempotency_key="é" * 255)

    assert either.stored().idempotency_key == "é" * 255


@pytest.mark.parametrize("note", [{1, 2}, float("nan"), "a\0b", "\ud800"])
def test_context_that_cannot_be_read_back_is_refused_before_anything_is_stored(
    stage: Stage, engine: QuickEngine, note: Any
) -> None:
    with pytest.raises(ContextError):
        engine.start(stage.saga("hotel"), Trip(note=note))
    with pytest.raises(ContextError):
        engine.run(stage.saga("hotel"), Trip(note=note))

    assert count(engine) == 0


# -- with the broker down -----------------------------------------------------------------------------------------


class Exploding(FakeDispatcher):
    def send(self, claims: Sequence[Claim]) -> int:
        raise ConnectionError("the broker's client fell over")


def test_broker_that_is_down_does_not_stop_a_start_and_the_next_scan_sends_it(
    stage: Stage, either: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    dispatcher.capacity = 0

    ids = either.start_many(stage.saga("hotel"), [Trip(), Trip()])

    assert {record.lease_owner for record in either.storage.find(SagaFilter())} == {None}
    dispatcher.capacity = None
    assert set(either.scan().dispatched) == set(ids)


def test_dispatcher_that_raises_does_not_stop_a_start(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    engine = QuickEngine(MemorySagaStorage(), dispatcher=Exploding())

    saga_id = engine.start(stage.saga("hotel"), Trip())

    assert engine.stored().id == saga_id
    assert "sending 1 sagas failed; a later scan sends them" in caplog.text


def test_without_a_dispatcher_a_started_saga_is_free_for_whoever_scans(stage: Stage) -> None:
    engine = QuickEngine(MemorySagaStorage())
    engine.start(stage.saga("hotel"), Trip())

    assert (engine.stored().status, engine.stored().lease_owner) == (SagaStatus.PENDING, None)


def test_start_with_the_database_down_tells_how_to_start_again_safely(stage: Stage) -> None:
    engine = SagaEngine(PostgresSagaStorage("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none"))

    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:1/none did not answer") as caught:
        engine.start(stage.saga("hotel"), Trip())
    assert "hunter2" not in str(caught.value)


# -- running here and now -----------------------------------------------------------------------------------------


def test_run_again_with_the_same_key_runs_nothing_and_reports(stage: Stage, either: QuickEngine) -> None:
    saga = stage.saga("hotel")
    first = either.run(saga, Trip(), idempotency_key="order-1")

    again = either.run(saga, Trip(), idempotency_key="order-1")

    assert (again.saga_id, again.outcome, again.status) == (first.saga_id, "skipped", SagaStatus.COMPLETED)
    assert again.message == "a saga with this idempotency key was started before and is COMPLETED."
    assert stage.seen == ["act hotel"]


def test_run_needs_no_broker(stage: Stage, engine: QuickEngine, dispatcher: FakeDispatcher) -> None:
    assert engine.run(stage.saga("hotel", "car"), Trip()).outcome == "completed"
    assert dispatcher.sent == []


def test_report_is_plain_data_for_flower(stage: Stage, engine: QuickEngine) -> None:
    report = engine.run(stage.saga("hotel"), Trip())

    assert report.as_json() == {
        "saga_id": str(report.saga_id),
        "name": "trip",
        "status": "COMPLETED",
        "outcome": "completed",
        "events": ["hotel: acted"],
        "message": "the saga is COMPLETED.",
    }


def test_whole_life_of_a_saga_in_postgresql(stage: Stage, emptied_storage: PostgresSagaStorage) -> None:
    engine = QuickEngine(emptied_storage)
    saga = stage.saga(
        stage.step("hotel", [book]),
        stage.step("car", [lambda c, _: Trip([*c.booked, "car"], {"k": [1.5, None]})]),
        "plane",
    )

    report = engine.run(saga, Trip())

    assert report.outcome == "completed"
    stored = engine.stored()
    assert saga.codec.load(stored.context) == Trip(["hotel", "car"], {"k": [1.5, None]})
    assert [(entry.step, entry.status, entry.version) for entry in stored.log] == [
        ("hotel", "completed", 1),
        ("car", "completed", 1),
        ("plane", "completed", 1),
    ]
    assert (stored.status, stored.lease_owner) == (SagaStatus.COMPLETED, None)


def test_sagas_of_several_threads_run_at_once(stage: Stage, emptied_storage: PostgresSagaStorage) -> None:
    engine = QuickEngine(emptied_storage)
    saga = stage.saga(stage.step("hotel", [book] * 100), "car")

    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: engine.run(saga, Trip()), range(24)))

    assert {report.outcome for report in reports} == {"completed"}
    assert len({report.saga_id for report in reports}) == 24


# -- from coroutines ----------------------------------------------------------------------------------------------


def test_coroutine_starts_and_runs_sagas(stage: Stage, either: QuickEngine, dispatcher: FakeDispatcher) -> None:
    async def booked(context: Trip, call: Call) -> None:
        await asyncio.sleep(0)
        book(context, call)

    saga = stage.saga(stage.step("hotel", [booked]))

    async def main() -> None:
        started = await either.start_async(saga, Trip(), idempotency_key="a")
        many = await either.start_many_async(saga, [Trip(), Trip()], idempotency_keys=["a", "b"])
        report = await either.run_async(saga, Trip(), idempotency_key="c")

        assert many[0] == started
        assert [claim.saga_id for claim in dispatcher.sent] == [started, many[1]]
        assert report.outcome == "completed"

    asyncio.run(main())


# -- recovering ---------------------------------------------------------------------------------------------------


def test_recover_takes_an_id_as_text_and_refuses_what_is_none(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())

    assert engine.recover(str(saga_id)).outcome == "completed"
    assert engine.recover(saga_id).message == "nothing to do: the saga is COMPLETED already."
    with pytest.raises(InvalidSagaId):
        engine.recover("hotel")
    with pytest.raises(SagaNotFound):
        engine.recover("01890a5d-ac96-774b-bcce-b302099a8057")


def test_holder_changes_its_name_in_a_forked_child(engine: QuickEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = engine.runtime().owner
    assert engine.runtime().owner == parent

    monkeypatch.setattr(os, "getpid", os.getppid)

    assert engine.runtime().owner.startswith(f"{engine.node}/{os.getppid()}.")


# -- from the environment -----------------------------------------------------------------------------------------


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The module `shop_under_test`, which holds a saga and a resolver."""
    stage, module = Stage(), types.ModuleType("shop_under_test")
    module.Travel = stage.saga("hotel")  # type: ignore[attr-defined]
    module.resolve = lambda step: step()  # type: ignore[attr-defined]
    module.not_callable = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_under_test", module)
    return stage


def test_environment_describes_an_engine(shop: Stage, emptied_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_DATABASE_URL", emptied_url)
    monkeypatch.setenv("SAGAS_MODULES", "shop_under_test")
    monkeypatch.setenv("SAGAS_LEASE_SECONDS", "7")

    engine = SagaEngine.from_environment(dispatcher=None)

    assert engine.settings.lease_seconds == 7
    saga_id = engine.start(engine.registry.get("trip"), Trip())
    assert engine.recover(saga_id).outcome == "completed"
    assert shop.seen == ["act hotel"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("shop_under_test", "cannot be loaded"),
        ("shop_under_test:nothing", "cannot be loaded .*write it as 'package.module:function'"),
        ("no_such_shop:resolve", "cannot be loaded .*No module named"),
        (":resolve", "cannot be loaded"),
        ("shop_under_test:not_callable", "cannot be called: name a function"),
    ],
)
def test_resolver_that_cannot_work_is_refused_by_name(shop: Stage, path: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SAGAS_RESOLVER is '{path}', which {message}"):
        SagaEngine.from_environment(Settings(resolver=path), dispatcher=None)


def test_resolver_is_found_by_its_name(shop: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[type[Step[Any]]] = []

    def resolve(step: type[Step[Any]]) -> Step[Any]:
        built.append(step)
        return step()

    monkeypatch.setattr(sys.modules["shop_under_test"], "resolve", resolve)
    engine = SagaEngine.from_environment(Settings(resolver="shop_under_test:resolve"), dispatcher=None)

    engine.runtime().resolve(shop.step("hotel"))

    assert len(built) == 1


# -- the engine of the process ------------------------------------------------------------------------------------


@pytest.fixture
def configured(engine: QuickEngine) -> Iterator[QuickEngine]:
    sagas.configure(engine)
    yield engine
    sagas.configure(None)


def test_functions_of_the_package_use_the_configured_engine(
    stage: Stage, configured: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    saga = stage.saga("hotel")
    started = sagas.start(saga, Trip(), idempotency_key="a")

    assert sagas.current_engine() is configured
    assert sagas.start_many(saga, [Trip()], idempotency_keys=["a"]) == [started]
    assert asyncio.run(sagas.start_async(saga, Trip(), idempotency_key="a")) == started
    assert sagas.run(saga, Trip()).outcome == "completed"
    assert sagas.recover_saga(str(started)).outcome == "completed"
    assert sagas.recover_saga(started, by_hand=True).outcome == "skipped"
    assert [claim.saga_id for claim in dispatcher.sent] == [started]


def test_engine_of_the_process_is_made_once_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_SCAN_LIMIT", "3")
    sagas.configure(None)
    try:
        engine = sagas.current_engine()

        assert engine.settings.scan_limit == 3
        assert sagas.current_engine() is engine
    finally:
        sagas.configure(None)


def test_setting_that_cannot_work_is_told_when_the_engine_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_SCAN_LIMIT", "none")
    sagas.configure(None)

    with pytest.raises(ConfigurationError, match="SAGAS_SCAN_LIMIT"):
        sagas.current_engine()
