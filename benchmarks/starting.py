"""Measure the cost of starting sagas, compared with a bare insert and a bare publish."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.contest import ratio
from benchmarks.contestants.limit import TABLE
from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import Nothing, ThreeSteps
from benchmarks.through_celery import Setting, setting
from sagas import SagaEngine
from sagas.celery.dispatch import CeleryDispatcher

ROUNDS = 7
ONE_BY_ONE = 500
AT_ONCE = 2_000


def measure(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return the rows of `start` and `start_many`; no worker runs meanwhile."""
    with setting(directory, database("starting")) as world:
        world.database.execute(TABLE)
        storage = world.database.storage()
        engine = SagaEngine(storage, dispatcher=CeleryDispatcher(world.app), sagas=[ThreeSteps])
        rates: dict[str, list[float]] = {"start": [], "bare": [], "start_many": [], "bare many": []}
        for turn in range(ROUNDS + 1):  # the first run warms up
            timed = {
                "start": _rate(ONE_BY_ONE, lambda: _start(engine)),
                "bare": _rate(ONE_BY_ONE, lambda: _bare(world, ONE_BY_ONE, each=1)),
                "start_many": _rate(AT_ONCE, lambda: _start_many(engine)),
                "bare many": _rate(AT_ONCE, lambda: _bare(world, AT_ONCE, each=AT_ONCE)),
            }
            for name, rate in timed.items() if turn else ():
                rates[name].append(rate)
            world.broker.flush()
        storage.close()

    def row(name: str, bare: str, what: str, goal: float) -> Row:
        return Row(
            name=f"starting: {name}",
            unit="sagas/s",
            measured=median(rates[name]),
            against=what,
            limit=median(rates[bare]),
            ratio=ratio(rates[name], rates[bare]),
            goal=goal,
            details={"ours": rates[name], "bare": rates[bare]},
        )

    return [
        row("start", "bare", "insert and publish", 0.6),
        row("start_many", "bare many", f"one insert of {AT_ONCE:,} rows, and as many publishes", 0.8),
    ]


def _rate(count: int, action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return count / (time.perf_counter() - began)


def _start(engine: SagaEngine) -> None:
    for number in range(ONE_BY_ONE):
        engine.start(ThreeSteps, Nothing(f"o-{number}"))


def _start_many(engine: SagaEngine) -> None:
    engine.start_many(ThreeSteps, [Nothing(f"o-{number}") for number in range(AT_ONCE)])


def _bare(world: Setting, count: int, *, each: int) -> None:
    with world.database.connect() as connection, world.app.producer_or_acquire() as producer:
        for _ in range(0, count, each):
            ids = [uuid.uuid4() for _ in range(each)]
            connection.execute("INSERT INTO bare_commits SELECT unnest(%s::uuid[]), 'new'", (ids,))
            world.send_no_ops(map(str, ids), producer)
