"""Run the benchmarks: `python -m benchmarks.run` takes a quarter of an hour; `--scale` runs the longer ones."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import (
    breakdown,
    claiming,
    console,
    contexts,
    memory,
    prune,
    renewing,
    running,
    signals,
    starting,
    through_celery,
    transactional,
    waiting,
)
from benchmarks.database import server
from benchmarks.rows import Row, save, table

HERE = Path(__file__).parent


def main() -> int:
    """Measure, print a table, write the results; exit non-zero if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", action="store_true", help="what takes longer than a quarter of an hour, instead")
    parser.add_argument("--only", default="", help="measurements to make, by the names of their modules")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    screen = Console(width=150)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sagas-bench-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        with server(directory / "postgres") as database:
            measurements: dict[str, Callable[[], list[Row]]] = {
                "running": partial(running.measure, database, options.peers_python),
                "breakdown": partial(breakdown.measure, directory / "breakdown"),
                "through_celery": partial(through_celery.measure, directory / "through_celery", database),
                "waiting": partial(waiting.measure, directory / "waiting", database),
                "starting": partial(starting.measure, directory / "starting", database),
                "transactional": partial(transactional.measure, database),
                "signals": partial(signals.measure, directory / "signals", database),
                "renewing": partial(renewing.measure, directory / "renewing"),
                "contexts": partial(contexts.measure, database),
            }
            if options.scale:
                measurements = {
                    "claiming": partial(claiming.measure, database),
                    "console": partial(console.measure, database),
                    "signals": partial(signals.measure_many, directory / "signals", database),
                    "pruning": partial(prune.rows, database),
                    "memory": partial(memory.measure, directory / "memory", database),
                }
            for name, measurement in measurements.items():
                if not options.only or name in options.only.split(","):
                    began = time.monotonic()
                    screen.print(f"{name} ...", end=" ")
                    rows += measurement()
                    screen.print(f"{time.monotonic() - began:.0f} s")
    save(rows, options.results, _machine())
    screen.print(table([row.as_json() for row in rows]))
    return 0 if all(row.met for row in rows) else 1


def _machine() -> dict[str, Any]:
    return {"processors": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


if __name__ == "__main__":
    raise SystemExit(main())
