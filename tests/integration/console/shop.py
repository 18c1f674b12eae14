"""The sagas that these tests look at and act on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sagas import Call, RetryPolicy, Saga, Sleep, Step, Wait
from sagas.definition import ONCE


@dataclass
class Order:
    """What the saga works on; some items make its steps fail."""

    item: str = "tea"
    card_number: str = "4111-1111-1111-1111"
    note: Any = None
    courier: str | None = None
    customer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Accepted:
    """What a courier says."""

    courier: str
    pin: str = ""


class Reserve(Step[Order]):
    compensate_retry = ONCE

    def act(self, context: Order, call: Call) -> None:
        pass

    def compensate(self, context: Order, call: Call) -> None:
        if context.item == "stuck":
            raise RuntimeError(f"the shelf <b>jammed</b> for {context.card_number}")


class Charge(Step[Order]):
    retry = RetryPolicy(max_attempts=4, first_delay=3600, retry_on=(ConnectionError,))

    def act(self, context: Order, call: Call) -> None:
        if context.item == "unpaid":
            raise ConnectionError("the bank does not answer")
        if context.item == "stuck":
            raise ValueError("declined")

    def compensate(self, context: Order, call: Call) -> None:
        pass


class CourierAccepts(Wait[Accepted]):
    timeout = timedelta(days=2)

    def received(self, context: Order, signal: Accepted) -> None:
        context.courier = signal.courier


class CoolDown(Sleep):
    duration = timedelta(hours=1)


class Ship(Step[Order]):
    pivot = True

    def act(self, context: Order, call: Call) -> None:
        pass


class Stick(Step[Order]):
    """Stops a saga here for good."""

    retry = ONCE

    def act(self, context: Order, call: Call) -> None:
        raise ConnectionError("the printer is away")


class PlaceOrder(Saga[Order]):
    """Waits for its courier."""

    steps = [Reserve, Charge, CourierAccepts, CoolDown, Ship]
    secret_fields = ("card_number", "customer.phone", "pin")


class Restock(Saga[Order]):
    """Ends at once."""

    steps = [Reserve]


class PrintBill(Saga[Order]):
    """Is stuck behind its pivot."""

    steps = [Reserve, Ship, Stick]
