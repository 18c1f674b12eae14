"""Fork programs from a process that has imported them: a start takes 50 ms instead of seconds of processor time.

Each program has its own process, session, environment and directory. Its modules are imported already, so a pool that
patches modules before their import (gevent, eventlet) needs a fresh interpreter.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import Signals
from types import ModuleType
from typing import Final

from sagas.testing.processes import CeleryProcess

#: Modules that workers, beat, Flower and users' programs import; none of them reads the environment on import.
_IMPORTED: Final = [
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.backends.redis",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "alembic.command",
    "alembic.config",
    "kombu.transport.redis",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sagas.celery.doctor",
    "sagas.celery.tasks",
    "sagas.celery.worker",
    "sagas.cli",
    "sagas.storage.postgres",
]
_PR_SET_PDEATHSIG: Final = 1
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload([*_IMPORTED, __name__])


class Forked:
    """One program, with the parts of subprocess.Popen's interface that tests use.

    Args:
        program: the function to run, as `module:function`.
        arguments: the program's name and its arguments.
        environment: all environment variables of the program.
        directory: working directory, which is also on sys.path.
        output: file for its output.
        errors: file for its output on stderr; default: the same file.
        given: file for its stdin; default: empty.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        output: Path,
        errors: Path | None = None,
        given: Path = Path(os.devnull),
    ) -> None:
        files = (given, output, errors or output)
        for file in files[1:]:
            file.touch()
        self._process = _forking.Process(
            target=_run, args=(program, [*arguments], dict(environment), directory, files), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode


class ForkedCelery(CeleryProcess):
    """A forked `CeleryProcess`: one `celery -A ...` process with its children, in a process group of its own."""

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path, directory: Path, application: str
    ) -> None:
        self.log = log
        self._process = Forked(  # type: ignore[assignment]
            "celery.__main__:main",
            ["celery", "-A", application, *arguments],
            environment={**os.environ, **environment},
            directory=directory,
            output=log,
        )


class ForkedCommand:
    """A forked `sagas` command with pipes, and the parts of subprocess.Popen's interface that tests use.

    Like the installed script, it does not look for modules in its working directory.
    """

    def __init__(self, arguments: Sequence[str | bytes], *, environment: Mapping[str, str], directory: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="sagas-tests-") as home:
            pipes = given, output, errors = [Path(home) / name for name in ("given", "output", "errors")]
            for pipe in pipes:
                os.mkfifo(pipe)
            self._forked = Forked(
                f"{__name__}:sagas_command",
                ["sagas", *map(os.fsdecode, arguments)],
                environment=environment,
                directory=directory,
                output=output,
                errors=errors,
                given=given,
            )
            # In the order in which the process opens them: each call waits for the other end.
            self.stdin, self.stdout, self.stderr = given.open("wb"), output.open("rb"), errors.open("rb")

    @property
    def returncode(self) -> int | None:
        return self._forked.returncode

    def poll(self) -> int | None:
        return self._forked.poll()

    def send_signal(self, number: int) -> None:
        self._forked.send_signal(Signals(number))

    def kill(self) -> None:
        self.send_signal(Signals.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        return self._forked.wait(timeout)

    def communicate(self, given: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Give the command its input; return what it prints on stdout and on stderr until its end."""
        with ThreadPoolExecutor(2) as pool:
            printed = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                with suppress(BrokenPipeError), self.stdin:
                    self.stdin.write(given)
                output, errors = (future.result(timeout) for future in printed)
            except BaseException:
                self.kill()
                raise
        self.stdout.close()
        self.stderr.close()
        self.wait(timeout)
        return output, errors


def sagas_command() -> None:
    """Run `sagas` with these arguments."""
    from sagas.cli import main

    sys.path.remove(str(Path.cwd()))
    # The streams that were inherited remember the place in another file.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1, errors="backslashreplace")
    main()


def start_celery(
    arguments: Sequence[str], *, environment: Mapping[str, str], log: Path, directory: Path, application: str = "sagas"
) -> CeleryProcess:
    """Start a `celery -A ...` process: a forked one, unless the setup must precede the import of its modules."""
    needs_an_interpreter = {"gevent", "eventlet"} & set(arguments) or "LD_PRELOAD" in environment
    start = CeleryProcess if needs_an_interpreter else ForkedCelery
    return start(arguments, environment=environment, log=log, directory=directory, application=application)


def run_python(
    *arguments: str, environment: Mapping[str, str], directory: Path, timeout: float = 150.0
) -> subprocess.CompletedProcess[str]:
    """Run `python` with these arguments, which are `-m module ...`, `-c code ...` or `script ...`."""
    with tempfile.TemporaryDirectory(prefix="sagas-tests-") as home:
        output, errors = Path(home) / "output", Path(home) / "errors"
        process = Forked(
            f"{__name__}:python",
            ["python", *arguments],
            environment=environment,
            directory=directory,
            output=output,
            errors=errors,
        )
        try:
            code = process.wait(timeout)
        finally:
            process.send_signal(Signals.SIGKILL)
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


def python() -> None:
    """Execute these arguments in the same way as `python`."""
    match sys.argv[1:]:
        case ["-m", module, *arguments]:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *arguments]:
            sys.argv = ["-c", *arguments]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(code, vars(main))
        case [script, *arguments]:
            sys.argv = [script, *arguments]
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")


def _run(program: str, arguments: list[str], environment: dict[str, str], directory: Path, files: tuple[Path, ...]):
    """Become the program in a session of its own; it ends when the process that forked it ends."""
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number, (file, mode) in enumerate(zip(files, ("rb", "ab", "ab"), strict=True)):
        with file.open(mode) as opened:
            os.dup2(opened.fileno(), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(directory)
    sys.path[:0] = [str(directory), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = arguments
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    multiprocessing.set_start_method(None, force=True)
    try:
        pkgutil.resolve_name(program)()
    finally:
        # A forked process ends without the cleanup of an interpreter.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
