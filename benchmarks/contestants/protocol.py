"""The protocol of contestants: a request to run sagas, and the answer with their number, are one line of text each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

#: Sagas to run before the measurement, so that connections, prepared statements and caches exist.
WARM_UP = 50


def serve(run_one: Callable[[], object]) -> None:
    """Read `go SECONDS` from standard input, run sagas for that time, and answer their number and processor time."""

    def run(seconds: float) -> int:
        runs, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            run_one()
            runs += 1
        return runs

    for _ in range(WARM_UP):
        run_one()
    serve_rounds(run)


def serve_rounds(run: Callable[[float], int]) -> None:
    """Do the same as `serve`, with a function that runs sagas for so many seconds and returns their number."""
    # The output of libraries must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    run(0.2)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        began, spent = time.perf_counter(), time.process_time()
        runs = run(float(line.split()[1]))
        answer = {"runs": runs, "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - spent}
        print(json.dumps(answer), file=answers, flush=True)
