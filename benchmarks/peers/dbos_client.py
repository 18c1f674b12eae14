"""Contestant: DBOS with workflows of three steps that do nothing, run in this process."""

from __future__ import annotations

import os

from dbos import DBOS, DBOSConfig

from benchmarks.contestants.protocol import serve


@DBOS.step()
def first(order_id: str) -> None:
    """Do nothing."""


@DBOS.step()
def second(order_id: str) -> None:
    """Do nothing."""


@DBOS.step()
def third(order_id: str) -> None:
    """Do nothing."""


@DBOS.workflow()
def three_steps(order_id: str) -> None:
    """Run the three."""
    first(order_id)
    second(order_id)
    third(order_id)


def main() -> None:
    """Run workflows without the optional check of each connection before use, which costs speed."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": os.environ["BENCH_URL"],
        "db_engine_kwargs": {"pool_pre_ping": False},
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    serve(lambda: three_steps("o-1"))
    DBOS.destroy()


if __name__ == "__main__":
    main()
