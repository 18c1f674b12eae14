"""An order that is paid, waits for a courier, lets the customer change their mind for an hour, and is shipped.

It needs no server: its sagas are in memory, and instead of waiting for days it moves a clock. Three orders show what
happens: a courier accepts, no courier accepts in time, and the customer cancels.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sagas import Call, MemorySagaStorage, Saga, SagaEngine, Sleep, Step, Wait, cancel, configure, run, signal
from sagas.testing import FakeClock


@dataclass
class Order:
    item: str
    cents: int
    courier: str = ""


@dataclass
class Accepted:
    courier: str


class Pay(Step[Order]):
    def act(self, order: Order, call: Call) -> None:
        print(f"  charge {order.cents} for {order.item}, key {call.idempotency_key}")

    def compensate(self, order: Order, call: Call) -> None:
        print(f"  refund {order.cents}, key {call.idempotency_key}")


class CourierAccepts(Wait[Accepted]):
    timeout = timedelta(days=2)  # then the order is undone

    def received(self, order: Order, signal: Accepted) -> None:
        order.courier = signal.courier


class CoolingOff(Sleep):
    duration = timedelta(hours=1)


class Ship(Step[Order]):
    pivot = True  # nothing is undone once the parcel is on its way

    def act(self, order: Order, call: Call) -> None:
        print(f"  {order.courier} ships {order.item}")


class PlaceOrder(Saga[Order]):
    steps = [Pay, CourierAccepts, CoolingOff, Ship]
    deadline = timedelta(days=7)


def place(item: str, engine: SagaEngine) -> UUID:
    """Run an order until it waits for its courier."""
    print(f"order of {item}:")
    report = run(PlaceOrder, Order(item, 2990), idempotency_key=f"order-{item}")
    return tell(report.saga_id, engine)


def tell(saga_id: UUID, engine: SagaEngine) -> UUID:
    """Do what a worker does once a saga is due, and say how the saga stands."""
    report = engine.recover(saga_id)
    print(f"  {report.status}: {report.message}")
    return saga_id


def main() -> None:
    clock = FakeClock()
    engine = SagaEngine(MemorySagaStorage(clock))
    configure(engine)

    lamp = place("lamp", engine)
    # What a webhook of the courier does. The same id twice is one signal.
    signal((PlaceOrder, "order-lamp"), "courier-accepts", Accepted("ann"), signal_id="evt-7", actor="courier's webhook")
    tell(lamp, engine)
    clock.advance(3600)
    tell(lamp, engine)

    desk = place("desk", engine)
    clock.advance(2 * 86_400)
    tell(desk, engine)

    sofa = place("sofa", engine)
    cancel(sofa, "the customer changed their mind", actor="ann@shop")
    tell(sofa, engine)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    main()
