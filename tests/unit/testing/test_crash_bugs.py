"""The bugs that crashes bring to light: what runs twice, and what a process takes with it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from sagas import Call, Step
from sagas.errors import ContextError
from sagas.testing.crashes import Fault
from tests.unit.testing.shop import (
    Charge,
    Notify,
    Order,
    Parcel,
    Reserve,
    Shop,
    findings,
    saga,
    step,
)


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


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        (lambda order: setattr(order, "_receipt", [1]), "_receipt is lost"),
        (lambda order: setattr(order, "anything", {1}), "anything is set before and list after"),
        (lambda order: setattr(order, "anything", defaultdict(list)), "anything is defaultdict before and dict after"),
    ],
    ids=["private attribute", "set", "defaultdict"],
)
def test_a_context_that_is_not_what_is_stored_is_found(spoil: Any, lost: str) -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        spoil(order)

    (finding,) = findings(saga(Reserve, step("spoil", act), Charge))

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "spoil")
    assert finding.left_behind.startswith("ended COMPENSATED (spoil, act, attempt 1: ContextError: ")
    assert lost in finding.left_behind


def test_what_a_model_keeps_in_private_attributes_is_found() -> None:
    def act(self: Any, parcel: Parcel, call: Call) -> None:
        parcel._note = "fragile"

    (finding,) = findings(saga(step("mark", act), context=Parcel), Parcel)

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "mark")
    assert "_note differs" in finding.left_behind


def test_a_context_that_a_compensation_spoils_is_found() -> None:
    def compensate(self: Any, order: Order, call: Call) -> None:
        order.anything = {1}

    (finding,) = findings(saga(step("spoil", Reserve.act, compensate), Charge))

    assert (finding.fault, finding.step) == (Fault.CONTEXT_LOST, "spoil")
    assert "ended dead (spoil, compensate, attempt 5: ContextError" in finding.left_behind


def test_what_is_lost_before_the_first_step_is_refused_as_at_a_start() -> None:
    def make() -> Order:
        order = Order()
        order.secret = 1  # type: ignore[attr-defined]
        return order

    with pytest.raises(ContextError, match="secret is lost"):
        findings(saga(Reserve), make)


def test_state_on_the_instance_is_found() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        Reserve.act(self, order, call)
        self.pieces = order.pieces

    def compensate(self: Any, order: Order, call: Call) -> None:
        if self.shop.held.pop(order.id, 0):
            self.shop.stock["lamp"] += self.pieces

    (finding,) = findings(saga(step("reserve", act, compensate), Charge), pairs=True)

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "reserve")
    assert str(finding.plan) == "charge fails; crash after the checkpoint of act of reserve"
    assert finding.left_behind.startswith("world.stock['lamp'] is 8 instead of 10")


def test_an_attribute_that_a_new_step_lacks_is_found() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        Reserve.act(self, order, call)
        self.reservation = object()

    def compensate(self: Any, order: Order, call: Call) -> None:
        if order.id in self.shop.held and self.reservation:
            Reserve.compensate(self, order, call)

    (finding,) = findings(saga(step("reserve", act, compensate), Charge))

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "reserve")
    assert "AttributeError: 'Reserve' object has no attribute 'reservation'" in finding.left_behind


def test_state_on_the_class_is_found() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.held[order.id] = order.pieces

    def compensate(self: Any, order: Order, call: Call) -> None:
        self.held.pop(order.id, None)

    (finding,) = findings(saga(step("reserve", act, compensate, held={}), Charge))

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "reserve")
    assert finding.left_behind == "Reserve.held['o-1'] is left over (2)"


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


def test_state_inside_a_collaborator_is_found() -> None:
    (finding,) = findings(saga(Pick, Charge), pairs=True)

    assert (finding.fault, finding.step) == (Fault.STATE_LOST, "pick")
    assert finding.left_behind == "world.stock['lamp'] is 8 instead of 10"
    assert str(finding.plan) == "charge fails; crash after the checkpoint of act of pick"
