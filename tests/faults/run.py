"""Inject faults into real processes: `python -m tests.faults.run --minutes 10 --seed 1`.

Sagas are started during the whole run. When the faults stop, all sagas must finish within a given time, and the ledger
and the logs must be consistent.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

from rich.console import Console
from rich.table import Table

from sagas.testing.processes import wait_until
from tests.faults.background import in_background
from tests.faults.check import ALL_STEPS, STEPS, Findings
from tests.faults.cluster import Cluster, OurSystem, System, libpq
from tests.faults.injection import Faults
from tests.faults.network import enter_own_network, own_network
from tests.faults.operators import Operators
from tests.faults.shop import Order
from tests.faults.takeovers import Takeovers, Tally

#: All sagas must finish within this time of the last fault: a lease, backoffs, and reserve for a busy machine.
SETTLING_SECONDS = 120.0
UNDISTURBED = 30
#: Duration of each step of a slow saga, half before its effect and half after: long enough for a fault to hit inside.
SLOW_SECONDS = 1.5
FAILURES = ("clean", "doubt", "late", "flaky", "undo")


@dataclass(frozen=True)
class Profile:
    """The duration and the load of a run.

    Attributes:
        minutes: duration of the faults; 0 means each fault once.
        workers: number of workers, of two processes each.
        sagas_per_second: rate of starts during the faults.
        gap_seconds: maximal time between two faults.
        broker_gone_seconds: duration of each outage of the broker.
        lease_seconds: lease of every saga.
    """

    minutes: float
    workers: int
    sagas_per_second: float
    gap_seconds: float
    broker_gone_seconds: float
    lease_seconds: float


SHORT = Profile(0, 3, 5.0, 1.0, 3.0, 2.0)
LONG = Profile(10, 4, 4.0, 6.0, 20.0, 4.0)


class Load:
    """Starts sagas, some of which fail in each way in which a step can fail, and records their expected results."""

    def __init__(self, cluster: Cluster, random: Random, steps: Sequence[str]) -> None:
        self._cluster = cluster
        self._steps = steps
        self._random = random
        self._numbers = count(1)
        self.started: dict[UUID, Order] = {}

    def start(self, order: Order) -> UUID:
        """Start one saga; its key makes a repeated call safe."""
        key = f"order-{next(self._numbers)}"
        saga_id = self._cluster.system.start(order, key)
        self.started[saga_id] = order
        return saga_id

    def random_order(self) -> Order:
        """Return a random order that takes up to two seconds; each step fails in some way with probability 1/6."""
        failing = {step: self._random.choice(FAILURES) for step in self._steps if self._random.random() < 1 / 6}
        return Order(seconds=self._random.choice((0.0, 0.05, 0.2, 0.5)), failing=failing)

    def going_on(self, per_second: float) -> AbstractContextManager[None]:
        """Start random orders while the block runs."""

        def go_on(ended: threading.Event) -> None:
            while not ended.wait(1 / per_second):
                self.start(self.random_order())

        return in_background(go_on)


def run(
    profile: Profile, seed: int, directory: Path, console: Console, *, system: type[System] = OurSystem
) -> tuple[Findings, dict[str, object]]:
    """Run a cluster under faults; return the inconsistencies and the report."""
    random = Random(seed)
    console.print(f"seed {seed}, logs in {directory}")
    with Cluster(
        directory, workers=profile.workers, lease_seconds=profile.lease_seconds, scan_seconds=0.5, system=system
    ) as cluster:
        steps = ALL_STEPS if issubclass(system, OurSystem) else STEPS
        load = Load(cluster, Random(seed + 1), steps)
        for _ in range(UNDISTURBED):
            load.start(Order(seconds=0.05))
        wait_until(lambda: cluster.system.unfinished() == 0, what="the end of the undisturbed sagas")
        undisturbed = set(load.started)
        for _ in range(2):
            load.start(Order(failing={random.choice(steps[1:]): "poison"}))
        poisoned = set(load.started) - undisturbed

        takeovers = Takeovers(libpq(cluster.database_url))
        faults = Faults(
            cluster,
            takeovers,
            random,
            start_slow=lambda: load.start(Order(seconds=SLOW_SECONDS)),
            broker_gone_seconds=profile.broker_gone_seconds,
        )
        operators: Operators | None = None
        typing: AbstractContextManager[None] = nullcontext()
        if isinstance(cluster.system, OurSystem):
            operators = Operators(cluster, Random(seed + 2), start=load.start, started=load.started)
            typing = operators.going_on(profile.gap_seconds, once=not profile.minutes)
        began = time.monotonic()
        with load.going_on(profile.sagas_per_second), typing:
            _inject(faults, profile, random, console)
        stopped = time.monotonic()
        try:
            wait_until(
                lambda: cluster.system.unfinished() == 0, timeout_seconds=SETTLING_SECONDS, what="the end of all sagas"
            )
        except TimeoutError:
            console.print(f"not everything finished within {SETTLING_SECONDS:.0f} s")
        settled = time.monotonic()
        takeovers.close()
        findings = cluster.system.check(cluster.ledger_url, load.started, undisturbed)
    # These faults last for the whole run, so all of its lost and doubled effects count for them, too.
    everything = set(load.started)
    lasting = {"every message delivered three times": Tally(len(everything), everything)}
    if any(worker.clock_offset for worker in cluster.workers):
        lasting["clocks an hour ahead and behind"] = Tally(2, everything)
    lasting["poison step"] = Tally(len(poisoned), poisoned)
    rows = [
        {
            "fault": name,
            "lasting": name in lasting,
            "times": tally.times,
            "sagas_hit": len(tally.sagas),
            "takeovers": len(tally.seconds),
            "median_takeover_seconds": round(median(tally.seconds), 2) if tally.seconds else None,
            "slowest_takeover_seconds": round(max(tally.seconds), 2) if tally.seconds else None,
            "lost": len(tally.sagas & {finding.saga_id for finding in findings.lost}),
            "doubled": len(tally.sagas & {finding.saga_id for finding in findings.doubled}),
        }
        for name, tally in (takeovers.tallies | lasting).items()
    ]
    report: dict[str, object] = {
        "seed": seed,
        "minutes": round((stopped - began) / 60, 2),
        "sagas": len(load.started),
        "lease_seconds": profile.lease_seconds,
        "settled_after_seconds": round(settled - stopped, 1),
        "clocks_bent": any(worker.clock_offset for worker in cluster.workers),
        "faults": rows,
        "operators": {command: dict(counts) for command, counts in operators.typed.items()} if operators else {},
        "workers_ended_by_themselves": cluster.ended_by_themselves,
        "link": "packets dropped" if own_network() else "forwarder silent",
        **{kind: [str(finding) for finding in found] for kind, found in vars(findings).items()},
    }
    return findings, report


def _inject(faults: Faults, profile: Profile, random: Random, console: Console) -> None:
    """Inject every fault once, then random faults until the time is up; up to three at once."""
    ends_at = time.monotonic() + profile.minutes * 60
    names = list(faults.all())
    random.shuffle(names)
    slots = threading.BoundedSemaphore(3)
    threads: list[threading.Thread] = []
    errors: list[Exception] = []

    def inject(name: str) -> None:
        try:
            faults.all()[name]()
        except Exception as error:
            errors.append(error)
            raise
        finally:
            slots.release()

    while names or time.monotonic() < ends_at:
        name = names.pop() if names else random.choice(list(faults.all()))
        slots.acquire()
        console.print(f"  {name}")
        threads.append(threading.Thread(target=inject, args=(name,)))
        threads[-1].start()
        time.sleep(random.uniform(0.2, profile.gap_seconds))
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def show(report: dict[str, object], console: Console) -> None:
    """Print the report as a table."""
    table = Table(title=f"{report['sagas']} sagas, {report['minutes']} minutes of faults, seed {report['seed']}")
    for column in ("fault", "times", "sagas hit", "takeovers", "median s", "slowest s", "lost", "doubled"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for row in report["faults"]:  # type: ignore[attr-defined]
        shown = [value for name, value in row.items() if name != "lasting"]
        table.add_row(*("-" if value is None else str(value) for value in shown))
    console.print(table)
    for command, counts in report["operators"].items():  # type: ignore[attr-defined]
        console.print(f"sagas {command}: {', '.join(f'{count} {how}' for how, count in sorted(counts.items()))}")
    console.print(
        f"workers that Celery ended itself: {report['workers_ended_by_themselves']}; "
        f"links to PostgreSQL cut: {report['link']}; clocks an hour apart: {report['clocks_bent']}\n"
        f"everything finished {report['settled_after_seconds']} s after the last fault"
    )
    for kind in ("lost", "doubled", "stuck", "wrong"):
        console.print(f"{kind}: {len(report[kind])}")  # type: ignore[arg-type]
        for sentence in report[kind]:  # type: ignore[attr-defined]
            console.print(f"  {sentence}")


def main() -> int:
    """Run the long profile; exit non-zero on anything lost, doubled, stuck or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="each fault once, as the tests do")
    parser.add_argument("--minutes", type=float, default=LONG.minutes)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--report", type=Path, default=Path("faults-report.json"))
    parser.add_argument("--logs", type=Path, help="directory for data and logs; default: one that is kept")
    options = parser.parse_args()
    console = Console(width=130)
    profile = SHORT if options.short else replace(LONG, minutes=options.minutes)
    directory = options.logs or Path(tempfile.mkdtemp(prefix="sagas-faults-"))
    findings, report = run(profile, options.seed, directory, console)
    options.report.write_text(json.dumps(report, indent=2))
    show(report, console)
    return 1 if findings.all() else 0


if __name__ == "__main__":
    enter_own_network()
    raise SystemExit(main())
