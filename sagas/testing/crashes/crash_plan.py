"""The plan of one run: which step fails and how, and where the process crashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise, product
from typing import Any, Final, NamedTuple

from sagas.definition import AnySaga, RetryPolicy, Step
from sagas.errors import OutcomeUnknown
from sagas.progress import Action

#: More attempts than any policy allows.
_ALWAYS: Final = 10**6


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
        earlier: the failures for good of other steps that come before it, so that a fallback acts.
    """

    step: str
    how: How
    attempts: int = 1
    once: bool = False
    earlier: tuple[Failure, ...] = ()

    @property
    def chain(self) -> tuple[Failure, ...]:
        """The earlier failures and this one."""
        return (*self.earlier, self)

    @property
    def key(self) -> tuple[tuple[str, How, bool], ...]:
        """What fails and how, in order."""
        return tuple((failure.step, failure.how, failure.once) for failure in self.chain)

    def error(self, step: type[Step[Any]]) -> Exception:
        """Return the exception that act() raises."""
        if self.how is not How.REFUSED:
            return OutcomeUnknown("crash_matrix lost the answer")
        retryable = _retryable_error(step.retry) if self.once else None
        return retryable or InjectedFailure("crash_matrix lets this step fail")

    def __str__(self) -> str:
        return ", then ".join(f"{f.step} {f.how}{' once' if f.once else ''}" for f in self.chain)


@dataclass(frozen=True, slots=True)
class CrashPlan:
    """The failure and the crashes of one run.

    Attributes:
        failure: the step that fails, and those that fail before it; None if no step fails.
        crashes: the places at which the process crashes, in order.
    """

    failure: Failure | None = None
    crashes: tuple[Place, ...] = ()

    def __str__(self) -> str:
        crashes = [f"crash {place}" for place in self.crashes]
        return ("; ".join([str(self.failure)] * bool(self.failure) + crashes)) or "nothing goes wrong"


def failures_of(saga: AnySaga) -> Iterator[Failure]:
    """Return each way in which a step may fail: for good, and once if it is retried; the simplest first.

    The steps before a fallback fail so that it acts.
    """
    steps = _listed(saga)
    yield from (_for_good(step, how) for how in How for step in steps)
    for step in steps:
        yield from _once(step)
    for step in steps:
        yield from _failures_of_fallbacks(saga, step)


def refusals_after(saga: AnySaga, name: str) -> tuple[Failure, ...]:
    """Return the failures that make the step after this step or fallback fail; empty if there is none."""
    steps = _listed(saga)
    place = next(place for place, step in enumerate(steps) if any(each.name == name for each in step.alternates()))
    return tuple(_for_good(each, How.REFUSED) for step in steps[place + 1 :][:1] for each in step.alternates())


def _listed(saga: AnySaga) -> list[type[Step[Any]]]:
    return [part for part in saga.steps if issubclass(part, Step)]


def in_doubt_instead(failure: Failure) -> Iterator[Failure]:
    """Return the same failure with some of its refusals in doubt, as a crash may put them."""
    choices = [(each.how, How.REQUEST_LOST) if each.how is How.REFUSED else (each.how,) for each in failure.chain]
    for hows in product(*choices):
        *earlier, last = (replace(each, how=how) for each, how in zip(failure.chain, hows, strict=True))
        yield replace(last, earlier=tuple(earlier))


def _failures_of_fallbacks(saga: AnySaga, step: type[Step[Any]]) -> Iterator[Failure]:
    *others, last = step.alternates()
    before: tuple[Failure, ...] = ()
    for each, fallback in pairwise(step.alternates()):
        before = (*before, _for_good(each, How.REFUSED))
        for failure in (*(_for_good(fallback, how) for how in How), *_once(fallback)):
            yield replace(failure, earlier=before)
        if following := refusals_after(saga, fallback.name):  # the fallback acts, and is undone
            yield replace(following[-1], earlier=(*before, *following[:-1]))
    for doubtful in others:
        hows = [(each, How.ANSWER_LOST if each is doubtful else How.REFUSED) for each in others]
        yield replace(_for_good(last, How.REFUSED), earlier=tuple(_for_good(each, how) for each, how in hows))


def _for_good(step: type[Step[Any]], how: How) -> Failure:
    error = InjectedFailure if how is How.REFUSED else OutcomeUnknown
    attempts = step.retry.max_attempts if issubclass(error, step.retry.retry_on) else 1
    return Failure(step.name, how, attempts if step.fallback is None else _ALWAYS)


def _once(step: type[Step[Any]]) -> Iterator[Failure]:
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
