"""The crash matrix finds nothing in sagas that have no bug."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any

from typing_extensions import TypedDict

from sagas import Call, RetryPolicy, SagaStatus, Step
from sagas.testing.crashes import Fault, Outcome, crash_matrix
from tests.unit.testing.shop import (
    Charge,
    Notify,
    Order,
    Parcel,
    PlaceOrder,
    Reserve,
    Shop,
    bugs,
    saga,
    step,
)


def test_a_correct_saga_survives() -> None:
    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        placed = outcome.status is SagaStatus.COMPLETED
        assert shop.stock["lamp"] == (8 if placed else 10)
        assert shop.letters == ["o-1"] or not placed
        assert outcome.context.notes == ["reserved"] or not placed

    assert str(crash_matrix(PlaceOrder, Order, world=Shop, check=check)).startswith("place-order survives every crash")


def test_a_saga_with_a_pivot_survives() -> None:
    ship = step("ship", Notify.act, pivot=True)
    tell = step("tell", Notify.act, retry=RetryPolicy(max_attempts=2))
    statuses: set[tuple[str, SagaStatus]] = set()

    def check(_: Shop, outcome: Outcome[Order]) -> None:
        statuses.add((str(outcome.plan.failure), outcome.status))

    crash_matrix(saga(Reserve, Charge, ship, tell), Order, world=Shop, check=check, pairs=False)

    assert ("ship fails", SagaStatus.COMPENSATED) in statuses
    assert ("tell fails", SagaStatus.COMPLETED) in statuses
    assert ("tell takes effect, but its answer is lost", SagaStatus.COMPLETED) in statuses


def test_a_saga_without_compensations_survives() -> None:
    assert bugs(saga(step("reserve", Reserve.act), step("charge", Charge.act), Notify)) == set()


def test_async_steps_survive() -> None:
    async def act(self: Any, order: Order, call: Call) -> None:
        await asyncio.sleep(0)
        Reserve.act(self, order, call)

    async def compensate(self: Any, order: Order, call: Call) -> None:
        await asyncio.sleep(0)
        Reserve.compensate(self, order, call)

    made = saga(step("reserve", act, compensate), step("again", act, timeout=60), Charge)
    matrix = crash_matrix(made, Order, world=Shop, pairs=False)

    assert any("after compensate of reserve" in str(plan) for plan in matrix.plans)


def test_steps_with_timeouts_and_retries_survive() -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=60, max_delay=3600)
    made = saga(
        step("reserve", Reserve.act, Reserve.compensate, timeout=5, retry=policy),
        step("charge", Charge.act, Charge.compensate, timeout=5, retry=RetryPolicy()),
    )

    assert bugs(made) == set()


def test_what_a_step_does_after_its_timeout_confuses_nobody() -> None:
    async def act(self: Any, order: Order, call: Call) -> None:
        if call.attempt == 1:
            await asyncio.sleep(3600)
        Reserve.act(self, order, call)

    slow = step("reserve", act, Reserve.compensate, timeout=0.001, retry=RetryPolicy(max_attempts=2))

    assert bugs(saga(slow)) == set()


class Basket(TypedDict):
    lamps: int
    paid: bool
    prices: dict[int, float]


def test_a_typed_dict_that_changes_survives() -> None:
    def act(self: Any, basket: Basket, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] -= basket["lamps"]
        basket["paid"] = True
        basket["prices"][7] = 3  # an int where JSON gives a float back is as good

    def empty() -> Basket:
        return {"lamps": 1, "paid": False, "prices": {}}

    assert bugs(saga(step("pay", act), step("again", act), context=Basket), empty) == set()


def test_a_model_that_is_replaced_survives() -> None:
    def act(self: Any, parcel: Parcel, call: Call) -> Parcel:
        assert parcel.heavy in (True, False)  # which a cached property keeps, and has again after a crash
        return parcel.model_copy(update={"weight": parcel.weight * 2, "tags": parcel.tags | {call.step_name}})

    assert bugs(saga(step("pack", act), step("wrap", act), context=Parcel), Parcel) == set()


def test_a_step_may_keep_what_another_process_has_too() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.client = self.client or Shopkeeper(self.shop)
        assert self.token
        if self.shop.is_new(call):
            self.shop.letters.append(order.id)

    class Shopkeeper:
        def __init__(self, shop: Shop) -> None:
            self.shop = shop

    class Careful(Step[Order]):
        def __init__(self, shop: Shop) -> None:
            self.shop = shop
            self.stock = shop.stock
            self.client: Any = None

        @cached_property
        def token(self) -> str:
            return "made once per process"

        def act(self, order: Order, call: Call) -> None:
            act(self, order, call)

    assert bugs(saga(Reserve, Careful, Charge)) == set()


def test_a_class_may_hold_what_belongs_to_the_world() -> None:
    register: dict[str, int] = {}

    def act(self: Any, order: Order, call: Call) -> None:
        self.register[order.id] = 1

    def world() -> Shop:
        register.clear()
        return Shop(held=register)

    assert bugs(saga(step("enter", act, register=register)), world=world) == set()


def test_a_compensation_may_leave_a_mark_where_nothing_happened() -> None:
    def cancel(self: Any, order: Order, call: Call) -> None:
        Reserve.compensate(self, order, call)
        self.shop.refunds["cancelled " + order.id] = 0  # so that the request is refused, should it still arrive

    assert bugs(saga(step("reserve", Reserve.act, cancel), Charge)) == set()


class Ledger:
    """A service that books every request, also one to undo what never happened, and refuses those that come late."""

    def __init__(self) -> None:
        self.balance = 100
        self.rows: dict[str, tuple[str, str, int]] = {}

    def book(self, call: Call, order: str, effect: str, change: int) -> None:
        if call.idempotency_key not in self.rows:
            assert (order, f"undo {effect}") not in {row[:2] for row in self.rows.values()}, "too late"
            self.balance += change
            self.rows[call.idempotency_key] = (order, effect, change)

    def undo(self, call: Call, order: str, effect: str) -> None:
        if call.idempotency_key not in self.rows:
            change = -sum(row[2] for row in self.rows.values() if row[:2] == (order, effect))
            self.balance += change
            self.rows[call.idempotency_key] = (order, f"undo {effect}", change)


def test_a_service_that_books_every_request_survives() -> None:
    class Book(Step[Order]):
        def __init__(self, ledger: Ledger) -> None:
            self.ledger = ledger

        def act(self, order: Order, call: Call) -> None:
            self.ledger.book(call, order.id, call.step_name, -7)

        def compensate(self, order: Order, call: Call) -> None:
            self.ledger.undo(call, order.id, call.step_name)

    class BookAgain(Book):
        retry = RetryPolicy(max_attempts=2)

    class BookFinally(Book):
        pivot = True

    def check(ledger: Ledger, outcome: Outcome[Order]) -> bool:
        return ledger.balance == (100 if outcome.status is SagaStatus.COMPENSATED else 79)

    assert bugs(saga(Book, BookAgain, BookFinally), world=Ledger, check=check, pairs=True) == set()


def test_a_saga_may_be_expected_to_turn_back() -> None:
    class Declined(Exception):
        pass

    def act(self: Any, order: Order, call: Call) -> None:
        raise Declined("the bank says no")

    made = saga(Reserve, step("charge", act, Charge.compensate), Notify)

    matrix = crash_matrix(made, Order, world=Shop, ends=SagaStatus.COMPENSATED, pairs=False)

    assert not [plan for plan in matrix.plans if plan.crashes and plan.failure and plan.failure.step == "notify"]
    assert bugs(made) == {(Fault.ENDS_WRONG, "charge")}


def test_a_saga_without_a_world_survives() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        order.notes.append(call.step_name)

    class Alone(Step[Order]):
        def act(self, order: Order, call: Call) -> None:
            act(self, order, call)

    class AloneToo(Alone):
        pass

    assert bugs(saga(Alone, AloneToo), world=None) == set()
