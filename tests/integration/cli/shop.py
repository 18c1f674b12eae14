"""The sagas that these tests start; named by SAGAS_MODULES, so that the command finds them as it finds a user's."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sagas import Call, RetryPolicy, Saga, Step


@dataclass
class Order:
    """What the saga works on; some items make its steps fail."""

    item: str
    price: Decimal = Decimal(1)
    paid: bool = False


class Reserve(Step[Order]):
    compensate_retry = RetryPolicy(max_attempts=1)

    def act(self, context: Order, call: Call) -> None:
        pass

    def compensate(self, context: Order, call: Call) -> None:
        if context.item == "stuck":
            raise RuntimeError("the shelf [bold]jammed[/bold]\nand smokes")


class Pay(Step[Order]):
    def act(self, context: Order, call: Call) -> None:
        if context.item in ("unpaid", "stuck"):
            raise ValueError("card \x1b[31mdeclined")
        context.paid = True


class PlaceOrder(Saga[Order]):
    steps = [Reserve, Pay]
