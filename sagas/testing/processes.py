"""Real worker, beat and Flower processes for tests and fault injection.

No process outlives its `with` block or, on Linux, the process that started it.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Any, Self, TypeVar

from sagas.testing import launcher

T = TypeVar("T")


def launch(
    command: Sequence[str],
    death_signal: Signals,
    *,
    log: Path | None,
    user: pwd.struct_passwd | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a program that, on Linux, gets the signal when this process ends, even if this process is killed.

    The program's own children do not get the signal: the program must end them, or they must request the signal, too.
    The program runs in a session of its own, so that Ctrl-C at a terminal does not reach it. Its output is added to the
    log, or goes where this process's goes if there is none. The options are those of subprocess.Popen.
    """
    uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.pw_uid, user.pw_gid)
    arguments = [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
    launched: Future[subprocess.Popen[bytes]] = Future()

    # The kernel sends the signal when the thread that started the program ends, and the caller's thread may end early.
    # So this thread lives as long as the program.
    def keep() -> None:
        try:
            with nullcontext(None) if log is None else log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", launcher.__file__, *arguments, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
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


class CeleryProcess:
    """One `celery -A ...` process with its children, in a process group of its own.

    Args:
        arguments: the arguments after `celery -A APPLICATION`, such as `["worker", "-c", "2"]`.
        environment: variables added to this process's own.
        log: file for the process's output.
        directory: working directory; default: this process's.
        python: interpreter of the environment that it runs in; default: this one.
        application: the argument of Celery's `-A`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        directory: Path | None = None,
        python: str = sys.executable,
        application: str = "sagas",
    ) -> None:
        self.log = log
        # A worker's pool processes request the same signal. An embedded beat (-B) would not.
        self._process = launch(
            [python, "-m", "celery", "-A", application, *arguments],
            Signals.SIGKILL,
            log=log,
            cwd=directory,
            env={**os.environ, **environment},
        )

    @property
    def pid(self) -> int:
        """The process's id, which is also its group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    def wait_for_log(self, text: str, *, timeout_seconds: float = 60) -> None:
        """Wait until the log holds the text.

        Raises:
            TimeoutError: the text did not appear in time, or the process ended first; the message has the end of the
                log.
        """

        def seen() -> bool:
            return text in self.log.read_text(errors="replace")

        with suppress(TimeoutError):
            wait_until(lambda: seen() or self.exit_code is not None, timeout_seconds=timeout_seconds)
        if not seen():
            end = self.log.read_text(errors="replace")[-3000:]
            raise TimeoutError(f"{text!r} did not appear in {self.log} (exit code {self.exit_code}); its end:\n{end}")

    def send(self, number: Signals) -> None:
        """Send a signal to the main process alone."""
        self._process.send_signal(number)

    def send_to_group(self, number: Signals) -> None:
        """Send a signal to the process and all its children at once; SIGKILL simulates the loss of the host."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End the process and its children with SIGKILL."""
        self.send_to_group(Signals.SIGKILL)
        self._process.wait()

    def stop(self, *, timeout_seconds: float = 30) -> int:
        """Stop the process in order, and kill it and its children after the timeout. Return its exit code."""
        if self.exit_code is None:
            self.send(Signals.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        self.kill()
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop() if kind is None else self.kill()


def wait_until(condition: Callable[[], T], *, timeout_seconds: float = 60, what: str = "it") -> T:
    """Wait until the condition returns a true value, and return this value.

    Raises:
        TimeoutError: the condition did not return a true value in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_seconds:g} s")
        time.sleep(0.05)
    return result
