"""The recovery loop without Celery: find sagas that no process is running, and recover them in this process.

Without settings it recovers, once and in memory, three orders whose worker died. With SAGAS_DATABASE_URL and
SAGAS_MODULES, it recovers the sagas of that PostgreSQL database until it is stopped. You can run several at once.
It recovers only sagas that have begun. Without Celery no process runs what `start()` stores: begin yours with `run()`.
"""

import argparse
import logging
import os
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sagas import Call, MemorySagaStorage, Saga, SagaEngine, SagaStatus, Step, configure, recover_saga
from sagas.errors import StorageUnavailable
from sagas.progress import Action
from sagas.storage.answers import Acquired
from sagas.storage.records import completed
from sagas.storage.transitions import Progressed

stop = threading.Event()
CHARGED = Progressed(events=(completed("charge", Action.ACT),), status=SagaStatus.RUNNING)


@dataclass
class Order:
    item: str
    in_stock: bool = True


class Charge(Step[Order]):
    def act(self, order: Order, call: Call) -> None:
        print(f"  charge for {order.item}, key {call.idempotency_key}")

    def compensate(self, order: Order, call: Call) -> None:
        print(f"  refund {order.item}, key {call.idempotency_key}")


class Ship(Step[Order]):
    def act(self, order: Order, call: Call) -> None:
        if not order.in_stock:
            raise LookupError(f"no {order.item} left")
        print(f"  ship {order.item}")


class PlaceOrder(Saga[Order]):
    steps = [Charge, Ship]


def demo_engine() -> SagaEngine:
    """Return an engine with the sagas of a worker that died ten minutes ago."""
    ago = timedelta(minutes=10)
    storage = MemorySagaStorage(clock=lambda: datetime.now(UTC) - ago)
    engine = SagaEngine(storage, stopping=stop.is_set)
    for order, charged in (Order("tea"), False), (Order("coffee"), True), (Order("cocoa", in_stock=False), True):
        acquired = storage.acquire(engine.start(PlaceOrder, order), engine.runtime().request(), max_recovery_attempts=5)
        if charged and isinstance(acquired, Acquired):
            storage.apply(acquired.lease, CHARGED)
    ago = timedelta(0)  # ten minutes later: the lease has expired long ago
    return engine


def recover_once(engine: SagaEngine) -> None:
    most = engine.settings.max_recovery_attempts
    ids = engine.storage.get_sagas_for_recovery(limit=100, max_recovery_attempts=most, stale_after_seconds=60)
    for saga_id in ids:
        if stop.is_set():
            break
        # It counts a failed attempt, backs off, and skips a saga that another process acquired meanwhile.
        report = recover_saga(saga_id)
        print(f"{report.saga_id} {report.name}: {report.outcome}. {report.message}", flush=True)


def main() -> None:
    in_memory = "SAGAS_DATABASE_URL" not in os.environ
    options = argparse.ArgumentParser(description="Recover sagas without Celery.")
    options.add_argument("--once", action="store_true", default=in_memory, help="recover once; always so in memory")
    once = options.parse_args().once
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    # Without a dispatcher the engine needs no broker. `stopping` ends a run at the next step's boundary.
    engine = demo_engine() if in_memory else SagaEngine.from_environment(dispatcher=None, stopping=stop.is_set)
    configure(engine)  # the engine that recover_saga() uses
    while True:
        try:
            recover_once(engine)
        except StorageUnavailable as error:
            if once:
                raise
            logging.warning("trying again soon: %s", error)
        if once or stop.wait(engine.settings.scan_interval_seconds):
            return


if __name__ == "__main__":
    main()
