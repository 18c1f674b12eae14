"""Signals and deadlines, answered where it is safe: between two things that must not be torn apart."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

#: How long after a signal, or a deadline, the demo may take to end in order.
_GRACE_SECONDS: Final = 20.0
_STDERR: Final = 2
_POLL_SECONDS: Final = 0.05


class Interrupted(Exception):
    """Somebody asked the demo to stop."""


class DeadlinePassed(Exception):
    """Something took longer than it may."""


class Interrupts:
    """Notes SIGINT, SIGTERM and SIGHUP; `check` raises for them.

    Asked twice, or not able to stop in order, the process ends at once; the guard then cleans up behind it.

    Attributes:
        number: the signal that came, if one did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Go on, unless the demo was asked to stop.

        Raises:
            Interrupted: it was.
        """
        if self.number is not None:
            raise Interrupted

    def wait(self, condition: Callable[[], object], *, seconds: float, what: str) -> None:
        """Wait until the condition holds.

        Raises:
            Interrupted: the demo was asked to stop.
            DeadlinePassed: it did not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise DeadlinePassed(f"{what} took longer than {seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def end_after(self, seconds: float) -> None:
        """End the process in so many seconds, whatever it hangs in then, and show where; replaces an earlier call."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Who started us with a signal ignored (nohup, a job in the background) wants it ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os.write(_STDERR, b"Asked twice, so the demo ends at once.\n")  # print() must not be used in a handler
            os._exit(128 + number)
        self.number = number
        self.end_after(_GRACE_SECONDS)
