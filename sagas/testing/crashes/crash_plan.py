"""The plan of one run: which step fails and how, which signal comes early, and where the process crashes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise, product
from typing import Any, Final

from sagas.definition import AnySaga, RetryPolicy, Step, Wait
from sagas.errors import OutcomeUnknown
from sagas.testing.crashes.places import Place, places_that_differ

#: More attempts than any policy allows.
_ALWAYS: Final = 10**6


class InjectedFailure(Exception):
    """A step failed without taking effect, because the plan of this run says so."""


class How(StrEnum):
    """How a step fails, or that a wait times out."""

    REFUSED = "fails"
    ANSWER_LOST = "takes effect, but its answer is lost"
    REQUEST_LOST = "is cut off before it takes effect"
    NO_SIGNAL = "gets no signal"

    @property
    def in_doubt(self) -> bool:
        """Whether the step may have taken effect."""
        return self in (How.ANSWER_LOST, How.REQUEST_LOST)


_OF_STEPS: Final = (How.REFUSED, How.ANSWER_LOST, How.REQUEST_LOST)


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of one step's act(), or the timeout of one wait.

    Attributes:
        step: the name of the step or wait.
        how: whether a step fails cleanly or in doubt, or that a wait gets no signal.
        attempts: the number of attempts that fail; the next attempt would succeed.
        once: whether only one attempt fails and the step's policy retries it.
        earlier: the failures for good that come before it, so that a fallback acts, or the saga goes on after a wait.
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
        if self.how.in_doubt:
            return OutcomeUnknown("crash_matrix lost the answer")
        retryable = _retryable_error(step.retry) if self.once else None
        return retryable or InjectedFailure("crash_matrix lets this step fail")

    def __str__(self) -> str:
        return ", then ".join(f"{f.step} {f.how}{' once' if f.once else ''}" for f in self.chain)


@dataclass(frozen=True, slots=True)
class EarlySignal:
    """A signal that comes before the saga waits for it.

    Attributes:
        wait: the name of the wait.
        place: the place of the run at which it comes; None if it comes before the saga begins.
    """

    wait: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"the signal for {self.wait} comes {self.place or 'before the saga begins'}"


@dataclass(frozen=True, slots=True)
class CrashPlan:
    """The failure and the crashes of one run.

    Attributes:
        failure: the step that fails, and those that fail before it; None if no step fails.
        crashes: the places at which the process crashes, in order.
        early: the signal that comes early; None if each comes when the saga waits for it.
    """

    failure: Failure | None = None
    crashes: tuple[Place, ...] = ()
    early: EarlySignal | None = None

    def __str__(self) -> str:
        parts = [*filter(None, (self.failure, self.early)), *(f"crash {place}" for place in self.crashes)]
        return "; ".join(map(str, parts)) or "nothing goes wrong"


def failures_of(saga: AnySaga, signals: Collection[str] = ()) -> Iterator[Failure]:
    """Return each way in which a step may fail: for good, and once if it is retried; the simplest first.

    The steps before a fallback fail so that it acts. A wait fails if it has a timeout, and its signal does not come.

    Args:
        saga: the saga's class.
        signals: the waits whose signals come unless they fail.
    """
    steps = _listed(saga)
    yield from (_for_good(step, how) for how in _OF_STEPS for step in steps)
    for step in steps:
        yield from _once(step)
    for step in steps:
        yield from _failures_of_fallbacks(saga, step)
    for wait in saga.steps:
        if issubclass(wait, Wait) and wait.timeout is not None and wait.name in signals:
            yield from _timeouts(saga, wait)


def refusals_after(saga: AnySaga, name: str) -> tuple[Failure, ...]:
    """Return the failures that make the step after this step, fallback or wait fail; empty if there is none."""
    parts = saga.steps
    place = next(place for place, part in enumerate(parts) if any(each.name == name for each in part.alternates()))
    following = [part for part in parts[place + 1 :] if issubclass(part, Step)]
    return tuple(_for_good(each, How.REFUSED) for step in following[:1] for each in step.alternates())


def _timeouts(saga: AnySaga, wait: type[Wait[Any]]) -> Iterator[Failure]:
    late = Failure(wait.name, How.NO_SIGNAL)
    yield late
    if wait.on_timeout == "go on" and (following := refusals_after(saga, wait.name)):
        yield replace(following[-1], earlier=(late, *following[:-1]))


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
        for failure in (*(_for_good(fallback, how) for how in _OF_STEPS), *_once(fallback)):
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
