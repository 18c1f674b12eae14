"""Measure signals: how fast they are delivered, how soon a saga runs then, and what a million waiting sagas cost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.claiming import claim
from benchmarks.contest import ratio
from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import Nothing, Sleeps, WaitsForSignal
from benchmarks.through_celery import Setting, setting
from sagas import SagaEngine
from sagas.celery.dispatch import CeleryDispatcher
from sagas.storage.records import Claim
from sagas.testing.processes import wait_until

SIGNALS = 1_000
ROUNDS = 5
WOKEN = 300
#: Seconds between two signals while latencies are measured.
APART = 0.05
MILLION = 1_000_000
#: Sleepers that become due in a second, and for how many seconds; a scan's limit is 1,000.
DUE_A_SECOND, SECONDS = 100, 60
#: Seconds between two scans: shorter than the default while latencies are measured, and the default for sleepers.
OFTEN, SCAN_INTERVAL = 1.0, 5.0
_WORKER = ("worker", "-c", "2", "-l", "WARNING")

_BARE = "CREATE TABLE IF NOT EXISTS bare_signals (id uuid PRIMARY KEY, waits boolean NOT NULL DEFAULT true)"
_WAITING = """
INSERT INTO saga_executions (id, name, definition, status, state, context, version, available_at)
SELECT uuidv7(-n * interval '1 ms'), 'waits-for-signal', %(definition)s, 'RUNNING', 'waiting', '{"order_id":"o-1"}', 1,
    'infinity'
FROM generate_series(1, %(count)s) AS n"""
# Each is due a moment after the one before it, and the first only once all of them are stored.
_SLEEPING = """
WITH sleeping AS (
    INSERT INTO saga_executions (id, name, definition, status, state, context, version, available_at)
    SELECT uuidv7(-n * interval '1 ms'), 'sleeps', %(definition)s, 'RUNNING', 'waiting', '{"order_id":"o-1"}', 1,
        statement_timestamp() + interval '2 minutes' + n * interval '1 second' / %(rate)s
    FROM generate_series(1, %(count)s) AS n RETURNING id, available_at
)
INSERT INTO saga_logs (saga_id, step_name, action, status, version, details, created_at)
SELECT id, 'nap', 'act', 'armed', 1, '{"seconds": 3600}', available_at - interval '1 hour' FROM sleeping"""
_ERRORS = """
SELECT extract(epoch FROM ended.created_at - armed.created_at) - 3600
FROM saga_logs armed JOIN saga_logs ended USING (saga_id)
WHERE armed.status = 'armed' AND ended.status = 'completed'"""


class _Nowhere:
    """A dispatcher that sends nothing: measured is what the database takes."""

    def send(self, claims: Sequence[Claim]) -> int:
        return len(claims)


def measure(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return the rows of `make bench`: the rate of signals, and how soon a saga runs after one."""
    return [_rate(database("signals")), *_latency(directory, database("signalled"))]


def measure_many(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return the rows of `make bench-scale`: a claim beside a million sagas that wait, and a million sleepers."""
    return [_claim_beside(database("few_waiting"), database("many_waiting")), _sleepers(directory, database("asleep"))]


def _rate(target: Database) -> Row:
    target.migrate()
    target.execute(_BARE)
    storage = target.storage()
    engine = SagaEngine(storage, dispatcher=_Nowhere(), sagas=[WaitsForSignal])
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    with target.connect() as connection:
        for turn in range(ROUNDS + 1):  # the first round warms up
            waiting = _wait_all(engine, target, SIGNALS)
            bare = [uuid.uuid4() for _ in waiting]
            connection.execute("INSERT INTO bare_signals SELECT unnest(%s::uuid[])", (bare,))
            timed = {
                "ours": _timed(partial(_signal_all, engine, waiting)),
                "bare": _timed(partial(_bare, connection, bare)),
            }
            for name, rate in timed.items() if turn else ():
                rates[name].append(rate)
    storage.close()
    return Row(
        name="delivering 1,000 signals",
        unit="signals/s",
        measured=median(rates["ours"]),
        against="commits of two statements",
        limit=median(rates["bare"]),
        ratio=ratio(rates["ours"], rates["bare"]),
        goal=0.5,
        details=rates,
    )


def _wait_all(engine: SagaEngine, target: Database, count: int) -> list[uuid.UUID]:
    definition = engine.definitions.register(WaitsForSignal.graph)
    with target.connect() as connection:
        connection.execute(_WAITING, {"definition": definition, "count": count})
        rows = connection.execute("SELECT id FROM saga_executions WHERE state = 'waiting'").fetchall()
    return [row[0] for row in rows]


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return SIGNALS / (time.perf_counter() - began)


def _signal_all(engine: SagaEngine, waiting: Sequence[uuid.UUID]) -> None:
    for saga_id in waiting:
        engine.signal(saga_id, "courier")


def _bare(connection: Any, ids: Sequence[uuid.UUID]) -> None:
    """Store a row and change another in one transaction, as the least that wakes somebody up."""
    for one in ids:
        with connection.transaction():
            connection.execute("INSERT INTO bare_signals VALUES (%s, false)", (uuid.uuid4(),))
            connection.execute("UPDATE bare_signals SET waits = false WHERE id = %s", (one,))


def _latency(directory: Path, target: Database) -> list[Row]:
    """Signal sagas one by one, beside the scan, and read from the log when each ran."""
    every_second = {"SAGAS_SCAN_INTERVAL_SECONDS": f"{OFTEN:g}"}
    with setting(directory, target) as world:
        storage = target.storage()
        engine = SagaEngine(storage, dispatcher=CeleryDispatcher(world.app), sagas=[WaitsForSignal])
        with world.process(*_WORKER, **every_second), world.process("beat", "-l", "WARNING", **every_second):
            ids = engine.start_many(WaitsForSignal, [Nothing("o-1")] * WOKEN)
            _until(world, "state = 'waiting'", WOKEN)
            sent: dict[uuid.UUID, Any] = {}
            with target.connect() as connection:
                for saga_id in ids:
                    (sent[saga_id],) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
                    engine.signal(saga_id, "courier")
                    time.sleep(APART)
                _until(world, "state = 'finished'", WOKEN)
                rows = connection.execute(
                    "SELECT saga_id, created_at FROM saga_logs WHERE step_name = 'courier' AND status = 'completed'"
                ).fetchall()
        storage.close()
    milliseconds = sorted(1000 * (at - sent[saga_id]).total_seconds() for saga_id, at in rows)
    worst = quantiles(milliseconds, n=100)[-1]
    return [
        _at_most("from signal to running, median", "ms", median(milliseconds), 100.0, details={"ms": milliseconds}),
        _at_most("from signal to running, 99 of 100", "ms", worst, 1000.0),
    ]


def _until(world: Setting, condition: str, count: int) -> None:
    def reached() -> bool:
        with world.database.connect() as connection:
            found = connection.execute(f"SELECT count(*) FROM saga_executions WHERE {condition}").fetchone()  # type: ignore[arg-type]
        return found is not None and found[0] == count

    wait_until(reached, timeout_seconds=300, what=f"{count} sagas to be {condition}")


def _claim_beside(few: Database, many: Database) -> Row:
    """Claim sagas with a million others that wait for a signal, and without them."""
    seconds: dict[str, list[float]] = {"few": [], "many": []}
    storages = {"few": few.storage(), "many": many.storage()}
    for name, target in (("few", few), ("many", many)):
        target.migrate()
        with target.connect() as connection:
            connection.execute(_WAITING, {"definition": "none", "count": 1_000})
            connection.execute("UPDATE saga_executions SET state = 'ready', available_at = clock_timestamp()")
            if name == "many":
                connection.execute(_WAITING, {"definition": "none", "count": MILLION})
            connection.execute("VACUUM (ANALYZE) saga_executions")
    for turn in range(ROUNDS * 2 + 1):  # the first claim warms up
        for name, storage in storages.items():
            few.execute("CHECKPOINT")
            taken = claim(storage)
            if turn:
                seconds[name].append(taken)
    for storage in storages.values():
        storage.close()
    return Row(
        name="claiming 1,000 sagas beside 1,000,000 that wait",
        unit="ms",
        measured=1000 * median(seconds["many"]),
        against="the same without them",
        limit=1000 * median(seconds["few"]),
        ratio=median(seconds["many"]) / median(seconds["few"]),
        goal=1.2,
        at_most=True,
        details=seconds,
    )


def _sleepers(directory: Path, target: Database) -> Row:
    """Wake sleepers for a minute, of a million, and read from the log how late each was."""
    every_second = {"SAGAS_SCAN_INTERVAL_SECONDS": f"{SCAN_INTERVAL:g}"}
    with setting(directory, target) as world:
        storage = target.storage()
        definition = SagaEngine(storage, sagas=[Sleeps]).definitions.register(Sleeps.graph)
        storage.close()
        with world.process(*_WORKER, **every_second), world.process("beat", "-l", "WARNING", **every_second):
            wait_until(world.scanned, what="the first scan")
            with target.connect() as connection:
                connection.execute(_SLEEPING, {"definition": definition, "count": MILLION, "rate": DUE_A_SECOND})
                connection.execute("VACUUM (ANALYZE) saga_executions")
                late = connection.execute(
                    "SELECT count(*) FROM saga_executions WHERE available_at < clock_timestamp()"
                ).fetchone()
            if late != (0,):
                raise RuntimeError(f"{late} sleepers were due before all were stored: let the first sleep longer.")
            wait_until(
                lambda: world.finished() >= DUE_A_SECOND * SECONDS, timeout_seconds=600, what="the sleepers' ends"
            )
        with target.connect() as connection:
            late = sorted(float(row[0]) for row in connection.execute(_ERRORS).fetchall())
    return _at_most(
        "waking 1,000,000 sleepers: how late, 99 of 100",
        "s",
        quantiles(late, n=100)[-1],
        SCAN_INTERVAL,
        details={"median": median(late), "longest": late[-1], "woken": len(late)},
    )


def _at_most(name: str, unit: str, measured: float, limit: float, details: dict[str, Any] | None = None) -> Row:
    return Row(
        name=name,
        unit=unit,
        measured=measured,
        against=f"{limit:g} {unit}",
        limit=limit,
        ratio=measured / limit,
        goal=1.0,
        at_most=True,
        details=details or {},
    )
