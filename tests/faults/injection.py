"""The faults: each function injects one fault and repairs the damage afterwards."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from signal import Signals
from threading import Lock
from uuid import UUID

import psutil
import psycopg
import redis

from sagas.celery.names import QUEUES
from sagas.testing.processes import wait_until
from tests.faults.cluster import Cluster, Worker, libpq
from tests.faults.takeovers import Takeovers
from tests.integration.celery.nonsense import envelope


class Faults:
    """Injects faults into a cluster; each fault chooses its worker.

    Args:
        random: chooses the worker, so that a seed determines the whole run.
        start_slow: starts a saga whose steps take long enough for a fault to hit inside a step.
        broker_gone_seconds: duration of each outage of the broker.
    """

    def __init__(
        self,
        cluster: Cluster,
        takeovers: Takeovers,
        random: Random,
        *,
        start_slow: Callable[[], object],
        broker_gone_seconds: float,
    ) -> None:
        self._start_slow = start_slow
        self._cluster = cluster
        self._takeovers = takeovers
        self._random = random
        self._broker_gone_seconds = broker_gone_seconds
        self._server = Lock()  # only one fault of PostgreSQL or the broker at a time
        self._url = libpq(cluster.database_url)

    def all(self) -> dict[str, Callable[[], None]]:
        """Return every fault by its name in the report."""
        return {
            "SIGKILL of a pool child": self.kill_child,
            "SIGKILL of a worker": self.kill_worker,
            "frozen inside a step": self.freeze_in_step,
            "frozen inside a checkpoint": self.freeze_in_checkpoint,
            "SIGTERM of a worker": self.stop_in_order,
            "PostgreSQL restarted (immediate)": self.restart_postgres,
            "link to PostgreSQL cut": self.cut_link,
            "broker emptied": self.empty_broker,
            "broker restarted": self.restart_broker,
            "broker gone": self.broker_gone,
            "message that cannot be decoded": self.send_nonsense,
        }

    # -- workers ----------------------------------------------------------------------------------------------

    def kill_child(self) -> None:
        with self._busy_worker() as (worker, held):
            children = [child.pid for child in psutil.Process(worker.process.pid).children()]
            busy = [pid for pid in children if any(f"/{pid}." in owner for owner, _ in held.values())]
            victims = {}
            if children:  # there is none while the pool replaces the children that the poison killed
                pid = self._random.choice(busy or children)
                victims = {saga: holder for saga, holder in held.items() if f"/{pid}." in holder[0]}
                with suppress(ProcessLookupError):
                    os.kill(pid, Signals.SIGKILL)
            self._takeovers.hit("SIGKILL of a pool child", victims)

    def kill_worker(self) -> None:
        with self._busy_worker() as (worker, held):
            worker.process.kill()
            self._takeovers.hit("SIGKILL of a worker", held)
            time.sleep(self._random.uniform(0, self._cluster.lease_seconds))
            self._cluster.restart(worker)

    def freeze_in_step(self) -> None:
        with self._busy_worker() as (worker, held):
            worker.process.send_to_group(Signals.SIGSTOP)
            self._takeovers.hit("frozen inside a step", held)
            self._outlast_the_lease(held)
            worker.process.send_to_group(Signals.SIGCONT)

    def freeze_in_checkpoint(self) -> None:
        with self._busy_worker() as (worker, held):
            with self._server, self._connect() as connection, connection.cursor() as cursor:
                # Its checkpoint waits for our lock while the worker freezes, and takes effect after we release the
                # lock.
                cursor.execute("BEGIN")
                cursor.execute("SELECT FROM saga_executions WHERE id = ANY(%s) FOR UPDATE", (list(held),))
                with suppress(TimeoutError):
                    wait_until(lambda: self._checkpoints_waiting() > 0, timeout_seconds=3)
                worker.process.send_to_group(Signals.SIGSTOP)
                cursor.execute("ROLLBACK")
            # Do not count these sagas as lost: the accepted checkpoint may have been the saga's last.
            self._takeovers.hit("frozen inside a checkpoint", held, taken=False)
            self._outlast_the_lease(held)
            worker.process.send_to_group(Signals.SIGCONT)

    def stop_in_order(self) -> None:
        with self._busy_worker() as (worker, held):
            worker.process.send(Signals.SIGTERM)
            self._takeovers.hit("SIGTERM of a worker", held)
            worker.process.stop(timeout_seconds=30)
            self._cluster.restart(worker)

    def cut_link(self) -> None:
        with self._busy_worker() as (worker, held):
            worker.link.cut()
            self._takeovers.hit("link to PostgreSQL cut", held)
            self._outlast_the_lease(held)
            worker.link.heal()

    # -- servers ----------------------------------------------------------------------------------------------

    def restart_postgres(self) -> None:
        with self._server:
            held = self._held("%/%")
            self._cluster.postgres.restart("immediate")
            self._takeovers.hit("PostgreSQL restarted (immediate)", held, taken=False)

    def empty_broker(self) -> None:
        with self._server:
            waiting = self._queued()
            self._cluster.broker.flush()
            self._takeovers.hit("broker emptied", waiting)

    def restart_broker(self) -> None:
        with self._server:
            waiting = self._queued()
            self._cluster.broker.restart()
            self._takeovers.hit("broker restarted", waiting)

    def broker_gone(self) -> None:
        with self._server:
            waiting = self._queued()
            self._cluster.broker.stop()
            self._takeovers.hit("broker gone", waiting)
            time.sleep(self._broker_gone_seconds)
            self._cluster.broker.start()

    def send_nonsense(self) -> None:
        with self._server, redis.Redis.from_url(self._cluster.broker.url) as client:
            for queue in QUEUES:
                for nonsense in (b"not json", json.dumps(envelope(None, queue)).encode()):
                    client.rpush(queue, nonsense)  # the next message to be delivered
            self._takeovers.hit("message that cannot be decoded", {})

    # -- details ----------------------------------------------------------------------------------------------

    def _outlast_the_lease(self, held: dict[UUID, tuple[str, int]]) -> None:
        """Wait longer than the lease, and until other workers have taken over the held sagas, even if they are busy."""
        time.sleep(self._cluster.lease_seconds + 2 * self._cluster.scan_seconds + 1)
        owners = {owner for owner, _ in held.values()}
        with suppress(TimeoutError):
            wait_until(
                lambda: not any(self._held(owner) for owner in owners) and not self._queued(), timeout_seconds=20
            )

    def _busy_worker(self) -> _Place:
        """Return a worker that holds sagas and is not under a fault, if there is one within a short time."""
        self._start_slow()
        order = self._random.sample(self._cluster.workers, len(self._cluster.workers))
        deadline = time.monotonic() + 20
        while True:
            for worker in order:
                if worker.lock.acquire(blocking=False):
                    held = self._held(f"{worker.node}/%")
                    if held or time.monotonic() > deadline:
                        return _Place(worker, held)
                    worker.lock.release()
            time.sleep(0.05)

    def _held(self, owner: str) -> dict[UUID, tuple[str, int]]:
        try:
            return self._cluster.system.held_by(owner)
        except psycopg.OperationalError:
            return {}

    def _queued(self) -> dict[UUID, tuple[str, int]]:
        try:
            return self._cluster.system.queued()
        except psycopg.OperationalError:
            return {}

    def _checkpoints_waiting(self) -> int:
        with self._connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND query LIKE ANY ('{WITH held AS%,WITH asked AS%}')"
            ).fetchone()
        return row[0] if row else 0

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=5)


class _Place:
    """A worker under a fault; it is released afterwards."""

    def __init__(self, worker: Worker, held: dict[UUID, tuple[str, int]]) -> None:
        self._worker, self._held = worker, held

    def __enter__(self) -> tuple[Worker, dict[UUID, tuple[str, int]]]:
        return self._worker, self._held

    def __exit__(self, *_: object) -> None:
        self._worker.lock.release()
