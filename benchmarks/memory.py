"""Measure how much a worker's memory grows while it runs a hundred thousand sagas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import Nothing, ThreeSteps
from benchmarks.through_celery import setting
from sagas import SagaEngine
from sagas.celery.dispatch import CeleryDispatcher
from sagas.testing.processes import wait_until

SAGAS = 100_000
FIRST = 1_000
_DEADLINE = 3600.0


def measure(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return the growth of the worker and its only child after the first thousand sagas."""
    with setting(directory, database("memory")) as world:
        storage = world.database.storage()
        engine = SagaEngine(storage, dispatcher=CeleryDispatcher(world.app), sagas=[ThreeSteps])

        def run(count: int) -> None:
            goal = world.finished() + count
            for first in range(0, count, 1_000):
                engine.start_many(ThreeSteps, [Nothing(f"o-{number}") for number in range(min(1_000, count - first))])
            # Check the queue first, because counting the sagas would load the server during the measurement.
            wait_until(
                lambda: world.idle() and world.finished() >= goal,
                timeout_seconds=_DEADLINE,
                what="the end of the sagas",
            )

        with world.process("worker", "-c", "1", "-l", "WARNING") as worker:
            run(FIRST)
            processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children()]
            before = [process.memory_info().rss for process in processes]
            run(SAGAS - FIRST)
            after = [process.memory_info().rss for process in processes]
        storage.close()
    growth = max(late - early for early, late in zip(before, after, strict=True)) / 2**20
    return [
        Row(
            name=f"a worker's memory after {SAGAS:,} sagas",
            unit="MB more",
            measured=growth,
            against=f"after the first {FIRST:,}: 10 MB more",
            limit=10.0,
            ratio=growth / 10.0,
            goal=1.0,
            at_most=True,
            details={"bytes before": before, "bytes after": after},
        )
    ]
