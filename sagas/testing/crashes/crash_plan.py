"""What goes wrong in one run: which step fails and how, and where the process crashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sagas.definition import AnySaga, RetryPolicy, Step
from sagas.errors import OutcomeUnknown
from sagas.progress import Action


class InjectedFailure(Exception):
    """A step failed because the plan of this run says so, without having taken effect."""


class Moment(StrEnum):
    """When a process crashes: nothing happens between the second and third, nor between the fourth and the first."""

    BEFORE = "before"
    AFTER = "after"
    BEFORE_CHECKPOINT = "before the checkpoint of"
    AFTER_CHECKPOINT = "after the checkpoint of"


class Place(NamedTuple):
    """A point of a run at which its process may crash.

    Attributes:
        step: the step's name.
        action: what it was doing.
        moment: when.
        attempt: which attempt at this action, as the engine counts them.
        process: 1 for the process that started the saga, 2 for the one that recovered it first, and so on.
    """

    step: str
    action: Action
    moment: Moment
    attempt: int = 1
    process: int = 1

    @property
    def repeats(self) -> bool:
        """Whether a crash here makes the action run again although it has run."""
        return self.moment in (Moment.AFTER, Moment.BEFORE_CHECKPOINT)

    def __str__(self) -> str:
        nth = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        unsaved = ", before its checkpoint" if self.moment is Moment.AFTER else ""
        where = f" in process {self.process}" if self.process > 1 else ""
        return f"{self.moment} {self.action} of {self.step}{nth}{unsaved}{where}"


class How(StrEnum):
    """How a step fails."""

    REFUSED = "fails"
    ANSWER_LOST = "takes effect, but its answer is lost"
    REQUEST_LOST = "is cut off before it takes effect"


@dataclass(frozen=True, slots=True)
class Failure:
    """The failing of one step's act().

    Attributes:
        step: the step's name.
        how: cleanly, or in doubt.
        attempts: how many attempts fail; the next would succeed.
        once: whether it is one failed attempt, which the step's policy tries again.
    """

    step: str
    how: How
    attempts: int = 1
    once: bool = False

    def error(self, step: type[Step[Any]]) -> Exception:
        """Return what act() raises."""
        if self.how is not How.REFUSED:
            return OutcomeUnknown("crash_matrix lost the answer")
        retryable = _retryable_error(step.retry) if self.once else None
        return retryable or InjectedFailure("crash_matrix lets this step fail")

    def __str__(self) -> str:
        return f"{self.step} {self.how}{' once' if self.once else ''}"


@dataclass(frozen=True, slots=True)
class CrashPlan:
    """What goes wrong in one run.

    Attributes:
        failure: the step that fails; None if none does.
        crashes: the places at which the process crashes, in order.
    """

    failure: Failure | None = None
    crashes: tuple[Place, ...] = ()

    def __str__(self) -> str:
        crashes = [f"crash {place}" for place in self.crashes]
        return ("; ".join([str(self.failure)] * bool(self.failure) + crashes)) or "nothing goes wrong"


def failures_of(saga: AnySaga) -> Iterator[Failure]:
    """Every way in which a step of the saga may fail, for good and once, if it is tried again; the simplest first."""
    for how in How:
        error = InjectedFailure if how is How.REFUSED else OutcomeUnknown
        for step in saga.steps:
            attempts = step.retry.max_attempts if issubclass(error, step.retry.retry_on) else 1
            yield Failure(step.name, how, attempts)
    for step in saga.steps:
        if _retryable_error(step.retry) is not None:
            yield Failure(step.name, How.REFUSED, once=True)
        if step.retry.max_attempts > 1 and issubclass(OutcomeUnknown, step.retry.retry_on):
            yield Failure(step.name, How.ANSWER_LOST, once=True)


def _retryable_error(policy: RetryPolicy) -> Exception | None:
    """Return an error that says that nothing took effect and is worth another attempt; None if the policy has none."""
    if policy.max_attempts == 1:
        return None
    message = "crash_matrix lets this attempt fail"
    if issubclass(InjectedFailure, policy.retry_on):
        return InjectedFailure(message)
    for kind in policy.retry_on:
        if issubclass(kind, Exception) and not issubclass(kind, OutcomeUnknown):
            # Without the arguments that its own __init__ may want.
            bare: type[Exception] = type(kind.__name__, (kind,), {"__init__": Exception.__init__})
            return bare(message)
    return None


def places_to_crash(trace: Sequence[Place]) -> list[int]:
    """Return the positions in a run's trace at which to crash it.

    Attempts between the second and the last are left out: they are more of the same.
    """
    last = {(place.step, place.action): place.attempt for place in trace}
    return [i for i, place in enumerate(trace) if not 2 < place.attempt < last[place.step, place.action]]


def places_that_differ(trace: Sequence[Place]) -> list[int]:
    """Return those of the same positions between which something happens, before the end of a finished saga."""
    return [
        index
        for index in places_to_crash(trace)
        if trace[index].moment is Moment.AFTER
        or (trace[index].moment is Moment.AFTER_CHECKPOINT and index + 1 < len(trace))
        or (trace[index].moment is Moment.BEFORE and trace[index].process != trace[index - 1].process)
        or index == 0
    ]


def places_to_crash_first(trace: Sequence[Place], failure: Failure | None) -> list[int]:
    """Return the positions at which the first of two crashes is worth a run.

    When a step fails too: only where an action then runs twice. A lost request and a failure that a retry overcame
    add nothing to the other failures.
    """
    if failure is None:
        return places_that_differ(trace)
    if failure.once or failure.how is How.REQUEST_LOST:
        return []
    return [index for index in places_that_differ(trace) if trace[index].repeats]
