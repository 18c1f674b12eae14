"""The plan of one run: which step fails and how, and where the process crashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sagas.definition import AnySaga, RetryPolicy, Step
from sagas.errors import OutcomeUnknown
from sagas.progress import Action


class InjectedFailure(Exception):
    """A step failed without taking effect, because the plan of this run says so."""


class Moment(StrEnum):
    """When a process crashes; nothing happens between the second and the third, or between the fourth and the first."""

    BEFORE = "before"
    AFTER = "after"
    BEFORE_CHECKPOINT = "before the checkpoint of"
    AFTER_CHECKPOINT = "after the checkpoint of"


class Place(NamedTuple):
    """A point of a run at which its process may crash.

    Attributes:
        step: the step's name.
        action: the step's action.
        moment: the moment of the crash.
        attempt: the number of the attempt at this action, as the engine counts them.
        process: 1 for the process that started the saga, 2 for the first one that recovered it, and so on.
    """

    step: str
    action: Action
    moment: Moment
    attempt: int = 1
    process: int = 1

    @property
    def repeats(self) -> bool:
        """Whether a crash at this place makes the action run again although it has run."""
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
    """The failure of one step's act().

    Attributes:
        step: the step's name.
        how: whether it fails cleanly or in doubt.
        attempts: the number of attempts that fail; the next attempt would succeed.
        once: whether only one attempt fails and the step's policy retries it.
    """

    step: str
    how: How
    attempts: int = 1
    once: bool = False

    def error(self, step: type[Step[Any]]) -> Exception:
        """Return the exception that act() raises."""
        if self.how is not How.REFUSED:
            return OutcomeUnknown("crash_matrix lost the answer")
        retryable = _retryable_error(step.retry) if self.once else None
        return retryable or InjectedFailure("crash_matrix lets this step fail")

    def __str__(self) -> str:
        return f"{self.step} {self.how}{' once' if self.once else ''}"


@dataclass(frozen=True, slots=True)
class CrashPlan:
    """The failure and the crashes of one run.

    Attributes:
        failure: the step that fails; None if no step fails.
        crashes: the places at which the process crashes, in order.
    """

    failure: Failure | None = None
    crashes: tuple[Place, ...] = ()

    def __str__(self) -> str:
        crashes = [f"crash {place}" for place in self.crashes]
        return ("; ".join([str(self.failure)] * bool(self.failure) + crashes)) or "nothing goes wrong"


def failures_of(saga: AnySaga) -> Iterator[Failure]:
    """Return each way in which a step may fail: for good, and once if it is retried; the simplest first."""
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
    """Return an error that the policy retries and that means "nothing took effect"; None if there is none."""
    if policy.max_attempts == 1:
        return None
    message = "crash_matrix lets this attempt fail"
    if issubclass(InjectedFailure, policy.retry_on):
        return InjectedFailure(message)
    for kind in policy.retry_on:
        if issubclass(kind, Exception) and not issubclass(kind, OutcomeUnknown):
            # Do not call __init__, which may require arguments.
            bare: type[Exception] = type(kind.__name__, (kind,), {"__init__": Exception.__init__})
            return bare(message)
    return None


def places_to_crash(trace: Sequence[Place]) -> list[int]:
    """Return the positions in a run's trace at which to crash the run.

    Attempts between the second and the last are left out, because they add nothing new.
    """
    last = {(place.step, place.action): place.attempt for place in trace}
    return [i for i, place in enumerate(trace) if not 2 < place.attempt < last[place.step, place.action]]


def places_that_differ(trace: Sequence[Place]) -> list[int]:
    """Return one of each group of positions between which nothing happens, without the end of a finished saga."""
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

    If a step fails, too, only places at which an action then runs twice count. A lost request, and a failure that a
    retry overcomes, show nothing more than the other failures.
    """
    if failure is None:
        return places_that_differ(trace)
    if failure.once or failure.how is How.REQUEST_LOST:
        return []
    return [index for index in places_that_differ(trace) if trace[index].repeats]
