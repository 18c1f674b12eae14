"""What goes wrong in one run: which step fails and how, and where the process crashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sagas.definition import AnySaga, RetryPolicy
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
        return f"{self.moment} {self.action} of {self.step}{nth}{unsaved}"


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

    def __str__(self) -> str:
        return f"{self.step} {self.how}{' once' if self.once else ''}"


@dataclass(frozen=True, slots=True)
class Plan:
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
    """Every way in which a step of the saga may fail: for good, and once, if it is tried again."""
    for step in saga.steps:
        in_doubt = step.retry.max_attempts if issubclass(OutcomeUnknown, step.retry.retry_on) else 1
        refused = step.retry.max_attempts if issubclass(InjectedFailure, step.retry.retry_on) else 1
        yield Failure(step.name, How.REFUSED, refused)
        yield Failure(step.name, How.ANSWER_LOST, in_doubt)
        yield Failure(step.name, How.REQUEST_LOST, in_doubt)
        if retryable_error(step.retry) is not None:
            yield Failure(step.name, How.REFUSED, once=True)
        if in_doubt > 1:
            yield Failure(step.name, How.ANSWER_LOST, once=True)


def retryable_error(policy: RetryPolicy) -> Exception | None:
    """Return an error that says that nothing took effect and is worth another attempt; None if the policy has none."""
    message = "crash_matrix made this attempt fail"
    if policy.max_attempts == 1 or issubclass(InjectedFailure, policy.retry_on):
        return InjectedFailure(message) if policy.max_attempts > 1 else None
    for kind in policy.retry_on:
        if issubclass(kind, Exception) and not issubclass(kind, OutcomeUnknown):
            try:
                # Made without the arguments that its own __init__ may want.
                return type(kind.__name__, (kind,), {"__init__": Exception.__init__})(message)
            except TypeError:
                continue
    return None


def crash_places(trace: Sequence[Place], *, every: bool) -> list[int]:
    """Return the positions in a run's trace at which a crash is worth simulating.

    Attempts between the second and the last are left out: they are more of the same.

    Args:
        every: also those between which and another nothing happens, and the end of a finished saga.
    """
    last = {(place.step, place.action): place.attempt for place in trace}
    chosen = []
    for index, place in enumerate(trace):
        if 2 < place.attempt < last[place.step, place.action]:
            continue
        process_begins = index == 0 or trace[index - 1].process != place.process
        differs = (
            process_begins
            if place.moment is Moment.BEFORE
            else place.moment is Moment.AFTER or (place.moment is Moment.AFTER_CHECKPOINT and index + 1 < len(trace))
        )
        if every or differs:
            chosen.append(index)
    return chosen
