"""What steps do to the context, and which of it is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, Field

from sagas import Call, MemorySagaStorage, OutcomeUnknown, PostgresSagaStorage, RetryPolicy, Saga, SagaStatus, Step
from sagas.errors import ContextError
from sagas.storage.saga_filter import SagaFilter
from tests.samples import Clock, Outcome, QuickEngine, Stage, Trip, book, saga_of

FULL = ConnectionError("fully booked")


@pytest.fixture
def engine() -> QuickEngine:
    return QuickEngine(MemorySagaStorage())


def test_context_changed_in_place_reaches_the_next_step_and_the_database(stage: Stage, engine: QuickEngine) -> None:
    seen: list[list[str]] = []
    saga = stage.saga(stage.step("hotel", [book]), stage.step("car", [lambda c, _: seen.append([*c.booked])]))

    engine.run(saga, Trip(["before"]))

    assert seen == [["before", "hotel"]]
    assert saga.codec.load(engine.stored().context) == Trip(["before", "hotel"])


def test_context_that_an_act_returns_replaces_the_old_one(stage: Stage, engine: QuickEngine) -> None:
    async def replaced(context: Trip, call: Call) -> Trip:
        return Trip([*context.booked, "async"])

    steps = [stage.step("hotel", [lambda c, _: Trip(["sync"])]), stage.step("car", [replaced])]
    saga = stage.saga(*steps)

    engine.run(saga, Trip(["before"]))

    assert saga.codec.load(engine.stored().context) == Trip(["sync", "async"])


def test_compensation_sees_and_changes_the_context(stage: Stage, engine: QuickEngine) -> None:
    def cancel(context: Trip, call: Call) -> None:
        context.booked.remove(call.step_name)

    saga = stage.saga(stage.step("hotel", [book], undo=[cancel]), stage.step("car", [FULL]))

    engine.run(saga, Trip())

    assert saga.codec.load(engine.stored().context) == Trip([])


def test_changes_of_a_failed_attempt_are_dropped(stage: Stage, engine: QuickEngine) -> None:
    def half_done(context: Trip, call: Call) -> None:
        context.booked.append("half a car")
        raise FULL

    policy = RetryPolicy(max_attempts=2, first_delay=0)
    saga = stage.saga(stage.step("hotel", [book]), stage.step("car", [half_done, book], retry=policy))

    engine.run(saga, Trip())

    assert saga.codec.load(engine.stored().context) == Trip(["hotel", "car"])


def test_action_left_behind_by_its_timeout_cannot_touch_the_context_any_more(stage: Stage, engine: QuickEngine) -> None:
    contexts: list[Trip] = []

    async def slow(context: Trip, call: Call) -> None:
        contexts.append(context)
        await asyncio.Event().wait()

    def meddle(context: Trip, call: Call) -> None:
        contexts[0].booked.append("too late")

    saga = stage.saga(stage.step("hotel", [slow, meddle], timeout=0.05, retry=RetryPolicy(first_delay=0)))

    engine.run(saga, Trip())

    assert saga.codec.load(engine.stored().context) == Trip([])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda context, _: setattr(context, "note", {1, 2}),
        lambda context, _: setattr(context, "note", "\0"),
        lambda context, _: setattr(context, "extra", "no field"),
        lambda context, _: setattr(context, "note", float("nan")),
        lambda context, _: setattr(context, "booked", "no list"),
        lambda context, _: "no trip",
        lambda context, _: True,
    ],
)
def test_act_whose_context_cannot_be_kept_is_in_doubt_and_not_repeated(
    stage: Stage, engine: QuickEngine, spoil: Outcome
) -> None:
    policy = RetryPolicy(max_attempts=5, first_delay=0)
    saga = stage.saga("hotel", stage.step("car", [spoil], retry=policy))

    assert engine.run(saga, Trip(["kept"])).outcome == "compensated"

    assert stage.seen == ["act hotel", "act car", "compensate car", "compensate hotel"]
    assert engine.stored().log[1].error_type == "ContextError"
    assert saga.codec.load(engine.stored().context) == Trip(["kept"])


def test_value_that_could_be_stored_and_never_read_back_is_caught_at_its_own_step(engine: QuickEngine) -> None:
    class Basket(BaseModel):
        items: int = Field(default=1, gt=0)

    class Empty(Step[Basket]):
        def act(self, context: Basket, call: Call) -> None:
            context.items = 0

    class Shop(Saga[Basket]):
        steps = (Empty,)

    assert engine.run(Shop, Basket()).outcome == "compensated"
    assert Shop.codec.load(engine.stored().context) == Basket()


STILL_VALID = {"day": True}


def check_day(day: int) -> int:
    if not STILL_VALID["day"]:
        raise ValueError("the day is past")
    return day


@dataclass
class Journey:
    day: Annotated[int, AfterValidator(check_day)] = 1


def test_a_context_that_stops_validating_does_not_hide_that_a_step_is_in_doubt(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_lost(_context: object, _call: Call) -> None:
        monkeypatch.setitem(STILL_VALID, "day", False)
        raise OutcomeUnknown("no answer")

    clock = Clock()
    saga = saga_of([stage.step("hotel"), stage.step("car", [answer_lost])], context=Journey)
    engine = QuickEngine(MemorySagaStorage(clock), sagas=[saga])
    saga_id = engine.start(saga, Journey())

    assert engine.recover(saga_id).outcome == "declined"
    declined = engine.stored()
    assert declined.status is SagaStatus.COMPENSATING
    assert [(entry.step, str(entry.status), entry.in_doubt) for entry in declined.log] == [
        ("hotel", "completed", False),
        ("car", "failed", True),
        ("holder", "declined", False),
    ]

    monkeypatch.undo()
    clock.forward(100)
    assert engine.recover(saga_id).outcome == "compensated"


class Payment(BaseModel):
    cents: int = 1


class Card(Payment):
    number: str = "4111"


class Paid(BaseModel):
    payment: Payment | None = None
    prices: dict[str, int] = {}


def test_a_subclass_in_the_context_is_refused_at_start_and_after_a_step(engine: QuickEngine) -> None:
    class Pay(Step[Paid]):
        def act(self, context: Paid, call: Call) -> None:
            context.payment = Card()

    class Buy(Saga[Paid]):
        steps = (Pay,)

    for start in (engine.start, engine.run):
        with pytest.raises(
            ContextError, match=r"Buy: its context changes .*\(payment is Card before and Payment after\)"
        ):
            start(Buy, Paid(payment=Card()))
    assert engine.storage.find(SagaFilter()) == []

    assert engine.run(Buy, Paid()).outcome == "compensated"
    (failure,) = engine.stored().log
    assert (failure.error_type, failure.in_doubt) == ("ContextError", True)
    assert "payment is Card before and Payment after" in (failure.message or "")


def test_keys_are_in_one_order_in_this_process_and_in_every_other(
    emptied_storage: PostgresSagaStorage, clock: Clock
) -> None:
    seen: list[tuple[str, list[str]]] = []

    class Look(Step[Paid]):
        def act(self, context: Paid, call: Call) -> None:
            seen.append((call.step_name, list(context.prices)))
            context.prices = {"kiwi": 3, **context.prices, "banana": 4}

    class LookAgain(Look):
        retry = RetryPolicy(max_attempts=2, first_delay=0)

        def act(self, context: Paid, call: Call) -> None:
            super().act(context, call)
            if call.attempt == 1:
                raise FULL

    class Buy(Saga[Paid]):
        steps = (Look, LookAgain)

    engine = QuickEngine(emptied_storage)
    prices = {"zebra": 1, "apple": 2}
    engine.run(Buy, Paid(prices=prices))
    in_place, seen[:] = [*seen], []
    engine.recover(engine.start(Buy, Paid(prices=prices)), by_hand=True)

    assert seen == in_place
    assert in_place[0] == ("look", ["zebra", "apple"])
    assert in_place[1:] == [("look-again", ["kiwi", "zebra", "apple", "banana"])] * 2


@pytest.mark.parametrize("value", [1e16, 1e308, -0.0, {"b": 1e22, "a": [True, 1, 2**70]}], ids=repr)
def test_untyped_numbers_reach_a_worker_as_they_were(emptied_storage: PostgresSagaStorage, value: object) -> None:
    seen: list[str] = []
    saga = Stage().saga(Stage().step("hotel", [lambda context, _: seen.append(repr(context.note))]))
    engine = QuickEngine(emptied_storage)

    engine.recover(engine.start(saga, Trip(note=value)), by_hand=True)

    assert seen == [repr(value)]


def test_a_context_is_turned_into_json_once_for_each_change(
    stage: Stage, engine: QuickEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga = stage.saga(stage.step("hotel", [book]), "car", stage.step("plane", [book]))
    saga_id = engine.start(saga, Trip())
    dumps: list[object] = []
    dump = saga.codec.dump
    monkeypatch.setattr(saga.codec, "dump", lambda *args, **options: dumps.append(args) or dump(*args, **options))

    engine.recover(saga_id)

    assert len(dumps) == 1 + 2  # to know what of a stored context is another definition's, and after each change
