"""Measure transactional steps, compared with the same writes in plain transactions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import psycopg

from benchmarks.contest import ratio
from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import Nothing
from sagas import Call, PsycopgStep, Saga, SagaEngine

SAGAS = 300
ROUNDS = 7
STEPS = 3
_LEDGER = "CREATE TABLE IF NOT EXISTS ledger (id uuid PRIMARY KEY, note text)"
_WRITE = "INSERT INTO ledger VALUES (%s, 'paid')"


class _Pay(PsycopgStep[Nothing]):
    def act(self, context: Nothing, call: Call, connection: psycopg.Connection[Any]) -> None:
        connection.execute(_WRITE, (uuid.uuid4(),))


class PayFirst(_Pay):
    pass


class PaySecond(_Pay):
    pass


class PayThird(_Pay):
    pass


class Payments(Saga[Nothing]):
    steps = [PayFirst, PaySecond, PayThird]


def measure(database: Callable[[str], Database]) -> list[Row]:
    """Return the row of sagas of three transactional steps, each of which writes one row."""
    target = database("transactional")
    target.migrate()
    target.execute(_LEDGER)
    storage = target.storage()
    engine = SagaEngine(storage)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    with target.connect() as connection:
        for turn in range(ROUNDS + 1):  # the first round warms up
            timed = {"ours": _rate(partial(_saga, engine)), "plain": _rate(partial(_plain, connection))}
            for name, rate in timed.items() if turn else ():
                rates[name].append(rate)
    storage.close()
    return [
        Row(
            name="running a saga of three transactional steps, one client",
            unit="sagas/s",
            measured=median(rates["ours"]),
            against="the same writes in three plain transactions",
            limit=median(rates["plain"]),
            ratio=ratio(rates["ours"], rates["plain"]),
            goal=0.3,
            details=rates,
        )
    ]


def _rate(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(SAGAS):
        run()
    return SAGAS / (time.perf_counter() - began)


def _saga(engine: SagaEngine) -> None:
    engine.run(Payments, Nothing("o-1"))


def _plain(connection: psycopg.Connection[Any]) -> None:
    for _ in range(STEPS):
        with connection.transaction():
            connection.execute(_WRITE, (uuid.uuid4(),))
