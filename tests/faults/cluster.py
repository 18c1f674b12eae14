"""The cluster for fault runs: PostgreSQL, a broker, workers with their own links and clocks, and two beats."""

from __future__ import annotations

import importlib.util
import itertools
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Protocol, Self
from uuid import UUID

import psycopg
import sqlalchemy as sa

from sagas import PostgresSagaStorage, SagaEngine, Settings
from sagas.admin import Operator
from sagas.celery.application import SagaCelery
from sagas.celery.dispatch import CeleryDispatcher
from sagas.errors import StorageUnavailable
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.schema import migrate
from sagas.testing.processes import CeleryProcess
from sagas.testing.servers import BrokerServer, PostgresServer
from tests.faults import shop
from tests.faults.check import Findings, check
from tests.faults.network import Link, addresses, link_to
from tests.forking import start_celery


@dataclass
class Worker:
    """A worker's place in the cluster; one process after another runs in it."""

    number: int
    link: Link
    clock_offset: int
    process: CeleryProcess
    lock: threading.Lock = field(default_factory=threading.Lock)  # the fault that disturbs this worker holds the lock

    @property
    def node(self) -> str:
        """The name in `lease_owner` of each process that runs in this place."""
        return f"w{self.number}@faults"


class System(Protocol):
    """The system under test: our sagas, or a peer's, run by Celery workers of its own application."""

    #: The argument of Celery's `-A`.
    application: str

    def __init__(self, database_url: str, broker_url: str, environment: Mapping[str, str]) -> None:
        """Prepare the database, and connect to it and to the broker."""

    def start(self, order: shop.Order, key: str) -> UUID:
        """Start a saga; a second call with the same key starts nothing."""

    def unfinished(self) -> int:
        """Return the number of sagas that are neither finished nor dead."""

    def held_by(self, owner: str) -> dict[UUID, tuple[str, int]]:
        """Return sagas whose holder matches a LIKE pattern: id → holder and version; none if holders are not stored."""

    def queued(self) -> dict[UUID, tuple[str, int]]:
        """Return sagas whose message should be in the broker, in the same form; none if this is not stored."""

    def check(self, ledger_url: str, started: dict[UUID, shop.Order], undisturbed: set[UUID]) -> Findings:
        """Compare the started sagas with their results."""

    def close(self) -> None:
        """Disconnect."""


class OurSystem:
    """Our sagas."""

    application = "sagas"

    def __init__(self, database_url: str, broker_url: str, environment: Mapping[str, str]) -> None:
        engine = sa.create_engine(database_url)
        with engine.connect() as connection:
            migrate(connection)
        with engine.begin() as connection:
            connection.exec_driver_sql(shop.BOOKS)
        engine.dispose()
        app = SagaCelery(Settings(broker_url=broker_url))
        self._url = libpq(database_url)
        self.storage = PostgresSagaStorage(database_url)
        self._engine = SagaEngine(
            self.storage,
            dispatcher=CeleryDispatcher(app),
            settings=Settings.from_environment(environment),
            sagas=[shop.FaultyOrder],
        )

    def start(self, order: shop.Order, key: str) -> UUID:
        while True:
            try:
                return self._engine.start(shop.FaultyOrder, order, idempotency_key=key)
            except StorageUnavailable:
                time.sleep(0.1)

    def unfinished(self) -> int:
        try:
            return len(self.unfinished_ids())
        except StorageUnavailable:
            return -1

    def unfinished_ids(self) -> list[UUID]:
        """Return the sagas that are neither finished nor dead."""
        return [saga.id for saga in self.storage.find(SagaFilter(states=_UNFINISHED, limit=1_000))]

    def operator(self, actor: str) -> Operator:
        """An operator who acts in this process."""
        return Operator(self._engine, actor=actor)

    def held_by(self, owner: str) -> dict[UUID, tuple[str, int]]:
        return self._where("lease_owner LIKE %s", owner)

    def queued(self) -> dict[UUID, tuple[str, int]]:
        return self._where("state = %s", SagaState.QUEUED)

    def _where(self, condition: LiteralString, value: str) -> dict[UUID, tuple[str, int]]:
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            question = "SELECT id, COALESCE(lease_owner, ''), version FROM saga_executions WHERE "
            rows = connection.execute(question + condition, (value,))
            return {saga: (by, version) for saga, by, version in rows}

    def check(self, ledger_url: str, started: dict[UUID, shop.Order], undisturbed: set[UUID]) -> Findings:
        return check(
            self._url, ledger_url, started, undisturbed, max_attempts=self._engine.settings.max_recovery_attempts
        )

    def close(self) -> None:
        self.storage.close()


_UNFINISHED = tuple(state for state in SagaState if state not in (SagaState.FINISHED, SagaState.DEAD))


def libpq(url: str) -> str:
    """Return the same URL for psycopg without SQLAlchemy."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


class Cluster:
    """Real servers and processes, for the time of a `with` block.

    Args:
        directory: for data and logs.
        system: the system under test.
        workers: number of workers, of two processes each.
        lease_seconds, scan_seconds: shorter than in production, so that a run has many of them.
        thrice: whether every message is delivered three times.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int,
        lease_seconds: float,
        scan_seconds: float,
        thrice: bool = True,
        system: type[System] = OurSystem,
    ) -> None:
        self.directory = directory
        self._system = system
        self.lease_seconds = lease_seconds
        self.scan_seconds = scan_seconds
        self._count = workers
        self._logs = itertools.count(1)
        self._thrice = thrice
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        self.ended_by_themselves = 0
        self.workers: list[Worker] = []
        self.beats: list[CeleryProcess] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The server is durable: acknowledged commits must survive an immediate restart.
            self.postgres = stack.enter_context(
                PostgresServer(
                    self.directory / "postgres",
                    settings={"full_page_writes": "on", "fsync": "off"},
                    also_at=addresses(self._count),
                )
            )
            self.broker = stack.enter_context(BrokerServer(self.directory / "broker"))
            self.database_url = self.postgres.create_database("sagas")
            ledger_url = sa.make_url(self.postgres.create_database("ledger"))
            self.ledger_url = libpq(ledger_url.render_as_string(hide_password=False))
            with psycopg.connect(self.ledger_url, autocommit=True) as connection:
                connection.execute(shop.LEDGER)
            stack.callback(self._end_processes)
            self._start_all()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_all(self) -> None:
        self.system = self._system(self.database_url, self.broker.url, self.environment(self.database_url))
        # One clock is an hour ahead and one an hour behind, if the library for wrong clocks is installed.
        offsets = [0, 3600, -3600]
        for number in range(1, self._count + 1):
            link = link_to(int(sa.make_url(self.database_url).port or 0), number)
            offset = offsets[number % 3] if fake_time_library() else 0
            process = self._worker(number, link, offset)
            self.workers.append(Worker(number, link, offset, process))
        self.beats = [self._process(["beat", "-l", "INFO"], self.database_url, 0) for _ in range(2)]
        for worker in self.workers:
            worker.process.wait_for_log(" ready.")
        self._supervisor.start()

    def restart(self, worker: Worker) -> None:
        """Start a new process in place of one that has ended, as an orchestrator does."""
        worker.process = self._worker(worker.number, worker.link, worker.clock_offset)
        worker.process.wait_for_log(" ready.")

    def _supervise(self) -> None:
        """Restart workers that ended without a fault; no worker should."""
        while not self._ended.wait(0.5):
            for worker in self.workers:
                if worker.process.exit_code is not None and worker.lock.acquire(blocking=False):
                    with suppress(TimeoutError):
                        self.restart(worker)
                    self.ended_by_themselves += 1
                    worker.lock.release()

    def _worker(self, number: int, link: Link, offset: int) -> CeleryProcess:
        url = sa.make_url(self.database_url).set(host=link.host, port=link.port).render_as_string(hide_password=False)
        node = f"w{number}@faults"
        return self._process(["worker", "-c", "2", "-n", node, "-l", "INFO"], url, offset)

    def _process(self, command: list[str], database_url: str, offset: int) -> CeleryProcess:
        log = self.directory / f"{next(self._logs):03d}-{command[0]}.log"
        environment = self.environment(database_url)
        if offset:
            environment |= {
                "LD_PRELOAD": str(fake_time_library()),
                "FAKETIME": f"{offset:+d}s",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        # A peer's application has its own modules.
        start = start_celery if self._system.application == OurSystem.application else CeleryProcess
        return start(
            command, environment=environment, log=log, directory=self.directory, application=self._system.application
        )

    def environment(self, database_url: str) -> dict[str, str]:
        """Return the environment of the processes, with this URL of the database."""
        return {
            "SAGAS_DATABASE_URL": database_url,
            "SAGAS_BROKER_URL": self.broker.url,
            "SAGAS_MODULES": "tests.faults.shop",
            "SAGAS_LEASE_SECONDS": str(self.lease_seconds),
            "SAGAS_SCAN_INTERVAL_SECONDS": str(self.scan_seconds),
            "SAGAS_BACKOFF_SECONDS": "0.5",
            "SAGAS_MAX_BACKOFF_SECONDS": "5",
            "LEDGER_URL": self.ledger_url,
            "TMPDIR": str(self.directory),  # a killed worker leaves its pool's files there
            "PYTHONPATH": str(Path(__file__).parent.parent.parent),
            **({"DELIVER_THREE_TIMES": "1"} if self._thrice else {}),
        }

    def _end_processes(self) -> None:
        self._ended.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for process in [worker.process for worker in self.workers] + self.beats:
            process.kill()
        for worker in self.workers:
            worker.link.close()
        if hasattr(self, "system"):
            self.system.close()


def fake_time_library() -> Path | None:
    """Return the path of the library that gives a process a wrong clock; None if it is not installed."""
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return library if library.exists() and os.name == "posix" else None
