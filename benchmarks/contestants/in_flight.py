"""Contestant: a hundred of our sagas in flight in one process, with `engine.run_async` on one event loop.

Its steps are async, as those of the peer are. A sync step costs one more change of threads.
"""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.contestants.protocol import serve_rounds
from benchmarks.sagas import Nothing, ThreeAsyncSteps
from sagas import PostgresSagaStorage, SagaEngine

IN_FLIGHT = 100


async def _run(engine: SagaEngine, seconds: float) -> int:
    ends_at = time.perf_counter() + seconds
    runs = 0

    async def one_after_another() -> None:
        nonlocal runs
        while time.perf_counter() < ends_at:
            await engine.run_async(ThreeAsyncSteps, Nothing(order_id="o-1"))
            runs += 1

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return runs


def main() -> None:
    """Run sagas through the engine, as a user's coroutines do."""
    engine = SagaEngine(PostgresSagaStorage(os.environ["BENCH_URL"].replace("postgresql:", "postgresql+psycopg:", 1)))
    with asyncio.Runner() as runner:
        serve_rounds(lambda seconds: runner.run(_run(engine, seconds)))


if __name__ == "__main__":
    main()
