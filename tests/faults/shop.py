"""Sagas for fault injection, whose effects go to a separate ledger on separate connections.

The ledger behaves like a good external service: an idempotency key has its effect once, and an effect that was
compensated before it arrived never arrives.

One step is transactional. It writes to books in the sagas' own database, without any key: whatever is done twice, or
half, stands there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas import Call, OutcomeUnknown, RetryPolicy, Saga, Step, TransactionalStep

LEDGER = """
CREATE TABLE IF NOT EXISTS effects (
    key text PRIMARY KEY,
    saga_id uuid NOT NULL,
    step text NOT NULL,
    present boolean NOT NULL,       -- false: undone, or cancelled before it came
    arrivals integer NOT NULL,      -- attempts that reached the ledger
    results integer NOT NULL        -- attempts that had an effect: never above 1
)"""

#: Accounts, so that sagas meet at the same rows.
ACCOUNTS = 16
BOOKS = f"""
CREATE TABLE IF NOT EXISTS postings (
    saga_id uuid NOT NULL, account integer NOT NULL, action text NOT NULL, amount integer NOT NULL
);
CREATE TABLE IF NOT EXISTS balances (account integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0);
INSERT INTO balances SELECT generate_series(0, {ACCOUNTS - 1}) ON CONFLICT DO NOTHING"""

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


RETRY = RetryPolicy(max_attempts=2, first_delay=0.05, retry_on=(ConnectionError,))


def act(context: Order, call: Call, take_effect: Callable[[], None]) -> None:
    """Take effect as the order says, or fail."""
    how = context.failing.get(call.step_name)
    time.sleep(context.seconds / 2)
    if how == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "flaky" and call.attempt == 1:
        raise ConnectionError("try again")
    if how == "clean":
        raise ValueError("refused")
    if how != "doubt":
        take_effect()
    if how in ("doubt", "late"):
        raise OutcomeUnknown("no answer")
    time.sleep(context.seconds / 2)
    context.done.append(call.step_name)


def compensate(context: Order, call: Call, undo: Callable[[], None]) -> None:
    """Undo the effect as the order says, or fail."""
    if context.failing.get(call.step_name) == "jammed":
        raise ValueError("jammed")
    undo()
    if context.failing.get(call.step_name) == "undo" and call.attempt == 1:
        raise ConnectionError("try again")


class _Shop(Step[Order]):
    retry = compensate_retry = RETRY

    def act(self, context: Order, call: Call) -> None:
        values = {"key": call.idempotency_key, "saga": call.saga_id, "step": call.step_name}
        act(context, call, lambda: ledger(ACT, values))

    def compensate(self, context: Order, call: Call) -> None:
        values = {"key": call.act_idempotency_key, "saga": call.saga_id, "step": call.step_name}
        compensate(context, call, lambda: ledger(UNDO, values))


class Post(TransactionalStep[Order]):
    """Writes to two tables of the sagas' own database, and has no key."""

    retry = compensate_retry = RETRY

    def act(self, context: Order, call: Call, session: Session) -> None:
        act(context, call, lambda: _post(session, call, 1))

    def compensate(self, context: Order, call: Call, session: Session) -> None:
        compensate(context, call, lambda: _post(session, call, -1))


def _post(session: Session, call: Call, amount: int) -> None:
    account = call.saga_id.int % ACCOUNTS
    values = {"saga": call.saga_id, "account": account, "action": "act" if amount > 0 else "undo", "amount": amount}
    session.execute(sa.text("INSERT INTO postings VALUES (:saga, :account, :action, :amount)"), values)
    session.execute(sa.text("UPDATE balances SET balance = balance + :amount WHERE account = :account"), values)


class Reserve(_Shop):
    pass


class Charge(_Shop):
    pass


class Ship(_Shop):
    pass


class Invoice(_Shop):
    pass


class FaultyOrder(Saga[Order]):
    steps = [Reserve, Post, Charge, Ship, Invoice]


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
