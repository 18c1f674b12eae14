"""What the demo runs on: PostgreSQL, Valkey, beat and two workers of its own, all below one temporary directory."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import sqlalchemy as sa

from sagas.demo import guard
from sagas.demo.interrupts import Interrupts
from sagas.demo.ledger import ledger_at
from sagas.demo.shop import DATABASE_VARIABLE, OPENING_BALANCES
from sagas.storage import PostgresSagaStorage
from sagas.storage.schema import migrate
from sagas.testing.processes import CeleryProcess
from sagas.testing.servers import BrokerServer, PostgresServer

WORKERS: Final = ("worker-1", "worker-2")
CHILDREN: Final = 2
#: Shortened, so that nobody waits for half a minute to see a takeover.
LEASE_SECONDS: Final = 3
SCAN_SECONDS: Final = 1

_READY_SECONDS: Final = 60
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 5


class ProcessEnded(Exception):
    """A process that the demo needs has ended by itself."""


class Cluster:
    """Servers and processes, from `with` to its end; nothing of them is left then, nor if this process is killed.

    After a failure the logs are kept, and `kept_logs` tells where.

    Args:
        interrupts: asked between all things that take long.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        # The name first: whatever happens while the directory is made, it is known what to remove.
        self.directory = Path(tempfile.gettempdir()).resolve() / f"sagas-demo-{secrets.token_hex(4)}"
        self.kept_logs: Path | None = None
        self._interrupts = interrupts
        self._postgres = PostgresServer(self.directory / "postgres")
        self._broker = BrokerServer(self.directory / "valkey")
        self._environment: dict[str, str] = {}
        self._processes: dict[str, CeleryProcess] = {}
        self._cleaning = ExitStack()

    def start_servers(self) -> tuple[PostgresSagaStorage, str]:
        """Start PostgreSQL and Valkey, and make the databases of the sagas and of the shop.

        Returns:
            The sagas' storage, and the URL of the shop's database.

        Raises:
            ServerError: one did not start; the message ends with its log's last lines.
            Interrupted: the demo was asked to stop.
        """
        for server in (self._postgres, self._broker):
            self._cleaning.callback(server.close)
            server.start()
            self._interrupts.check()
        self._environment = {
            guard.MARK: str(self.directory),
            # A worker that is killed cannot remove its temporary files.
            "TMPDIR": str(self.directory),
            "SAGAS_DATABASE_URL": self._postgres.create_database("sagas"),
            "SAGAS_BROKER_URL": self._broker.url,
            "SAGAS_MODULES": "sagas.demo.shop",
            "SAGAS_LEASE_SECONDS": str(LEASE_SECONDS),
            "SAGAS_SCAN_INTERVAL_SECONDS": str(SCAN_SECONDS),
            DATABASE_VARIABLE: self._postgres.create_database("shop"),
        }
        shop_url = self._environment[DATABASE_VARIABLE]
        with ledger_at(shop_url) as ledger:
            ledger.open(OPENING_BALANCES)
        engine = sa.create_engine(self._environment["SAGAS_DATABASE_URL"])
        self._cleaning.callback(engine.dispose)
        with engine.connect() as connection:
            migrate(connection)
        self._interrupts.check()
        return PostgresSagaStorage(engine), shop_url

    def start_processes(self) -> None:
        """Start beat and the workers, each with its children in a group of its own, and wait until they are ready.

        Raises:
            Interrupted, DeadlinePassed, ProcessEnded: they are not.
        """
        self._cleaning.callback(self._kill_processes)
        self._start("beat", "beat")
        for worker in WORKERS:
            # Its name is the name under which it holds leases.
            self._start(worker, "worker", "-c", str(CHILDREN), "-n", f"{worker}@demo")
        for worker in WORKERS:
            self._interrupts.wait(partial(self._ready, worker), seconds=_READY_SECONDS, what=f"{worker}'s start")

    def start_orders(self, orders: Traversable) -> str:
        """Start a saga for each line of the file, by the command that users have for it; return what it says.

        Raises:
            Interrupted, DeadlinePassed, ProcessEnded: it did not succeed.
        """
        log = self.directory / "start.log"
        with as_file(orders) as path, log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "sagas.cli", "start", "place-order", "--from", str(path), "--key", "order"],
                env={**os.environ, **self._environment},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._cleaning.callback(process.kill)
            self._interrupts.wait(
                lambda: process.poll() is not None, seconds=_START_SECONDS, what="starting the orders"
            )
        said = log.read_text(errors="replace").strip()
        if process.returncode:
            raise ProcessEnded(f"`sagas start` ended with status {process.returncode}: {said}")
        return said

    def kill(self, worker: str) -> None:
        """Kill a worker and its children at once with SIGKILL, as losing its host would."""
        self._processes.pop(worker).kill()

    def check(self) -> None:
        """Make sure that everything runs that was not killed on purpose.

        Raises:
            ProcessEnded: something ended by itself.
        """
        for name, process in self._processes.items():
            if process.exit_code is not None:
                raise ProcessEnded(f"{name} ended by itself with status {process.exit_code}")

    def __enter__(self) -> Self:
        self._cleaning.callback(guard.sweep, self.directory)
        try:
            self.directory.mkdir(mode=0o700)
            self._start_guard()
        except BaseException:
            self._cleaning.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._cleaning:
            if kind is None:
                for process in self._processes.values():
                    process.stop(timeout_seconds=_STOP_SECONDS)
            elif issubclass(kind, Exception) and self._interrupts.number is None:
                self._keep_logs()

    def _start(self, name: str, *arguments: str) -> None:
        process = CeleryProcess(
            [*arguments, "-l", "INFO"],
            environment=self._environment,
            log=self.directory / f"{name}.log",
            directory=self.directory,
        )
        self._processes[name] = process
        self._interrupts.check()

    def _ready(self, worker: str) -> bool:
        self.check()
        return " ready." in self._processes[worker].log.read_text(errors="replace")

    def _kill_processes(self) -> None:
        for process in self._processes.values():
            process.kill()

    def _start_guard(self) -> None:
        watching = subprocess.Popen(
            # -P: the modules beside it must not be taken for others of the same name.
            [sys.executable, "-P", guard.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def release() -> None:
            assert watching.stdin is not None
            watching.stdin.close()
            watching.wait()

        self._cleaning.callback(release)

    def _keep_logs(self) -> None:
        self.kept_logs = Path(tempfile.mkdtemp(prefix="sagas-demo-logs-"))
        for log in self.directory.rglob("*.log"):
            shutil.copy(log, self.kept_logs)


def orders_file() -> Traversable:
    """The orders, as they are packaged."""
    return files("sagas.demo") / "orders.jsonl"
