"""`make demo`: a shop's orders survive although their workers are killed.

The shop, the processes, the kills and the check are the same as in the fault runs (`tests/faults/run.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from types import FrameType
from typing import NoReturn
from uuid import UUID

import psycopg

from sagas import Settings
from sagas.testing.processes import wait_until
from tests.faults.background import in_background
from tests.faults.check import ALL_STEPS, Finding, Findings
from tests.faults.cluster import Cluster, libpq
from tests.faults.injection import Faults
from tests.faults.run import Load
from tests.faults.takeovers import Takeovers

ORDERS = 40
STEP_SECONDS = 0.3
#: Shortened, so that a takeover takes less than half a minute.
LEASE_SECONDS = 2.0
SCAN_SECONDS = 0.5
#: The seed decides which steps fail and which workers are killed.
SEED = 7
_DEADLINE_SECONDS = 90
_LINE_SECONDS = 2.0


class Interrupted(BaseException):
    """A signal asked the demo to stop."""


def main() -> int:
    """Run the demo on servers and workers of its own. No process of it is left afterwards, and on success no file.

    Returns:
        0 if every effect took place exactly once; 128 + the signal's number if interrupted; 1 otherwise.
    """
    for name in list(os.environ):
        # The demo shows the defaults on its own servers, so it ignores the settings of this shell.
        if name.startswith(("SAGAS_", "CELERY_", "PG")):
            del os.environ[name]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background jobs ignore some signals
            signal.signal(number, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="sagas-demo-"))
    try:
        findings, takeover_seconds = _run(directory)
    except Interrupted as interrupted:
        shutil.rmtree(directory, ignore_errors=True)
        number = signal.Signals(interrupted.args[0])
        with suppress(OSError):  # the terminal may be gone
            _say(f"The demo was interrupted by {number.name}. None of its processes is left.")
        return 128 + number
    except Exception as error:
        _say(f"The demo failed: {error}\nThe logs are in {directory}.")
        return 1
    exit_code = judge(findings, takeover_seconds)
    if exit_code:
        _say(f"The logs are in {directory}.")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return exit_code


def _run(directory: Path) -> tuple[Findings, list[float]]:
    """Run all orders while workers are killed; return the inconsistencies, and the seconds of each takeover."""
    defaults = Settings()
    _say(
        f"A shop takes {ORDERS} orders. Each is a saga of {len(ALL_STEPS)} steps: {', '.join(ALL_STEPS)}.\n"
        "Some steps fail, and their orders are undone. Two workers run the sagas, and are killed with SIGKILL.\n"
        f"Shortened for the demo: leases of {LEASE_SECONDS:g} s (default {defaults.lease_seconds:g} s), "
        f"a scan every {SCAN_SECONDS:g} s (default {defaults.scan_interval_seconds:g} s).\n"
        "Starting PostgreSQL, Valkey, two workers and two beats ..."
    )
    with ExitStack() as stack:
        cluster = stack.enter_context(
            Cluster(directory, workers=2, lease_seconds=LEASE_SECONDS, scan_seconds=SCAN_SECONDS, thrice=False)
        )
        takeovers = stack.enter_context(closing(_ToldTakeovers(libpq(cluster.database_url))))
        load = Load(cluster, Random(SEED), ALL_STEPS)
        faults = Faults(cluster, takeovers, Random(SEED), start_slow=lambda: None, broker_gone_seconds=0)
        for _ in range(ORDERS):
            load.start(replace(load.random_order(), seconds=STEP_SECONDS))
        with in_background(lambda ended: _tell_progress(libpq(cluster.database_url), ended)):
            for kill, orders in ((faults.kill_worker, 34), (faults.kill_child, 24), (faults.kill_worker, 14)):
                _wait_until_left(cluster, orders)
                kill()
            _wait_until_left(cluster, 0)
        findings = cluster.system.check(cluster.ledger_url, load.started, set())
    return findings, [seconds for tally in takeovers.tallies.values() for seconds in tally.seconds]


def judge(findings: Findings, takeover_seconds: list[float]) -> int:
    """Print the result of the check; return the exit code."""
    problems: list[Finding | str] = [*findings.all()]
    if not takeover_seconds:
        problems.append("no order was taken over, so nothing was shown: run the demo again.")
    if problems:
        _say("\nNot everything is as it must be:", *problems, sep="\n  ")
        return 1
    _say(
        f"\nOrders taken over from killed processes: {len(takeover_seconds)}, {median(takeover_seconds):.1f} s after "
        "the kill (median).\nChecked against the shop's ledger: every effect took place exactly once, and every effect "
        "of an undone order was undone."
    )
    return 0


def _wait_until_left(cluster: Cluster, orders: int) -> None:
    wait_until(
        lambda: cluster.system.unfinished() <= orders,
        timeout_seconds=_DEADLINE_SECONDS,
        what=f"the end of all orders but {orders}",
    )


class _ToldTakeovers(Takeovers):
    """Takeovers that print each fault."""

    def hit(self, fault: str, held: dict[UUID, tuple[str, int]], *, taken: bool = True) -> None:
        super().hit(fault, held, taken=taken)
        _say(f"        {fault}; orders that it held: {len(held)}")


def _tell_progress(database_url: str, ended: threading.Event) -> None:
    """Print how many orders are in each status, every two seconds and at the end."""
    began = time.monotonic()
    with psycopg.connect(database_url, autocommit=True) as connection:
        last = False
        while not last:
            last = ended.wait(_LINE_SECONDS)
            counts = Counter(dict(connection.execute("SELECT status, count(*) FROM saga_executions GROUP BY status")))
            told = "   ".join(f"{count} {status.lower()}" for status, count in sorted(counts.items()))
            _say(f"{time.monotonic() - began:5.1f} s  {told}")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    raise Interrupted(number)


def _say(*lines: object, sep: str = "\n") -> None:
    print(*lines, sep=sep, flush=True)


if __name__ == "__main__":
    sys.exit(main())
