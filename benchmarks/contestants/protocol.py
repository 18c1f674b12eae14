"""How a contestant is told to run sagas, and answers how many it ran: a line of text each way."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

#: Run before the clock starts: connections, prepared statements and caches are there then.
WARM_UP = 50


def serve(run_one: Callable[[], object]) -> None:
    """Read `go SECONDS` from standard input, run sagas for that long, and answer `{"runs": ..., "seconds": ...}`."""
    # What libraries print must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in range(WARM_UP):
        run_one()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        runs, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            run_one()
            runs += 1
        print(json.dumps({"runs": runs, "seconds": passed}), file=answers, flush=True)
