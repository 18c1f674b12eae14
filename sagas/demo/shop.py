"""The saga of the demo: placing an order takes four calls to services that may be slow, busy or unclear."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from sagas import Call, OutcomeUnknown, RetryPolicy, Saga, SagaStatus, Step
from sagas.demo.ledger import Ledger, Overdrawn, ledger_at

#: Names the variable that holds the URL of the shop's database.
DATABASE_VARIABLE: Final = "SHOP_DATABASE_URL"
#: What the shop's accounts hold before the first order: pieces, cents, parcels and letters.
OPENING_BALANCES: Final = {
    "lamp": 100,
    "rug": 50,
    "chair": 50,
    "desk": 50,
    "unicorn": 0,
    "till": 0,
    "parcels": 0,
    "letters": 0,
}
_UNKNOWN_TO_THE_CARRIER: Final = "Atlantis"
#: How often a busy service turns a request down before it takes it.
_BUSY_TIMES: Final = 2


@dataclass
class Order:
    """A line of orders.jsonl.

    Attributes:
        cents: what it costs in all.
        card: how its bank behaves: ok, declined, busy, "answer lost" (it charges and does not say so) or "request
            lost" (it neither charges nor says so).
        mail: ok or busy.
        ends: how its saga must end; like `effects`, for the check at the end of the demo, and read by no step.
        effects: which effects must happen: for good if it is completed, undone again if it is compensated.
        parcel: the carrier's number, once it is shipped.
    """

    order: str
    customer: str
    sku: str
    pieces: int
    cents: int
    country: str
    ends: SagaStatus
    card: str = "ok"
    mail: str = "ok"
    effects: list[str] = field(default_factory=list)
    parcel: str | None = None


class Busy(Exception):
    """The service is overloaded and did nothing: try again."""


class OutOfStock(Exception):
    """There are not enough pieces."""


class CardDeclined(Exception):
    """The bank says no."""


class CannotShip(Exception):
    """The carrier does not go there."""


#: Only what a second attempt can cure is tried again; what a service refuses for good turns the saga back at once.
PATIENT = RetryPolicy(max_attempts=4, first_delay=0.2, max_delay=1.0, retry_on=(Busy,))


class ReserveStock(Step[Order]):
    """Put the pieces aside; or back on the shelf."""

    retry = compensate_retry = PATIENT

    def act(self, order: Order, call: Call) -> None:
        with _service(order, call) as ledger:
            try:
                ledger.enter(
                    call.idempotency_key, order=order.order, effect="reserve", account=order.sku, change=-order.pieces
                )
            except Overdrawn as error:
                raise OutOfStock(f"fewer than {order.pieces} of {order.sku} are left") from error

    def compensate(self, order: Order, call: Call) -> None:
        with _service(order, call) as ledger:
            ledger.undo(call.idempotency_key, order=order.order, effect="reserve", account=order.sku)


class ChargeCard(Step[Order]):
    """Take the money; or give it back."""

    retry = compensate_retry = PATIENT

    def act(self, order: Order, call: Call) -> None:
        with _service(order, call, busy=order.card == "busy") as ledger:
            if order.card == "declined":
                raise CardDeclined(f"the bank of {order.customer} declined {order.cents / 100:.2f}")
            if order.card != "request lost":
                ledger.enter(
                    call.idempotency_key, order=order.order, effect="charge", account="till", change=order.cents
                )
            if order.card in ("answer lost", "request lost"):
                raise OutcomeUnknown("the bank did not answer; it may have charged the card")

    def compensate(self, order: Order, call: Call) -> None:
        with _service(order, call) as ledger:
            ledger.undo(call.idempotency_key, order=order.order, effect="charge", account="till")


class Ship(Step[Order]):
    """Hand the parcel to the carrier: the point of no return. It is recalled only if in doubt whether it went."""

    pivot = True
    retry = compensate_retry = PATIENT

    def act(self, order: Order, call: Call) -> None:
        with _service(order, call) as ledger:
            if order.country == _UNKNOWN_TO_THE_CARRIER:
                raise CannotShip(f"no carrier goes to {order.country}")
            ledger.enter(call.idempotency_key, order=order.order, effect="ship", account="parcels", change=1)
            order.parcel = f"P-{order.order}"

    def compensate(self, order: Order, call: Call) -> None:
        with _service(order, call) as ledger:
            ledger.undo(call.idempotency_key, order=order.order, effect="ship", account="parcels")


class Notify(Step[Order]):
    """Tell the customer; after the pivot, so it is tried until it succeeds, and never undone."""

    retry = PATIENT

    def act(self, order: Order, call: Call) -> None:
        with _service(order, call, busy=order.mail == "busy") as ledger:
            ledger.enter(call.idempotency_key, order=order.order, effect="notify", account="letters", change=1)


class PlaceOrder(Saga[Order]):
    """What happens to an order."""

    steps = [ReserveStock, ChargeCard, Ship, Notify]


@contextmanager
def _service(order: Order, call: Call, *, busy: bool = False) -> Iterator[Ledger]:
    """A call to a service over the network: it takes its time before it takes effect, and until the answer is back.

    A worker that is killed meanwhile dies on either side of the effect, which is what idempotency keys are for.

    Raises:
        Busy: the service turned the request down.
    """
    one_way = _seconds(order, call) / 2
    with ledger_at(os.environ[DATABASE_VARIABLE]) as ledger:
        times = ledger.requested(call.idempotency_key)
        time.sleep(one_way)
        if busy and times <= _BUSY_TIMES:
            raise Busy("come back later")
        yield ledger
        time.sleep(one_way)


def _seconds(order: Order, call: Call) -> float:
    """How long the call takes: 0.1 to 0.25 s, different for each and the same for every attempt."""
    return 0.1 + crc32(f"{order.order} {call.step_name}".encode()) % 150 / 1000
