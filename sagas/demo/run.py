"""The demo, told from beginning to end: sixty orders, two workers, and one of them dies."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console

from sagas import ISagaStorage, Settings
from sagas.demo.check import audit
from sagas.demo.cluster import CHILDREN, LEASE_SECONDS, SCAN_SECONDS, WORKERS, Cluster, orders_file
from sagas.demo.interrupts import DeadlinePassed, Interrupts
from sagas.demo.ledger import ledger_at
from sagas.demo.shop import Order, PlaceOrder
from sagas.demo.summary import summary
from sagas.demo.view import view
from sagas.demo.watching import Kill, Snapshot, look, order_of

#: Killed once a third of the orders is finished and each of its children works on one.
VICTIM: Final = WORKERS[1]
#: From the first order to the last; they take about 20 s.
_DEADLINE_SECONDS: Final = 90.0
#: From the very beginning, should something hang that nobody expects to.
_LAST_DEADLINE_SECONDS: Final = 240.0
_LOOK_SECONDS: Final = 0.1
_PROBLEMS_SHOWN: Final = 10


class DemoFailed(Exception):
    """Not everything went as it must."""


def main() -> int:
    """Run the demo on servers and workers of its own; nothing of them is left afterwards.

    Returns:
        0 if every saga ended as it must and the books balance; 128 + the signal's number if interrupted; 1 otherwise.
    """
    for name in list(os.environ):
        # It shows the defaults on a server of its own, whatever this shell is set up for.
        if name.startswith(("SAGAS_", "CELERY_", "PG")):
            del os.environ[name]
    # No markup: an error's text may hold brackets.
    console = Console(highlight=False, markup=False, soft_wrap=True)
    began = time.monotonic()
    with Interrupts() as interrupts:
        interrupts.end_after(_LAST_DEADLINE_SECONDS)
        cluster = Cluster(interrupts)
        try:
            with cluster:
                _Demo(console, cluster, interrupts).run()
        except Exception as error:
            if interrupts.number is not None:
                # Whatever was raised then: a terminal that goes away, say, sends SIGHUP and takes no text any more.
                with suppress(OSError):
                    name = signal.Signals(interrupts.number).name
                    console.print(f"\nThe demo was interrupted by {name}; it left no process and no file behind.")
                return 128 + interrupts.number
            console.print(f"\nThe demo failed: {str(error) or type(error).__name__}", style="bold red")
            if cluster.kept_logs is not None:
                (cluster.kept_logs / "demo.log").write_text(traceback.format_exc())
                console.print(f"The logs of all its processes are in {cluster.kept_logs}.")
            return 1
        console.print(
            f"\nAll processes and files of the demo are gone again; it took {time.monotonic() - began:.0f} s."
        )
    return 0


class _Demo:
    """One run, on a cluster that is not started yet."""

    def __init__(self, console: Console, cluster: Cluster, interrupts: Interrupts) -> None:
        self._console = console
        self._cluster = cluster
        self._interrupts = interrupts
        self._orders = read_orders()

    def run(self) -> None:
        """Start everything, watch until the last order is finished, check it and sum it up.

        Raises:
            DemoFailed: a saga or the books are not as they must be.
            Exception: something could not be started, took too long or ended by itself.
        """
        self._introduce()
        storage, shop_url = self._cluster.start_servers()
        self._tell("PostgreSQL and Valkey are up; starting beat and two Celery workers ...")
        self._cluster.start_processes()
        self._tell(f"$ sagas start {PlaceOrder.name} --from orders.jsonl --key order")
        self._tell(f"{self._cluster.start_orders(orders_file())}\n")
        kill = self._watch(storage)

        records = [storage.load(record.id) for record in look(storage).records]
        with ledger_at(shop_url) as ledger:
            books = ledger.read()
        problems = audit(self._orders, {order_of(record): record.status for record in records}, books)
        if not kill.complete:
            problems.append(f"{len(kill.held) - len(kill.takeovers)} sagas of {VICTIM} were never taken over.")
        if problems:
            raise DemoFailed(_listed(problems))
        self._tell("")
        self._tell(summary(kill, records, books))

    def _introduce(self) -> None:
        defaults = Settings()
        steps = ", ".join(step.name for step in PlaceOrder.steps)
        self._tell(
            f"A shop takes {len(self._orders)} orders. Each is a saga of {len(PlaceOrder.steps)} steps:\n"
            f"{steps}.\n"
            f"Two workers carry them out. Mid-way {VICTIM} is killed with SIGKILL, with its\n"
            "children, and nobody restarts it: the other one must finish what it had begun,\n"
            "and no effect may be lost or happen twice.\n"
            f"Shortened for the demo: leases of {LEASE_SECONDS} s (default {defaults.lease_seconds:g} s)\n"
            f"and a scan every {SCAN_SECONDS} s (default {defaults.scan_interval_seconds:g} s).\n"
        )

    def _watch(self, storage: ISagaStorage) -> Kill:
        """Show the sagas until all are finished, and kill the victim when its time has come."""
        kill: Kill | None = None
        deadline = time.monotonic() + _DEADLINE_SECONDS
        with view(self._console, storage) as shown:
            while True:
                self._interrupts.check()
                self._cluster.check()
                snapshot = look(storage)
                if kill is not None:
                    for takeover in kill.observe(snapshot, storage):
                        when = f"{takeover.seconds:.1f} s after the kill"
                        self._tell(f"{takeover.worker} took over order {takeover.order}, {when}.")
                elif self._time_to_kill(snapshot):
                    kill = self._kill(storage)
                shown.show(snapshot, kill)
                if snapshot.finished == len(self._orders):
                    break
                if time.monotonic() > deadline:
                    left = len(self._orders) - snapshot.finished
                    raise DeadlinePassed(f"{left} orders are not finished after {_DEADLINE_SECONDS:g} s.")
                time.sleep(_LOOK_SECONDS)
        if kill is None or not kill.held:
            raise DemoFailed(f"{VICTIM} held no saga when it was to be killed, so nothing was shown: run it again.")
        return kill

    def _time_to_kill(self, snapshot: Snapshot) -> bool:
        return snapshot.finished >= len(self._orders) / 3 and len(snapshot.held_by(VICTIM)) == CHILDREN

    def _kill(self, storage: ISagaStorage) -> Kill:
        at = time.monotonic()
        self._cluster.kill(VICTIM)
        snapshot = look(storage)
        kill = Kill(VICTIM, at, snapshot)
        orders = ", ".join(order_of(record) for record in snapshot.held_by(VICTIM))
        self._tell(f"SIGKILL to {VICTIM}, which held orders {orders}; their leases must run out.")
        return kill

    def _tell(self, text: str) -> None:
        self._console.print(text)


def read_orders() -> list[Order]:
    """The orders of the packaged file."""
    return [PlaceOrder.codec.load(line) for line in orders_file().read_text().splitlines()]


def _listed(problems: Sequence[str]) -> str:
    shown = [f"\n  - {problem}" for problem in problems[:_PROBLEMS_SHOWN]]
    more = len(problems) - len(shown)
    return f"{len(problems)} things are not as they must be:{''.join(shown)}{f' and {more} more.' if more else ''}"
