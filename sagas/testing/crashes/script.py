"""Executes the plan of one run: records the places that the run reaches, and ends processes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sagas.definition import Call
from sagas.progress import Action
from sagas.testing.crashes.crash_plan import Failure, How
from sagas.testing.crashes.places import Moment, Place, Waiting


class Crash(BaseException):
    """Ends a simulated process."""


@dataclass
class Script:
    """The script of one run.

    Attributes:
        failure: the step that fails, and those that fail before it.
        crashes: positions in `trace` at which the process crashes.
        early: the wait whose signal comes early, and the position in `trace` at which it comes; -1 is before the saga
            begins.
        send: sends the signal for a wait to the saga.
        trace: the places reached so far.
        struck: whether the planned failure happened.
        raised: the last exception that came from the user's code in a step.
        turn: grows with each action and checkpoint, so that an action can detect that the saga went on after its
            timeout.
    """

    failure: Failure | None
    crashes: Collection[int]
    early: tuple[str, int] | None = None
    send: Callable[[str], None] = lambda _: None
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

    def reach(self, moment: Moment, step: str, action: Action, attempt: int, waiting: Waiting | None = None) -> None:
        """Record the place, send a signal if the plan says so, and crash if it says so."""
        self.require_alive()
        self.trace.append(Place(step, action, moment, attempt, self._process, waiting))
        self.send_early(len(self.trace) - 1)
        if len(self.trace) - 1 in self.crashes:
            self._alive = False
            raise Crash

    def send_early(self, position: int) -> None:
        """Send the signal that comes early, if it comes at this position in `trace`."""
        if self.early is not None and self.early[1] == position:
            self.send(self.early[0])

    def withholds(self, wait: str) -> bool:
        """Whether the signal for this wait, for which the saga waits now, does not come."""
        planned = self.failure.chain if self.failure is not None else ()
        late = next((each for each in planned if (each.step, each.how) == (wait, How.NO_SIGNAL)), None)
        self.struck = self.struck or (late is not None and late is self.failure)
        return late is not None

    def failure_of(self, action: Action, call: Call) -> Failure | None:
        """Return the planned failure of this attempt."""
        planned = self.failure.chain if self.failure is not None and action is Action.ACT else ()
        failure = next((failure for failure in planned if failure.step == call.step_name), None)
        if failure is None or call.attempt > failure.attempts:
            return None
        self.struck = self.struck or failure is self.failure
        return failure
