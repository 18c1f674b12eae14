"""`celery` commands forked from a process that has imported Celery: a start costs 50 ms and not seconds of a processor.

What they run is the command itself, in a process, a session and an environment of its own. Only its modules are
imported already, so what a pool patches while they are imported (gevent, eventlet) needs a `CeleryProcess`.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Final

from sagas.testing.processes import CeleryProcess

#: What a worker, beat and Flower import of packages that are installed; none of it looks at the environment.
_IMPORTED: Final = [
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.bin.beat",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.backends.redis",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "opentelemetry.trace",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sagas.celery.doctor",
    "sagas.celery.tasks",
    "sagas.celery.worker",
    "sagas.storage.sqlalchemy",
]
_PR_SET_PDEATHSIG: Final = 1
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload([*_IMPORTED, __name__])


class ForkedCelery(CeleryProcess):
    """One `celery -A ...` process with its children, in a process group of its own.

    Args:
        arguments: what follows `celery -A APPLICATION`, as `["worker", "-c", "2"]`.
        environment: variables added to this process's own.
        log: file that takes what it prints.
        directory: its working directory.
        application: what Celery's `-A` names.
    """

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path, directory: Path, application: str
    ) -> None:
        self.log = log
        command = ["celery", "-A", application, *arguments]
        self._process = _Forked(command, {**os.environ, **environment}, log, directory)  # type: ignore[assignment]


class _Forked:
    """As much of subprocess.Popen as CeleryProcess uses."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, directory: Path) -> None:
        log.touch()
        self._process = _forking.Process(target=_run, args=(command, environment, log, directory), daemon=True)
        self._process.start()
        self.pid = self._process.pid

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
            raise subprocess.TimeoutExpired("celery", timeout or 0.0)
        return self._process.exitcode


def _run(command: list[str], environment: dict[str, str], log: Path, directory: Path) -> None:
    """Become the command: in a session of its own, which ends with the process that was forked."""
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(os.devnull).open() as nothing, log.open("ab") as output:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(directory)
    sys.path[:0] = [str(directory), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = command

    from celery.__main__ import main

    try:
        main()
    finally:
        # A forked process ends without what an interpreter does at its end.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
