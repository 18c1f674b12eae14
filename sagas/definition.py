"""What a user writes: `Saga`, `Step` and `RetryPolicy`, validated when the class is defined."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin
from uuid import UUID

from sagas.context import ContextCodec, ContextT
from sagas.errors import DefinitionError

MAX_NAME_LENGTH = 255
#: Only Python's own upper bound on waiting: a year is long enough for any retry.
_LONGEST_DELAY = 366 * 24 * 3600.0

#: Builds a step from its class: the place where a DI container plugs in.
Resolver = Callable[[type["Step[Any]"]], "Step[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt at one action of one step, as the step sees it.

    Attributes:
        saga_id: the saga this is for.
        step_name: the step's stable name.
        attempt: 1 for the first attempt at this action that the log knows of, then 2, 3, ...
        idempotency_key: the same for every attempt at this action; hand it to the outside service.
    """

    saga_id: UUID
    step_name: str
    attempt: int
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how soon, an action that raised is tried again.

    Short waits happen in place; long ones are durable: the saga is put down and no worker is kept waiting.

    Args:
        max_attempts: attempts in all, the first included.
        first_delay: seconds before the second attempt.
        factor: what each further delay is multiplied by.
        max_delay: seconds that no delay exceeds.
        jitter: share of the delay, 0 to 1, that is random, so that a crowd does not retry in step.
        retry_on: exceptions worth another attempt; any other fails the action at once.

    Raises:
        DefinitionError: a value is out of range.
    """

    max_attempts: int = 3
    first_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        wrong = (
            "max_attempts must be a whole number of 1 or more"
            if not isinstance(self.max_attempts, int) or self.max_attempts < 1
            else "first_delay must be 0 or more seconds, at most a year"
            if not _between(0, self.first_delay, _LONGEST_DELAY)
            else "factor must be 1 or more"
            if not _between(1, self.factor, float("inf"))
            else "max_delay must be 0 or more seconds, at most a year"
            if not _between(0, self.max_delay, _LONGEST_DELAY)
            else "jitter must be between 0 and 1"
            if not _between(0, self.jitter, 1)
            else "retry_on must be a tuple of exception classes, as (ConnectionError,)"
            if not _are_exceptions(self.retry_on)
            else None
        )
        if wrong:
            raise DefinitionError(f"RetryPolicy: {wrong}; got {self}.")

    def delay(self, failures: int, *, random: float) -> float:
        """Return the seconds to wait after so many failures in a row.

        Args:
            failures: attempts that have failed, 1 or more.
            random: a number in [0, 1) that settles the jitter.
        """
        full = backoff(failures, first=self.first_delay, factor=self.factor, cap=self.max_delay)
        return full * (1 - self.jitter * random)


def backoff(failures: int, *, first: float, factor: float, cap: float) -> float:
    """Return `first * factor ** (failures - 1)` seconds, at most `cap`, without overflowing."""
    if first == 0:
        return 0.0
    try:
        return min(cap, first * factor ** (failures - 1))
    except OverflowError:
        return cap


def _between(lowest: float, value: object, highest: float) -> bool:
    return isinstance(value, int | float) and lowest <= value <= highest


def _are_exceptions(classes: object) -> bool:
    return isinstance(classes, tuple) and all(isinstance(c, type) and issubclass(c, BaseException) for c in classes)


ONCE = RetryPolicy(max_attempts=1)


class Step(Generic[ContextT]):
    """One step of a saga: an effect, and how to undo it.

    Every step runs at least once; at most one worker's result is kept; the same idempotency key accompanies
    every attempt. Both methods may be `async def`. They change the context in place, or return a new one.

    Class attributes:
        name: stable name in the log; default: the class's name in kebab case, wherever the class lives.
        retry: what to do when an action raises; default: no second attempt.
        timeout: seconds an action may take before it counts as failed and in doubt; None for no limit.
        pivot: True for the point of no return: once it completed, the saga only goes forward.
    """

    name: ClassVar[str] = ""
    retry: ClassVar[RetryPolicy] = ONCE
    timeout: ClassVar[float | None] = None
    pivot: ClassVar[bool] = False

    def act(self, context: ContextT, call: Call) -> ContextT | Awaitable[ContextT | None] | None:
        """Take effect."""
        raise NotImplementedError

    def compensate(self, context: ContextT, call: Call) -> ContextT | Awaitable[ContextT | None] | None:
        """Undo the effect; called also when it is in doubt whether there was one. Default: nothing to undo."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = _own_name(cls)
        if not isinstance(cls.retry, RetryPolicy):
            raise DefinitionError(
                f"{cls.__name__}: retry is {cls.retry!r}: set it to a RetryPolicy, as RetryPolicy(max_attempts=3)."
            )
        if cls.timeout is not None and (cls.timeout == 0 or not _between(0, cls.timeout, _LONGEST_DELAY)):
            raise DefinitionError(
                f"{cls.__name__}: timeout is {cls.timeout!r}: "
                "give seconds above 0, at most a year, or None for no limit."
            )

    @classmethod
    def can_compensate(cls) -> bool:
        """Whether the class defines a way to undo its effect."""
        return cls.compensate is not Step.compensate


class Saga(Generic[ContextT]):
    """A business process: steps in order, undone in reverse when one fails for good.

    Declare the context's type as `Saga[Order]` and the steps as a list of classes.

    Class attributes:
        name: stable name in the database; default: the class's name in kebab case, wherever the class lives.
        steps: the step classes, in order.

    Raises:
        DefinitionError: when the class is defined, if it could not run correctly.
    """

    name: ClassVar[str] = ""
    steps: ClassVar[Sequence[type[Step[Any]]]] = ()
    codec: ClassVar[ContextCodec[Any]]
    definition_version: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = _own_name(cls)
        _check_steps(cls)
        cls.steps = tuple(cls.steps)
        cls.definition_version = _fingerprint(cls.steps)
        cls.codec = ContextCodec(_context_type(cls), owner=cls.__name__)


AnySaga = type[Saga[Any]]


def _own_name(cls: type) -> str:
    """The name given in this very class, else one made from the class's name: a subclass is another thing."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__)
    name = cls.__dict__.get("name", words.lower())
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or "\0" in name:
        raise DefinitionError(
            f"{cls.__name__}: name is {name!r}: give text of 1 to {MAX_NAME_LENGTH} characters without NUL."
        )
    return name


def _fingerprint(steps: Sequence[type[Step[Any]]]) -> str:
    """What of a definition a log depends on, in 16 characters: stored with each saga that is started."""
    facts = "\n".join(f"{step.name} {step.pivot} {step.can_compensate()}" for step in steps)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _context_type(cls: AnySaga) -> Any:
    # Of every class in turn: a generic mixin has original bases of its own, which hide the saga's.
    for base in (base for parent in cls.__mro__ for base in parent.__dict__.get("__orig_bases__", ())):
        if isinstance(get_origin(base), type) and issubclass(get_origin(base), Saga):
            (context_type,) = get_args(base)
            if not isinstance(context_type, TypeVar):
                return context_type
    raise DefinitionError(
        f"{cls.__name__}: the type of its context is missing: "
        f"write class {cls.__name__}(Saga[YourContext]) with a dataclass, TypedDict or pydantic model."
    )


def _check_steps(cls: AnySaga) -> None:
    if not isinstance(cls.steps, Sequence):
        raise DefinitionError(f"{cls.__name__}: steps is {cls.steps!r}: give a list of Step classes.")
    if not cls.steps:
        raise DefinitionError(f"{cls.__name__}: it has no steps: list its Step classes in `steps`.")
    seen: dict[str, str] = {}
    pivot: str | None = None
    for step in cls.steps:
        if not (isinstance(step, type) and issubclass(step, Step)):
            raise DefinitionError(
                f"{cls.__name__}: steps holds {step!r}: list the Step class itself, not an instance or a function."
            )
        if step.act is Step.act:
            raise DefinitionError(f"{cls.__name__}: step {step.__name__} defines no act(): say what it does.")
        if step.name in seen:
            raise DefinitionError(
                f"{cls.__name__}: {seen[step.name]} and {step.__name__} are both named {step.name!r}, and the log "
                f"could not tell them apart: give one another `name`."
            )
        seen[step.name] = step.__name__
        if pivot and step.pivot:
            raise DefinitionError(
                f"{cls.__name__}: {pivot} and {step.__name__} are both pivots, and there is one point of no return: "
                "keep `pivot = True` on the one after which the saga must go forward."
            )
        if pivot and step.can_compensate():
            raise DefinitionError(
                f"{cls.__name__}: {step.__name__} comes after the pivot {pivot}, so its compensate() could never "
                "run: remove it, or move the step before the pivot."
            )
        if step.pivot:
            pivot = step.__name__
