"""What the crash matrix finds in sagas that have a bug, and that it finds nothing in sagas that have none."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, PrivateAttr
from typing_extensions import TypedDict

from sagas import Call, OutcomeUnknown, RetryPolicy, SagaStatus, Step
from sagas.errors import ContextError
from sagas.testing.crashes import CrashMatrixFailed, Fault, Outcome, crash_matrix
from tests.sagas.testing.shop import Charge, Notify, Order, PlaceOrder, Reserve, Shop, bugs, findings, saga, step

# -- sagas without a bug --------------------------------------------------------------------------------------------


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

    crash_matrix(saga(Reserve, Charge, ship, tell), Order, world=Shop, check=check)

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
    matrix = crash_matrix(made, Order, world=Shop)

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


class Parcel(BaseModel):
    weight: float = 1.0
    tags: set[str] = set()
    _note: str = PrivateAttr(default="")

    @cached_property
    def heavy(self) -> bool:
        return self.weight > 30


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


# -- the four bugs that crashes bring to light --------------------------------------------------------------------


def test_a_compensation_that_gives_back_twice_is_found() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if order.id in self.shop.held:
            self.shop.stock["lamp"] += order.pieces

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.COMPENSATION_NOT_REPEATABLE, "reserve")
    assert str(finding.plan) == "charge fails; crash after compensate of reserve, before its checkpoint"
    assert finding.left_behind == "world.stock['lamp'] is 12 instead of 10"


def test_a_compensation_that_raises_the_second_time_is_found() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if (order.id, 2) in self.shop.held.items():
            self.shop.held[order.id] = 0
        elif order.id in self.shop.held:
            raise LookupError("already given back")

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.COMPENSATION_NOT_REPEATABLE, "reserve")
    assert "LookupError: already given back" in finding.left_behind


def test_an_act_that_ignores_its_idempotency_key_is_found() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[order.id] = self.shop.charges.get(order.id, 0) + 99

    (finding,) = findings(saga(Reserve, step("charge", charge, Charge.compensate), Notify))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert str(finding.plan) == "crash after act of charge, before its checkpoint"
    assert finding.left_behind == "world.charges['o-1'] is 198 instead of 99"


def test_an_act_that_raises_the_second_time_is_found() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        if order.id in self.shop.charges:
            raise ValueError("charged already")
        self.shop.charges[order.id] = 99

    (finding,) = findings(saga(Reserve, step("charge", charge, Charge.compensate)))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert finding.left_behind.startswith("ended COMPENSATED (charge, act, attempt 1: ValueError: charged already)")


def test_an_act_that_forgets_its_result_the_second_time_is_found_by_the_context() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.charges[order.id] = 99
            order.charge = "c-1"

    (finding,) = findings(saga(Reserve, step("charge", charge, Charge.compensate)))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert finding.left_behind == "context.charge is None instead of 'c-1'"


class Money(float):
    """A number that JSON gives back as a mere float."""


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        (lambda order: setattr(order, "_receipt", [1]), "context._receipt is missing ([1])"),
        (lambda order: setattr(order, "anything", Money(1.5)), "context.anything is 1.5 instead of Money 1.5"),
        (lambda order: setattr(order, "anything", defaultdict(list)), "defaultdict"),
    ],
    ids=["private attribute", "subclass of float", "defaultdict"],
)
def test_a_context_that_is_not_what_is_stored_is_found(spoil: Any, lost: str) -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        spoil(order)

    (finding,) = findings(saga(Reserve, step("spoil", act), Charge))

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "spoil")
    assert lost in finding.left_behind


def test_a_set_that_json_makes_a_list_is_found() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        order.anything = {1}

    (finding,) = findings(saga(Reserve, step("spoil", act), Charge))

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "spoil")
    assert "context.anything is [1] instead of {1}" in finding.left_behind
    assert "ended COMPENSATED" in finding.left_behind


def test_what_a_model_keeps_in_private_attributes_is_found() -> None:
    def act(self: Any, parcel: Parcel, call: Call) -> None:
        parcel._note = "fragile"

    (finding,) = findings(saga(step("mark", act), context=Parcel), Parcel)

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "mark")
    assert finding.left_behind == "stored and read back, context._note is '' instead of 'fragile'"


def test_what_is_lost_before_the_first_step_is_found() -> None:
    def make() -> Order:
        order = Order()
        order.secret = 1  # type: ignore[attr-defined]
        return order

    (finding,) = findings(saga(Reserve), make)

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "")


def test_state_on_the_instance_is_found_and_named() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        Reserve.act(self, order, call)
        self.pieces = order.pieces

    def compensate(self: Any, order: Order, call: Call) -> None:
        if self.shop.held.pop(order.id, 0):
            self.shop.stock["lamp"] += self.pieces

    (finding,) = findings(saga(step("reserve", act, compensate), Charge), pairs=True)

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "reserve")
    assert finding.left_behind.startswith("self.pieces, set by act, is lost; ")
    assert str(finding.plan) == "charge fails; crash after the checkpoint of act of reserve"


def test_state_on_the_instance_is_found_even_if_nothing_depends_on_it() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.last_order = order.id

    (finding,) = findings(saga(step("look", act)))

    assert (finding.fault, finding.step, finding.plan) == (Fault.STATE_LOST, "look", None)
    assert finding.left_behind == "self.last_order, set by act, is lost"


def test_an_object_on_the_instance_is_named_if_its_loss_makes_a_difference() -> None:
    class Reservation:
        def __init__(self, pieces: int) -> None:
            self.pieces = pieces

    def act(self: Any, order: Order, call: Call) -> None:
        Reserve.act(self, order, call)
        self.reservation = Reservation(order.pieces)

    def compensate(self: Any, order: Order, call: Call) -> None:
        if order.id in self.shop.held:
            self.shop.stock["lamp"] += self.reservation.pieces
            del self.shop.held[order.id]

    (finding,) = findings(saga(step("reserve", act, compensate), Charge))

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "reserve")
    assert finding.left_behind.startswith("self.reservation, set by act, is lost; ended dead")
    assert "AttributeError" in finding.left_behind


def test_state_on_the_class_is_found() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.held[order.id] = order.pieces

    def compensate(self: Any, order: Order, call: Call) -> None:
        self.held.pop(order.id, None)

    (finding,) = findings(saga(step("reserve", act, compensate, held={}), Charge))

    assert (finding.fault, finding.left_behind) == (Fault.STATE_LOST, "Reserve.held, set by act, is lost")


class Cart:
    """A collaborator that its step makes for itself."""

    def __init__(self) -> None:
        self.pieces = 0


class Pick(Step[Order]):
    """Forgets what is in its cart."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.cart = Cart()

    def act(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] -= order.pieces
        self.cart.pieces = order.pieces

    def compensate(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] += self.cart.pieces


def test_state_inside_a_collaborator_is_found_by_what_it_leaves() -> None:
    (finding,) = findings(saga(Pick, Charge), pairs=True)

    assert (finding.fault, finding.step) == (Fault.RESTART, "charge")
    assert finding.left_behind == "world.stock['lamp'] is 8 instead of 10"
    assert str(finding.plan) == "charge fails; crash after the checkpoint of act of pick"


def test_what_was_lost_before_or_appears_after_a_crash_is_not_blamed_for_it() -> None:
    def make() -> Order:
        order = Order()
        order.secret = 1  # type: ignore[attr-defined]
        return order

    def tell(self: Any, order: Order, call: Call) -> None:
        self.told = True

    found = findings(saga(Pick, step("tell", tell), Charge), make)

    assert {finding.fault: str(finding.plan) for finding in found} == {
        Fault.CONTEXT_LOST: "None",
        Fault.RESTART: "tell fails; crash after the checkpoint of act of pick",
        # What was there is suspected all the same: it may be what made the difference.
        Fault.STATE_LOST: "charge fails; crash after the checkpoint of act of tell",
    }


# -- what else goes wrong -------------------------------------------------------------------------------------------


def test_a_compensation_that_undoes_what_never_happened_is_found() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] += order.pieces

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.UNDOES_BLINDLY, "reserve")
    assert str(finding.plan) == "reserve is cut off before it takes effect"
    assert finding.left_behind == "world.stock['lamp'] is 12 instead of 10"


def test_a_compensation_that_cannot_bear_that_nothing_happened_is_found_once() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if order.id not in self.shop.held:
            raise LookupError("never reserved")
        if self.shop.is_new(call):
            self.shop.stock["lamp"] += order.pieces

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.UNDOES_BLINDLY, "reserve")
    assert "LookupError: never reserved" in finding.left_behind


def test_a_compensation_that_needs_the_answer_of_act_is_found() -> None:
    def refund(self: Any, order: Order, call: Call) -> None:
        if order.charge and self.shop.is_new(call):
            self.shop.refunds[order.id] = 99

    (finding,) = findings(saga(Reserve, step("charge", Charge.act, refund), Notify))

    assert (finding.fault, finding.step) == (Fault.ANSWER_LOST, "charge")
    assert str(finding.plan) == "charge takes effect, but its answer is lost"
    assert finding.left_behind == "world.refunds['o-1'] is missing (99); world.seen{'charge:compensate'} is missing"


def test_a_compensation_that_always_raises_is_found_once() -> None:
    def refuse(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such order")

    (finding,) = findings(saga(step("reserve", Reserve.act, refuse), Charge, Notify))

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "reserve")
    assert finding.left_behind == "ended dead (reserve, compensate, attempt 5: LookupError: no such order)"


def test_attempts_at_a_compensation_that_always_raises_are_no_repetition() -> None:
    def refuse(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such order")

    # Only in doubt is the last step undone.
    assert bugs(saga(step("reserve", Reserve.act, refuse))) == {
        (Fault.ANSWER_LOST, "reserve"),
        (Fault.UNDOES_BLINDLY, "reserve"),
    }


def test_a_second_attempt_that_does_more_is_found() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[order.id] = 99 * call.attempt

    made = saga(step("charge", charge, Charge.compensate, retry=RetryPolicy(max_attempts=2)))

    assert (Fault.SECOND_ATTEMPT, "charge") in bugs(made)


def test_an_answer_lost_once_shows_an_act_that_ignores_its_key() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[f"{order.id}.{call.attempt}"] = 99

    patient = step("charge", charge, retry=RetryPolicy(max_attempts=2, retry_on=(OutcomeUnknown,)))
    (finding,) = findings(saga(Reserve, patient))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert str(finding.plan) == "charge takes effect, but its answer is lost once"


def test_the_users_check_is_told_of_together_with_its_run() -> None:
    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        if outcome.status is SagaStatus.COMPENSATED:
            assert not shop.charges or shop.refunds, "charged and not refunded"

    def keep(self: Any, order: Order, call: Call) -> None:
        pass

    (finding,) = findings(saga(step("charge", Charge.act, keep), Notify), check=check)

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "notify")
    assert finding.left_behind == "check: charged and not refunded"
    assert str(finding.plan) == "notify fails"


def test_a_check_that_only_a_crash_fails_blames_what_ran_twice() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.letters.append("charged")

    def check(shop: Shop, _: Outcome[Order]) -> bool:
        return len(shop.letters) < 2

    (finding,) = findings(saga(step("charge", charge)), check=check, snapshot=lambda shop: shop.stock)

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert finding.left_behind == "check: it returned False"


def test_a_check_that_fails_without_a_crash_blames_nothing_else() -> None:
    def check(_: Shop, outcome: Outcome[Order]) -> bool:
        return "answer" not in str(outcome.plan)

    (finding,) = findings(PlaceOrder, check=check)

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "reserve")
    assert finding.runs == 3  # once for each step, not for each crash


def test_all_bugs_are_reported_together() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[order.id] = self.shop.charges.get(order.id, 0) + 99

    def give_back(self: Any, order: Order, call: Call) -> None:
        self.shop.stock["lamp"] += order.pieces

    def tell(self: Any, order: Order, call: Call) -> None:
        self.told = True

    made = saga(
        step("reserve", Reserve.act, give_back), step("charge", charge, Charge.compensate), step("tell", tell), Notify
    )

    assert bugs(made) == {
        (Fault.UNDOES_BLINDLY, "reserve"),
        (Fault.COMPENSATION_NOT_REPEATABLE, "reserve"),
        (Fault.ACT_NOT_REPEATABLE, "charge"),
        (Fault.STATE_LOST, "tell"),
    }


def test_two_crashes_find_what_one_does_not() -> None:
    def reserve(self: Any, order: Order, call: Call) -> None:
        # It counts the requests of a key, and takes the third one for a new one.
        asked = self.shop.held[order.id] = self.shop.held.get(order.id, 0) + 1
        if asked in (1, 3):
            self.shop.stock["lamp"] -= 1

    options: dict[str, Any] = {"snapshot": lambda shop: shop.stock}
    made = saga(step("reserve", reserve))

    assert bugs(made, **options) == set()
    (finding,) = findings(made, pairs=True, **options)
    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "reserve")
    assert str(finding.plan) == (
        "crash after act of reserve, before its checkpoint; "
        "crash after act of reserve, before its checkpoint in process 2"
    )


def test_worlds_that_cannot_be_compared_are_a_bug_of_the_test() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.letters.append(uuid.uuid4().hex)

    made = saga(Reserve, step("charge", charge))

    (finding,) = findings(made)
    assert finding.fault is Fault.NOT_REPRODUCIBLE
    assert finding.left_behind.startswith("world.letters[0] is ")
    assert bugs(made, snapshot=lambda shop: (shop.stock, len(shop.letters))) == set()


def test_a_world_that_is_not_new_is_a_bug_of_the_test() -> None:
    shop = Shop()

    (finding,) = findings(PlaceOrder, world=lambda: shop)

    assert finding.fault is Fault.NOT_REPRODUCIBLE
    assert finding.left_behind.startswith("in a new world, world.stock['lamp'] is 8 instead of 10")


def test_a_saga_that_fails_by_itself_is_told_with_its_error() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        raise ZeroDivisionError("by itself")

    with pytest.raises(CrashMatrixFailed, match="ZeroDivisionError: by itself") as failed:
        crash_matrix(saga(Reserve, step("broken", act)), Order, world=Shop)

    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert failed.value.matrix.runs == 2


# -- how it is called -------------------------------------------------------------------------------------------------


def test_world_is_given_to_whoever_asks_for_it() -> None:
    given: list[object] = []

    def make_context(shop: Shop) -> Order:
        given.append(shop)
        return Order(pieces=shop.stock["lamp"])

    def resolver(kind: type[Step[Any]], shop: Shop) -> Step[Any]:
        given.append(shop)
        return kind(shop)

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        given.append(shop)
        assert outcome.context.pieces == 10

    crash_matrix(PlaceOrder, make_context, world=Shop, resolver=resolver, check=check, pairs=False)

    assert {type(world) for world in given} == {Shop}


def test_a_resolver_as_in_production_is_given_the_class_alone() -> None:
    worlds: list[Shop] = []

    def world() -> Shop:
        worlds.append(Shop())
        return worlds[-1]

    crash_matrix(PlaceOrder, Order, world=world, resolver=lambda kind: kind(worlds[-1]), pairs=False)


def test_defaults_of_the_context_are_not_taken_for_the_world() -> None:
    def check(_: Shop, outcome: Outcome[Order]) -> None:
        assert outcome.context.id == "o-1"

    crash_matrix(PlaceOrder, Order, world=Shop, check=check, pairs=False)


def test_a_step_that_cannot_be_built_fails_as_itself() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'shop'"):
        crash_matrix(PlaceOrder, Order)


def test_a_context_that_cannot_be_stored_fails_as_itself() -> None:
    with pytest.raises(ContextError, match="anything is set before and list after"):
        crash_matrix(PlaceOrder, lambda: Order(anything={1}), world=Shop)


def test_an_async_check_is_refused() -> None:
    async def check(shop: Shop, outcome: Outcome[Order]) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="make it a plain function"):
        crash_matrix(PlaceOrder, Order, world=Shop, check=check)


class Sealed:
    """Shows nothing of what it holds."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("world", [Sealed, type("Empty", (), {})])
def test_a_world_that_cannot_be_looked_into_is_refused(world: Any) -> None:
    class Idle(Step[Order]):
        def act(self, order: Order, call: Call) -> None:
            pass

    with pytest.raises(TypeError, match=f"cannot look into a {world.__name__} .* pass snapshot="):
        crash_matrix(saga(Idle), Order, world=world)
    crash_matrix(saga(Idle), Order, world=world, snapshot=lambda _: 0)


def test_the_engines_log_is_silent_meanwhile_and_as_before_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sagas")

    crash_matrix(PlaceOrder, Order, world=Shop, pairs=False)

    assert caplog.records == []
    assert logging.getLogger("sagas").level == logging.INFO


def test_the_message_is_a_table_that_fits_a_terminal() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        self.shop.stock["lamp"] += order.pieces

    with pytest.raises(AssertionError) as failed:
        crash_matrix(saga(step("reserve", Reserve.act, give_back), Charge), Order, world=Shop)

    lines = str(failed.value).splitlines()
    assert lines[0].startswith("made: 2 bugs in ")
    assert lines[2].split() == ["step", "bug", "first", "seen", "when", "what", "was", "left", "behind", "runs"]
    assert max(map(len, lines)) <= 116
    assert "compensate is not safe to run twice: A crash before its checkpoint" in str(failed.value)


def test_six_steps_are_quick_and_as_many_runs_as_the_documentation_says(repository: Path) -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[call.step_name] = 99

    def compensate(self: Any, order: Order, call: Call) -> None:
        self.shop.charges.pop(call.step_name, None)

    six = [step(f"step-{i}", act, compensate) for i in range(6)]
    begin = time.process_time()

    matrix = crash_matrix(saga(*six), Order, world=Shop)

    assert time.process_time() - begin < 5
    assert matrix.places == 504
    assert f"A saga of six steps takes {matrix.runs:,} runs" in (repository / "docs" / "testing.md").read_text()


def test_sagas_testing_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from sagas.testing.crashes import crash_matrix"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
