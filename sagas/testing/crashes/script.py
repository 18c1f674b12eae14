"""Executes the plan of one run: records the places that the run reaches, and ends processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sagas.definition import Call
from sagas.progress import Action
from sagas.testing.crashes.crash_plan import Failure, Moment, Place


class Crash(BaseException):
    """Ends a simulated process."""


@dataclass
class Script:
    """The script of one run.

    Attributes:
        failure: the step that fails, and those that fail before it.
        crashes: positions in `trace` at which the process crashes.
        trace: the places reached so far.
        struck: whether the planned failure happened.
        raised: the last exception that came from the user's code in a step.
        turn: grows with each action and checkpoint, so that an action can detect that the saga went on after its
            timeout.
    """

    failure: Failure | None
    crashes: Collection[int]
    trace: list[Place] = field(default_factory=list)
    struck: bool = False
    raised: BaseException | None = None
    turn: int = 0
    _process: int = 0
    _alive: bool = False

    def begin(self, process: int) -> None:
        """Begin a new process."""
        self._process, self._alive = process, True

    def require_alive(self) -> None:
        """Raise Crash if the process is dead."""
        if not self._alive:
            raise Crash

    def reach(self, moment: Moment, step: str, action: Action, attempt: int) -> None:
        """Record the place, and crash if the plan says so."""
        self.require_alive()
        self.trace.append(Place(step, action, moment, attempt, self._process))
        if len(self.trace) - 1 in self.crashes:
            self._alive = False
            raise Crash

    def failure_of(self, action: Action, call: Call) -> Failure | None:
        """Return the planned failure of this attempt."""
        planned = self.failure.chain if self.failure is not None and action is Action.ACT else ()
        failure = next((failure for failure in planned if failure.step == call.step_name), None)
        if failure is None or call.attempt > failure.attempts:
            return None
        self.struck = self.struck or failure is self.failure
        return failure
