"""Measure the statements of a long step: the server counts its renewals."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.database import Database, server
from benchmarks.rows import Row
from benchmarks.sagas import Nothing
from sagas import Call, Saga, SagaEngine, Settings, Step

#: An hour with the default lease is 120 leases. Here, each lease lasts a second.
LEASES = 30
LEASE_SECONDS = 1.0


class Long(Step[Nothing]):
    """Takes many leases."""

    def act(self, context: Nothing, call: Call) -> None:
        time.sleep(LEASES * LEASE_SECONDS)


class LongSaga(Saga[Nothing]):
    steps = [Long]


def measure(directory: Path) -> list[Row]:
    """Compare the statements of a long step with one for each third of a lease, on a server that counts them."""
    with server(directory, shared_preload_libraries="pg_stat_statements") as database:
        return _measure(database("renewing"))


def _measure(target: Database) -> list[Row]:
    target.migrate()
    storage = target.storage()
    engine = SagaEngine(storage, settings=Settings(lease_seconds=LEASE_SECONDS), sagas=[LongSaga])
    storage.check_schema()
    target.count_statements()
    report = engine.run(LongSaga, Nothing("o-1"))
    storage.close()
    if report.outcome != "completed":
        raise RuntimeError(f"the long saga is {report.outcome}: {report.message}")
    statements = {" ".join(query.split())[:70]: calls for query, calls, _ in target.counted("%saga_%")}
    # Two statements belong to the saga itself: the creation, and the checkpoint that ends the saga.
    renewals = sum(statements.values()) - 2
    expected = LEASES * 3
    return [
        Row(
            name="a long step: statements it costs",
            unit="statements",
            measured=renewals,
            against="one for each third of a lease",
            limit=expected,
            ratio=renewals / expected,
            goal=1.0,
            at_most=True,
            details={"leases": LEASES, "lease_seconds": LEASE_SECONDS, "statements": statements},
        )
    ]
