"""Break down the time of a saga: its commits, the server's work for them, the engine, and the driver."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants.limit import COMMITS, TABLE, commit_bare_rows
from benchmarks.database import Database, server
from benchmarks.rows import Row
from benchmarks.sagas import Nothing, ThreeSteps
from sagas import MemorySagaStorage, SagaEngine
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease
from sagas.storage.records import NewSaga
from sagas.storage.transitions import Transition, change_of

SAGAS = 1_000
ROUNDS = 5


class _NoStorage(MemorySagaStorage):
    """Accepts every call and stores nothing, so that the measured time is the engine's own work."""

    def create_sagas(self, sagas: Sequence[NewSaga], **_: Any) -> list[tuple[uuid.UUID, bool]]:
        return [(saga.id, True) for saga in sagas]

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        change = change_of(transition)
        return Applied(status=change.status, state=change.state, recovery_attempts=0, available_at=None)


def measure(directory: Path) -> list[Row]:
    """Return the row of the statements for a saga; its details have the breakdown of the time."""
    with server(directory, shared_preload_libraries="pg_stat_statements") as database:
        return _measure(database("breakdown"))


def _measure(target: Database) -> list[Row]:
    target.migrate()
    target.execute(TABLE)
    storage = target.storage()
    real, unstored = SagaEngine(storage), SagaEngine(_NoStorage())
    with target.connect() as connection:

        def saga(engine: SagaEngine) -> Callable[[], object]:
            return lambda: engine.run(ThreeSteps, Nothing("o-1"))

        spent: dict[str, list[float]] = {"bare": [], "saga": [], "engine": []}
        for turn in range(ROUNDS + 1):  # the first run warms up
            if turn == 1:
                target.count_statements()
            timed = {
                "bare": _each(lambda: commit_bare_rows(connection)),
                "saga": _each(saga(real)),
                "engine": _each(saga(unstored)),
            }
            for name, seconds in timed.items() if turn else ():
                spent[name].append(seconds)
    storage.close()
    sagas = ROUNDS * SAGAS
    ours = target.counted("%INTO saga_%")
    statements = sum(calls for _, calls, _ in ours) / sagas
    microseconds = {name: 1e6 * min(seconds) for name, seconds in spent.items()}
    server_work = sum(took for *_, took in ours) / sagas
    server_work -= sum(took for *_, took in target.counted("%bare_commits%")) / sagas
    return [
        Row(
            name="running a saga: statements, each a round trip and a commit",
            unit="statements",
            measured=statements,
            against="steps + 1",
            limit=COMMITS,
            ratio=statements / COMMITS,
            goal=1.0,
            at_most=True,
            details={
                "microseconds": {
                    "four bare commits": microseconds["bare"],
                    "the server's work for ours": server_work,
                    "the engine": microseconds["engine"],
                    "storage and driver": microseconds["saga"]
                    - microseconds["bare"]
                    - server_work
                    - microseconds["engine"],
                }
            },
        )
    ]


def _each(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(SAGAS):
        run()
    return (time.perf_counter() - began) / SAGAS
