"""Measure how fast sagas of three no-op steps run in one process, compared with bare commits and with peers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from benchmarks.contest import Contest, contest, ratio
from benchmarks.contestants.limit import COMMITS, TABLE
from benchmarks.database import Database
from benchmarks.rows import Row

CLIENTS = 8


def measure(database: Callable[[str], Database], peers_python: str) -> list[Row]:
    """Run sagas with one client, with eight, and with a hundred in flight in one process.

    Return the shares of the limit, and the ratios to peers. Each row has the processor time of a checkpoint.
    """
    limit, ours, cqrs, dbos = (database(name) for name in ("limit", "ours", "cqrs", "dbos"))
    limit.execute(TABLE)
    ours.migrate()
    one_client = {
        "limit": [{"module": "benchmarks.contestants.limit", "url": limit.url}],
        "ours": [{"module": "benchmarks.contestants.ours", "url": ours.url}],
        "dbos": [{"module": "benchmarks.peers.dbos_client", "url": dbos.url, "python": peers_python}],
        "python-cqrs": [{"module": "benchmarks.peers.cqrs_client", "url": cqrs.url, "python": peers_python}],
    }
    alone = contest(one_client, seconds=2, rounds=7)
    eight_clients = {name: one_client[name] * CLIENTS for name in ("limit", "ours")}
    together = contest(eight_clients, seconds=3, rounds=5)
    hundred = {
        "limit": one_client["limit"],
        "ours": [{"module": "benchmarks.contestants.in_flight", "url": ours.url}],
        "dbos": [{"module": "benchmarks.peers.dbos_in_flight", "url": dbos.url, "python": peers_python}],
    }
    in_flight = contest(hundred, seconds=3, rounds=5)

    def row(name: str, held: Contest, against: str, what: str, goal: float) -> Row:
        rates = held.rates
        return Row(
            name=name,
            unit="sagas/s",
            measured=median(rates["ours"]),
            against=what,
            limit=median(rates[against]),
            ratio=ratio(rates["ours"], rates[against]),
            goal=goal,
            details={
                "ours": rates["ours"],
                against: rates[against],
                "processor microseconds a checkpoint": {
                    "ours": held.cpu_microseconds["ours"] / COMMITS,
                    against: held.cpu_microseconds[against] / COMMITS,
                },
            },
        )

    return [
        row("running a saga, one client", alone, "limit", "4 bare commits", 0.75),
        row("running a saga, against dbos", alone, "dbos", "dbos", 6),
        row("running a saga, against python-cqrs", alone, "python-cqrs", "python-cqrs", 6),
        row("running sagas, eight clients", together, "limit", "4 bare commits, eight clients", 0.65),
        row("running sagas, 100 in flight in one process", in_flight, "limit", "4 bare commits, one client", 1.5),
        row("running sagas, 100 in flight, against dbos", in_flight, "dbos", "dbos, as many in flight", 6),
    ]
