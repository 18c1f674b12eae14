"""Contestant: DBOS with workflows of three steps that do nothing, a hundred in flight in one process."""

from __future__ import annotations

import asyncio
import os
import time

from dbos import DBOS, DBOSConfig

from benchmarks.contestants.protocol import serve_rounds

IN_FLIGHT = 100


@DBOS.step()
async def first(order_id: str) -> None:
    """Do nothing."""


@DBOS.step()
async def second(order_id: str) -> None:
    """Do nothing."""


@DBOS.step()
async def third(order_id: str) -> None:
    """Do nothing."""


@DBOS.workflow()
async def three_steps(order_id: str) -> None:
    """Run the three."""
    await first(order_id)
    await second(order_id)
    await third(order_id)


async def _run(seconds: float) -> int:
    ends_at = time.perf_counter() + seconds
    runs = 0

    async def one_after_another() -> None:
        nonlocal runs
        while time.perf_counter() < ends_at:
            await three_steps("o-1")
            runs += 1

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return runs


def main() -> None:
    """Run workflows on one event loop, with the settings of `dbos_client`."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": os.environ["BENCH_URL"],
        "db_engine_kwargs": {"pool_pre_ping": False},
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    with asyncio.Runner() as runner:
        serve_rounds(lambda seconds: runner.run(_run(seconds)))
    DBOS.destroy()


if __name__ == "__main__":
    main()
