"""Real worker, beat and Flower processes for tests, demos and fault injection.

None outlives its `with` block or, on Linux, the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self, TypeVar

from sagas.testing.servers.process import launch

T = TypeVar("T")


class CeleryProcess:
    """One `celery -A ...` process with its children, in a process group of its own.

    Args:
        arguments: what follows `celery -A APPLICATION`, as `["worker", "-c", "2"]`.
        environment: variables added to this process's own.
        log: file that takes what it prints.
        directory: working directory; default: this process's.
        python: interpreter of the environment it runs in; default: this one.
        application: what Celery's `-A` names.
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
        # A worker's pool processes ask for the same signal; an embedded beat (-B) would not.
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
        """How it ended, or None while it runs."""
        return self._process.poll()

    def wait_for_log(self, text: str, *, timeout_seconds: float = 60) -> None:
        """Wait until the log holds the text.

        Raises:
            TimeoutError: it did not in time, or the process ended first; the message holds the log's end.
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
        """Send a signal to the process and all its children at once, as losing the host would."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End the process and its children with SIGKILL."""
        self.send_to_group(Signals.SIGKILL)
        self._process.wait()

    def stop(self, *, timeout_seconds: float = 30) -> int:
        """Ask it to end in order, and kill whatever is left after the timeout; return its exit code."""
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
    """Wait until the condition returns something true, and return that.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_seconds:g} s")
        time.sleep(0.05)
    return result
