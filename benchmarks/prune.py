"""Measure how fast the nightly prune deletes, and how long a live saga waits for a write meanwhile.

The prune could make a live saga wait for a lock, so the result is the longest such wait. A busy disk affects all
programs.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from benchmarks.database import Database
from benchmarks.rows import Row
from sagas import SagaEngine, configure
from sagas.celery.tasks import prune
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import Progressed

SAGAS = 1_000_000
LIVE_SAGAS = 100
LOGS_PER_SAGA = 3
BASELINE_SECONDS = 10.0
_AGE_DAYS = 30
_OWNER = "benchmark"
_LONGEST_WAIT_MS = 50.0
_LOOK_SECONDS = 0.005

# Ids are in the order of age, as ids of version 7 are. A context has about 200 bytes.
_FILL_SAGAS = """
INSERT INTO saga_executions (id, name, idempotency_key, definition, status, state, context, version, available_at,
    created_at, updated_at, finished_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'order', 'order-' || n, '', 'COMPLETED', 'finished',
    json_build_object('order', n, 'note', repeat('x', 160)), 1, 'infinity', finished, finished, finished
FROM generate_series(1, %(sagas)s) AS n,
    LATERAL (SELECT now() - make_interval(days => 2 * %(days)s, secs => -n * 0.001)) AS one(finished)
ORDER BY n"""
_FILL_LOGS = """
INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'step-' || step, 'act', 'completed', 1, 'celery@host:4711'
FROM generate_series(1, %(sagas)s) AS n, generate_series(1, %(logs)s) AS step
ORDER BY n, step"""


class _CountingStorage(PostgresSagaStorage):
    """The real storage, which also records the duration of each batch of the prune."""

    batches: list[float]

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        began = time.perf_counter()
        pruned = super().prune(older_than_seconds=older_than_seconds, limit=limit)
        if pruned:
            self.batches.append(time.perf_counter() - began)
        return pruned


def rows(database: Callable[[str], Database]) -> list[Row]:
    """Return the row of pruning a million sagas: the longest time that a live saga waited for a lock."""
    target = database("pruning")
    target.migrate()
    measured = measure(target.sqlalchemy_url, SAGAS)
    longest = 1000 * measured["longest_lock_wait_seconds"]
    return [
        Row(
            name=f"pruning {SAGAS:,} finished sagas: longest wait for a lock",
            unit="ms",
            measured=longest,
            against="50 ms",
            limit=_LONGEST_WAIT_MS,
            ratio=longest / _LONGEST_WAIT_MS,
            goal=1.0,
            at_most=True,
            details=measured,
        )
    ]


def measure(url: str, sagas: int) -> dict[str, Any]:
    """Prune so many finished sagas with the task itself, while another thread writes to live ones.

    The same writes are timed for ten seconds before the prune.

    Args:
        url: URL of a migrated database without sagas, for the benchmark only; no saga is left in it.
        sagas: number of finished sagas, with 3 rows of the log each.

    Returns:
        rows_per_second (of both tables), sagas_per_second, batches, slowest_batch_seconds, and of live writes
        (checkpoints and renewals): slowest_, median_ and p99_live_write_seconds and live_writes, each also with
        `baseline_` before it; longest_lock_wait_seconds of any session during the prune.

    Raises:
        ValueError: the database holds sagas, which the prune might delete.
    """
    storage = _CountingStorage(url)
    storage.batches = []
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        _fill(admin, sagas)
        leases = _live_sagas(storage)
        baseline = _writes_during(storage, leases, lambda: time.sleep(BASELINE_SECONDS))
        configure(SagaEngine(storage))
        with _lock_waits(admin) as waits:
            began = time.perf_counter()
            writes = _writes_during(storage, leases, lambda: prune(older_than_days=_AGE_DAYS))
            seconds = time.perf_counter() - began
        _check_pruned(admin)
        with admin.connect() as connection:
            connection.exec_driver_sql("TRUNCATE saga_executions, saga_logs")
    finally:
        configure(None)
        storage.close()
        admin.dispose()
    return {
        "sagas_per_second": sagas / seconds,
        "rows_per_second": sagas * (1 + LOGS_PER_SAGA) / seconds,
        "batches": len(storage.batches),
        "slowest_batch_seconds": max(storage.batches),
        "longest_lock_wait_seconds": max(waits, default=0.0),
        **_summary(writes),
        **{f"baseline_{name}": value for name, value in _summary(baseline).items()},
    }


@contextmanager
def _lock_waits(admin: sa.Engine) -> Iterator[list[float]]:
    """Poll how long sessions have waited for a lock; each poll that finds a waiting session adds to the list."""
    waits: list[float] = []
    ended = threading.Event()
    query = (
        "SELECT EXTRACT(epoch FROM clock_timestamp() - min(waitstart))::float8 FROM pg_locks "
        "WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    def look() -> None:
        with admin.connect() as connection:
            while not ended.wait(_LOOK_SECONDS):
                waited = connection.exec_driver_sql(query).scalar()
                waits.extend([] if waited is None else [waited])

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield waits
        finally:
            ended.set()
            looking.result()


def _fill(admin: sa.Engine, sagas: int) -> None:
    parameters = {"sagas": sagas, "days": _AGE_DAYS, "logs": LOGS_PER_SAGA}
    with admin.connect() as connection:
        if connection.exec_driver_sql("SELECT EXISTS (SELECT FROM saga_executions)").scalar():
            raise ValueError("the database holds sagas, which the prune might delete: use an empty one.")
        connection.exec_driver_sql(_FILL_SAGAS, parameters)
        connection.exec_driver_sql(_FILL_LOGS, parameters)
        connection.exec_driver_sql("VACUUM (ANALYZE) saga_executions, saga_logs")  # autovacuum does the same later


def _check_pruned(admin: sa.Engine) -> None:
    left = """
        SELECT (SELECT count(*) FROM saga_executions WHERE finished_at IS NOT NULL)
            + (SELECT count(*) FROM saga_logs WHERE step_name LIKE 'step-%%')"""
    with admin.connect() as connection:
        if rows := connection.exec_driver_sql(left).scalar():
            raise RuntimeError(f"the prune left {rows} rows of finished sagas.")


def _live_sagas(storage: PostgresSagaStorage) -> list[Lease]:
    new = [NewSaga(id=new_saga_id(), name="order", context='{"n": 1}') for _ in range(LIVE_SAGAS)]
    request = LeaseRequest(owner=_OWNER, seconds=3600)
    storage.create_sagas(new, lease=request)
    return [Lease(saga.id, 1, request.owner, request.token) for saga in new]


def _writes_during(storage: PostgresSagaStorage, leases: list[Lease], work: Any) -> list[float]:
    """Return how long each write to a live saga took while this function ran."""
    done = threading.Event()

    def write() -> list[float]:
        took = []
        for number, lease in enumerate(itertools.cycle(leases)):
            if done.is_set():
                return took
            began = time.perf_counter()
            if number % 2:
                storage.renew(lease, 3600)
            else:
                acted = (completed("step", Action.ACT),)
                storage.apply(lease, Progressed(events=acted, status=SagaStatus.RUNNING, context='{"n": 2}'))
            took.append(time.perf_counter() - began)
        return took

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            work()
        finally:
            done.set()
    return writing.result()


def _summary(took: list[float]) -> dict[str, Any]:
    return {
        "live_writes": len(took),
        "slowest_live_write_seconds": max(took),
        "median_live_write_seconds": statistics.median(took),
        "p99_live_write_seconds": statistics.quantiles(took, n=100)[-1],
    }
