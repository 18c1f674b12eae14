"""The sagas of the pictures in docs/screenshots: a shop whose bank may be away."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from sagas import Call, RetryPolicy, Saga, Step

#: Names a file; the bank refuses everybody while it is there.
BANK_AWAY = "SHOP_BANK_AWAY"


@dataclass
class Order:
    """What a customer wants."""

    item: str
    cents: int


def ask_bank(seconds: float) -> None:
    """Ask the bank for something, which takes a while."""
    time.sleep(seconds)
    if Path(os.environ[BANK_AWAY]).exists():
        raise ConnectionError("the bank does not answer")


class ReserveStock(Step[Order]):
    """Put the item aside."""

    def act(self, order: Order, call: Call) -> None:
        time.sleep(0.02)

    def compensate(self, order: Order, call: Call) -> None:
        time.sleep(0.02)


class ChargeCard(Step[Order]):
    """Take the money; giving it back needs the bank as well."""

    compensate_retry = RetryPolicy(max_attempts=1)

    def act(self, order: Order, call: Call) -> None:
        time.sleep(order.cents / 10_000)

    def compensate(self, order: Order, call: Call) -> None:
        ask_bank(0.1)


class SendParcel(Step[Order]):
    """Hand the parcel over, if there is such a thing."""

    def act(self, order: Order, call: Call) -> None:
        if order.item == "unicorn":
            raise LookupError("there are no unicorns")
        time.sleep(0.05)


class PlaceOrder(Saga[Order]):
    """An order."""

    steps = [ReserveStock, ChargeCard, SendParcel]
