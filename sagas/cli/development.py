"""Runs everything that sagas need on this machine, and starts worker and beat again when the code changes."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import typer
from watchfiles import PythonFilter, watch

from sagas.cli.errors import CommandFailed
from sagas.cli.migrate import migrate_database
from sagas.testing.processes import launch
from sagas.testing.servers import BrokerServer, PostgresServer, Server

#: Seconds that a worker gets to hand over its sagas, before it is killed.
_STOP_SECONDS: Final = 10.0
#: Shorter than the default, so that whoever tries things out need not wait long.
_SCAN_SECONDS: Final = "3"
#: Where the console is, unless something else is there.
CONSOLE_PORT: Final = 5580


def develop(names: Sequence[str], directory: Path) -> None:
    """Run PostgreSQL, a broker, a worker, beat and the console until a signal comes.

    Args:
        names: the modules of sagas.
        directory: where the data is kept.

    Raises:
        CommandFailed: a server does not start, or another `sagas dev` runs in the directory.
    """
    with _stopped_by_signals() as stopping, _alone_in(directory), ExitStack() as stack:
        database = PostgresServer(directory, keep=True, fsync=True)
        broker = BrokerServer(directory, keep=True)
        for server in (database, broker):
            _start(server)
            stack.callback(server.close)
        variables = {
            "SAGAS_DATABASE_URL": database.url,
            "SAGAS_BROKER_URL": broker.url,
            "SAGAS_MODULES": ",".join(names),
        }
        typer.echo(f"database: {migrate_database(database.url)}")
        _tell(directory, variables)
        environment = {**variables, "SAGAS_SCAN_INTERVAL_SECONDS": _SCAN_SECONDS}
        stack.callback(_end, [_console(environment)])
        processes = _Processes(environment, names, schedule=directory / "beat")
        stack.callback(processes.stop)
        _run(processes, stopping)


def _start(server: Server) -> None:
    try:
        server.start()
    except (RuntimeError, ImportError, OSError) as error:
        raise CommandFailed(str(error)) from error


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep the directory private and out of Git, and refuse a second `sagas dev` in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n")
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandFailed(
                f"another `sagas dev` runs in {directory.absolute()}: use that one, or give another --directory."
            ) from None
        yield


def _tell(directory: Path, variables: dict[str, str]) -> None:
    """Write the variables to a file for the programs that start sagas, and say how to use it."""
    file = directory / "env"
    file.touch(mode=0o600)
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
    typer.echo(f"variables for your programs: . {shlex.quote(str(file))}")


def _console(variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Serve the console, which says where it is. It has no code of sagas, so it is not started again."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", CONSOLE_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "sagas.cli", "console", "--port", str(port)]
    return launch(program, signal.SIGKILL, log=None, env={**os.environ, **variables})


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and kill those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Processes:
    """The worker and beat, which are started again when the code changes.

    Args:
        variables: for their environment.
        names: the modules of sagas.
        schedule: beat's file.
    """

    def __init__(self, variables: dict[str, str], names: Sequence[str], *, schedule: Path) -> None:
        self._schedule = schedule
        self._environment = {**os.environ, **variables}
        self._names = names
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, unless the code cannot be imported: then say why, and wait for the next change."""
        check = [sys.executable, "-c", _IMPORT, *self._names]
        if subprocess.run(check, env=self._environment, check=False).returncode:  # noqa: S603
            typer.echo("sagas dev: correct that; saving the file starts the worker.", err=True)
            return
        for command in (["worker", "-c", "2", "-l", "INFO"], ["beat", "-l", "WARNING", "-s", str(self._schedule)]):
            program = [sys.executable, "-m", "celery", "-A", "sagas", "-q", *command]
            self._running.append(launch(program, signal.SIGKILL, log=None, env=self._environment))

    def stop(self) -> None:
        """Stop both; the worker hands over its sagas first."""
        running, self._running = self._running, []
        _end(running)


#: Imports the modules as a worker does, and prints the sentence or the traceback of what is wrong.
_IMPORT: Final = """
import sys
from sagas.errors import SagaError
from sagas.registry import Registry
try:
    Registry().load(sys.argv[1:])
except SagaError as error:
    sys.exit(f"sagas dev: {error}")
"""


def _run(processes: _Processes, stopping: threading.Event) -> None:
    """Keep the processes running until a signal comes, and start them again after each change of the code."""
    processes.start()
    for changes in watch(Path.cwd(), watch_filter=PythonFilter(), stop_event=stopping, raise_interrupt=False):
        files = sorted({Path(path).name for _, path in changes})
        typer.echo(f"sagas dev: {', '.join(files)} changed; starting again")
        processes.stop()
        processes.start()


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C, SIGTERM or SIGHUP, instead of ending this process in the middle."""
    stopping = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
