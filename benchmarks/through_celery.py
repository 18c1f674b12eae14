"""Measure how fast started and crashed sagas run through Celery, compared with tasks that do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, LiteralString

import redis
from kombu import Producer

from benchmarks.contest import ratio
from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import Nothing, ThreeSteps
from sagas import SagaEngine, Settings
from sagas.celery.application import SagaCelery
from sagas.celery.dispatch import CeleryDispatcher
from sagas.testing.processes import CeleryProcess, wait_until
from sagas.testing.servers import BrokerServer

MESSAGES = 10_000
ROUNDS = 3
_DEADLINE = 300.0
#: Sagas for each call of `start_many`. Another row measures single calls of `start`.
_BATCH = 500
_WORKER = ("worker", "-c", "2", "-l", "WARNING")

# A worker that died in the second step still holds them for an hour: version 1, the first step in the log.
_CRASHED = """
WITH crashed AS (
    INSERT INTO saga_executions
        (id, name, definition, status, state, context, version, lease_owner, lease_token, available_at)
    SELECT gen_random_uuid(), 'three-steps', %(definition)s, 'RUNNING', 'running', '{"order_id":"o-1"}', 1,
        'gone@host/1.1', gen_random_uuid(), clock_timestamp() + interval '1 hour'
    FROM generate_series(1, %(count)s) RETURNING id
)
INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker)
SELECT id, 'first', 'act', 'completed', 1, 'gone@host/1.1' FROM crashed"""
_LEASES_RUN_OUT = "UPDATE saga_executions SET available_at = clock_timestamp()"


class Setting:
    """A broker, a database and Celery processes with the settings of sagas."""

    def __init__(self, directory: Path, database: Database, broker: BrokerServer) -> None:
        self.directory = directory
        self.database = database
        self.broker = broker
        self.redis = redis.Redis.from_url(broker.url)
        self.app = SagaCelery(Settings(broker_url=broker.url))
        self._logs = 0

    @contextmanager
    def process(self, *command: str, application: str = "sagas", **environment: str) -> Iterator[CeleryProcess]:
        """Run a Celery process; workers are ready when the block begins."""
        self._logs += 1
        variables = {
            "SAGAS_DATABASE_URL": self.database.sqlalchemy_url,
            "SAGAS_BROKER_URL": self.broker.url,
            "SAGAS_MODULES": "benchmarks.sagas",
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "TMPDIR": str(self.directory),
            **environment,
        }
        log = self.directory / f"{self._logs}-{command[0]}.log"
        with CeleryProcess(
            command, environment=variables, log=log, directory=self.directory, application=application
        ) as process:
            if command[0] == "worker":
                wait_until(lambda: self.app.control.ping(timeout=0.5), what="a worker's answer")
            yield process

    def send_no_ops(self, ids: Iterable[str], producer: Producer) -> None:
        """Send a task that does nothing for each id, in the same way as sagas."""
        for place, saga_id in enumerate(ids):
            self.app.send_task(
                "bench.no_op",
                args=(saga_id,),
                kwargs={"version": 0},
                queue="sagas.run",
                declare=() if place else None,
                producer=producer,
                ignore_result=True,
            )

    def idle(self) -> bool:
        """Whether no message waits and none is being processed."""
        waiting = sum(self.redis.llen(queue) for queue in ("sagas.run", "sagas.recover"))  # type: ignore[misc]
        return waiting == 0 and self.redis.hlen("unacked") == 0

    def finished(self) -> int:
        """How many sagas are finished."""
        return self._count("saga_executions WHERE finished_at IS NOT NULL")

    def scanned(self) -> bool:
        """Whether a scan has run."""
        return self._count("saga_scans") > 0

    def _count(self, what: LiteralString) -> int:
        with self.database.connect() as connection:
            row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()
        return int(row[0]) if row else 0


@contextmanager
def setting(directory: Path, database: Database) -> Iterator[Setting]:
    """Set up the servers and processes of a measurement through Celery."""
    database.migrate()
    directory.mkdir(exist_ok=True)
    with BrokerServer(directory / "broker") as broker:
        yield Setting(directory, database, broker)


def measure(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return both rows: sagas started and finished, and sagas recovered."""
    with setting(directory, database("through_celery")) as world:
        no_ops, started, recovered = [], [], []
        recovery: dict[str, Any] = {}
        for _ in range(ROUNDS):
            # Measure one half before and one half after, because the machine's speed drifts.
            seconds = _no_ops(world, MESSAGES // 2)
            with world.process(*_WORKER):
                started.append(_started(world))
            no_ops.append(MESSAGES / (seconds + _no_ops(world, MESSAGES - MESSAGES // 2)))
            rate, recovery = _recovered(world)
            recovered.append(rate)

    def row(name: str, rates: list[float], details: dict[str, Any]) -> Row:
        return Row(
            name=name,
            unit="sagas/s",
            measured=median(rates),
            against="no-op tasks of plain Celery, same settings",
            limit=median(no_ops),
            ratio=ratio(rates, no_ops),
            goal=0.75,
            details={"ours": rates, "no-op tasks": no_ops, **details},
        )

    return [
        row(f"through Celery: {MESSAGES:,} sagas, start to finish", started, {}),
        row(f"recovering {MESSAGES:,} crashed sagas: beat, scan, workers", recovered, recovery),
    ]


def _no_ops(world: Setting, count: int) -> float:
    """Return how many seconds so many tasks take that do nothing."""
    with world.process(*_WORKER, application="benchmarks.no_op_tasks"):
        began = time.perf_counter()
        with world.app.producer_or_acquire() as producer:
            world.send_no_ops((f"01890a5d-ac96-774b-bcce-{number:012d}" for number in range(count)), producer)
        wait_until(world.idle, timeout_seconds=_DEADLINE, what="the end of the no-op tasks")
        return time.perf_counter() - began


def _started(world: Setting) -> float:
    storage = world.database.storage()
    engine = SagaEngine(storage, dispatcher=CeleryDispatcher(world.app), sagas=[ThreeSteps])
    before = world.finished()
    began = time.perf_counter()
    for first in range(0, MESSAGES, _BATCH):
        engine.start_many(ThreeSteps, [Nothing(f"o-{number}") for number in range(first, first + _BATCH)])
    wait_until(world.idle, timeout_seconds=_DEADLINE, what="the end of the sagas' messages")
    rate = MESSAGES / (time.perf_counter() - began)
    storage.close()
    if world.finished() - before != MESSAGES:
        raise RuntimeError(f"of {MESSAGES} started sagas, {world.finished() - before} finished")
    return rate


def _recovered(world: Setting) -> tuple[float, dict[str, Any]]:
    with world.database.connect() as connection:
        connection.execute("TRUNCATE saga_executions, saga_logs, saga_scans")
        connection.execute(_CRASHED, {"definition": ThreeSteps.graph.hash, "count": MESSAGES})
        connection.execute("VACUUM ANALYZE saga_executions, saga_logs")
    every_second = {"SAGAS_SCAN_INTERVAL_SECONDS": "1"}
    with world.process(*_WORKER, **every_second):
        with world.process("beat", "-l", "WARNING", **every_second):
            wait_until(world.scanned, what="the first scan")
            with world.database.connect() as connection:
                connection.execute(_LEASES_RUN_OUT)
            began = time.perf_counter()
            wait_until(
                lambda: world.idle() and world.finished() == MESSAGES, timeout_seconds=_DEADLINE, what="all recoveries"
            )
            rate = MESSAGES / (time.perf_counter() - began)
        (worker,) = world.app.control.inspect(timeout=5).stats().values()
    with world.database.connect() as connection:
        (twice,) = connection.execute("SELECT count(*) FROM saga_executions WHERE version <> 2").fetchone() or (0,)
        (results,) = connection.execute("SELECT count(*) FROM saga_logs").fetchone() or (0,)
    return rate, {
        # The queues are empty, so the number of consumed messages is that of published ones.
        "messages published": worker["total"].get("sagas.recover_saga"),
        "sagas recovered more than once": twice,
        "results twice": results - 3 * MESSAGES,
        "processors": os.cpu_count(),
    }
