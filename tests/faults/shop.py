"""Sagas for fault injection, whose effects go to a separate ledger on separate connections.

The ledger behaves like a good external service: an idempotency key has its effect once, and an effect that was
compensated before it arrived never arrives.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg

from sagas import Call, OutcomeUnknown, RetryPolicy, Saga, Step

LEDGER = """
CREATE TABLE IF NOT EXISTS effects (
    key text PRIMARY KEY,
    saga_id uuid NOT NULL,
    step text NOT NULL,
    present boolean NOT NULL,       -- false: undone, or cancelled before it came
    arrivals integer NOT NULL,      -- attempts that reached the ledger
    results integer NOT NULL        -- attempts that had an effect: never above 1
)"""

ACT = """
INSERT INTO effects VALUES (%(key)s, %(saga)s, %(step)s, true, 1, 1)
ON CONFLICT (key) DO UPDATE SET arrivals = effects.arrivals + 1"""

UNDO = """
INSERT INTO effects VALUES (%(key)s, %(saga)s, %(step)s, false, 0, 0)
ON CONFLICT (key) DO UPDATE SET present = false"""

_local = threading.local()


def ledger(statement: str, parameters: dict[str, Any]) -> None:
    """Run a statement on the ledger, and retry until it succeeds, because the ledger is not under test."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if getattr(_local, "pid", None) != os.getpid():
                _local.connection = psycopg.connect(os.environ["LEDGER_URL"], autocommit=True, connect_timeout=5)
                _local.pid = os.getpid()
            _local.connection.execute(statement, parameters)
            return
        except psycopg.OperationalError:
            _local.pid = None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@dataclass
class Order:
    """The plan of one saga.

    Attributes:
        seconds: duration of each step, half before its effect and half after.
        failing: step → how it fails: "clean", "doubt", "late" (after its effect), "flaky" (the first attempt only),
            "undo" (its compensation's first attempt), "jammed" (its compensation, always), "poison" (kills its
            process).
        done: the steps that acted, according to the saga's own context.
    """

    seconds: float = 0.0
    failing: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)


class _Shop(Step[Order]):
    retry = compensate_retry = RetryPolicy(max_attempts=2, first_delay=0.05, retry_on=(ConnectionError,))

    def act(self, context: Order, call: Call) -> None:
        how = context.failing.get(call.step_name)
        time.sleep(context.seconds / 2)
        if how == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "flaky" and call.attempt == 1:
            raise ConnectionError("try again")
        if how == "clean":
            raise ValueError("refused")
        if how != "doubt":
            ledger(ACT, {"key": call.idempotency_key, "saga": call.saga_id, "step": call.step_name})
        if how in ("doubt", "late"):
            raise OutcomeUnknown("no answer")
        time.sleep(context.seconds / 2)
        context.done.append(call.step_name)

    def compensate(self, context: Order, call: Call) -> None:
        if context.failing.get(call.step_name) == "jammed":
            raise ValueError("jammed")
        key = call.idempotency_key.replace(":compensate", ":act")
        ledger(UNDO, {"key": key, "saga": call.saga_id, "step": call.step_name})
        if context.failing.get(call.step_name) == "undo" and call.attempt == 1:
            raise ConnectionError("try again")


class Reserve(_Shop):
    pass


class Charge(_Shop):
    pass


class Ship(_Shop):
    pass


class Invoice(_Shop):
    pass


class FaultyOrder(Saga[Order]):
    steps = [Reserve, Charge, Ship, Invoice]


def must_complete(order: Order) -> bool:
    """Whether the order's saga runs forward to the end."""
    return not {"clean", "doubt", "late"} & set(order.failing.values())


def _deliver_three_times() -> None:
    """Send every message of this process three times, as a broker may do."""
    from sagas.celery.dispatch import CeleryDispatcher

    once = CeleryDispatcher.send

    def thrice(self: CeleryDispatcher, claims: Any) -> int:
        sent = once(self, claims)
        once(self, claims[:sent])
        once(self, claims[:sent])
        return sent

    CeleryDispatcher.send = thrice  # type: ignore[method-assign]


if os.environ.get("DELIVER_THREE_TIMES"):
    _deliver_three_times()
