"""What a user writes: `Saga`, `Step` and `RetryPolicy`, validated when the class is defined."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin
from uuid import UUID

from sagas.context import ContextCodec, ContextT
from sagas.errors import DefinitionError
from sagas.graph import Graph, Node
from sagas.storable import is_storable

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
        step_name: the step's stable name; for a saga started under a former one, that.
        attempt: 1 for the first attempt at this action that the log knows of, then 2, 3, ...
        idempotency_key: the same for every attempt at this action; hand it to the outside service.
    """

    saga_id: UUID
    step_name: str
    attempt: int
    idempotency_key: str

    @property
    def act_idempotency_key(self) -> str:
        """The key that every attempt at this step's `act` had: `compensate` asks the service by it what took effect."""
        return f"{self.saga_id}:{self.step_name}:act"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how soon, an action that raised is tried again.

    Short waits happen in place; long ones are durable: the saga is put down and no worker is kept waiting.

    Args:
        max_attempts: attempts in all, the first included.
        first_delay: seconds before the second attempt.
        factor: what each further delay is multiplied by.
        max_delay: seconds that no delay exceeds; default: 60, or `first_delay` if that is longer.
        jitter: share of the delay, 0 to 1, that is random, so that a crowd does not retry in step.
        retry_on: exceptions worth another attempt; any other fails the action at once.

    Raises:
        DefinitionError: a value is out of range, or `max_delay` would cut the first delay short.
    """

    max_attempts: int = 3
    first_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = None  # type: ignore[assignment]  # a number once it is made
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        cap: Any = self.max_delay
        if cap is None and _between(0, self.first_delay, _LONGEST_DELAY):
            cap = max(60.0, self.first_delay)
            object.__setattr__(self, "max_delay", cap)
        wrong = (
            "max_attempts must be a whole number of 1 or more"
            if not isinstance(self.max_attempts, int) or self.max_attempts < 1
            else "first_delay must be 0 or more seconds, at most a year"
            if not _between(0, self.first_delay, _LONGEST_DELAY)
            else "factor must be 1 or more"
            if not _between(1, self.factor, float("inf"))
            else "max_delay must be 0 or more seconds, at most a year"
            if not _between(0, cap, _LONGEST_DELAY)
            else f"max_delay is below first_delay, which is {self.first_delay:g}, so that no wait would be that long"
            if cap < self.first_delay
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
#: For actions that nothing can stand in for: more than six hours, almost all of them without holding a worker.
PATIENT = RetryPolicy(max_attempts=45, first_delay=6.0, max_delay=600.0)


class Step(Generic[ContextT]):
    """One step of a saga: an effect, and how to undo it.

    Every step runs at least once; at most one worker's result is kept; the same idempotency key accompanies
    every attempt. Both methods may be `async def`. They change the context in place, or return a new one.

    Attributes:
        name: stable name in the log; default: the class's name in kebab case, wherever the class lives.
        aliases: its former names, the oldest first; a saga that was started under one of them keeps it to its end.
        retry: what to do when `act` raises; default: no second attempt, but after the pivot 45 of them over six hours.
        compensate_retry: the same for `compensate`; default: 45 attempts over six hours.
        timeout: seconds an action may take before it counts as failed and in doubt; None for no limit.
        pivot: True for the point of no return: once it completed, the saga only goes forward.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    retry: ClassVar[RetryPolicy] = ONCE
    compensate_retry: ClassVar[RetryPolicy] = PATIENT
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
        cls.aliases = _own_aliases(cls)
        for name in ("retry", "compensate_retry"):
            if not isinstance(policy := getattr(cls, name), RetryPolicy):
                raise DefinitionError(
                    f"{cls.__name__}: {name} is {policy!r}: set it to a RetryPolicy, as RetryPolicy(max_attempts=3)."
                )
        if cls.timeout is not None and (cls.timeout == 0 or not _between(0, cls.timeout, _LONGEST_DELAY)):
            raise DefinitionError(
                f"{cls.__name__}: timeout is {cls.timeout!r}: "
                "give seconds above 0, at most a year, or None for no limit."
            )

    @classmethod
    def retry_after_pivot(cls) -> RetryPolicy:
        """The policy for `act` once the saga cannot go back: its own `retry` if a class sets one."""
        chosen = any("retry" in vars(base) for base in cls.__mro__ if base is not Step)
        return cls.retry if chosen else PATIENT

    @classmethod
    def can_compensate(cls) -> bool:
        """Whether the class defines a way to undo its effect."""
        return cls.compensate is not Step.compensate


class Saga(Generic[ContextT]):
    """A business process: steps in order, undone in reverse when one fails for good.

    Declare the context's type as `Saga[Order]` and the steps as a list of classes.

    Attributes:
        name: stable name in the database; default: the class's name in kebab case, wherever the class lives.
        aliases: its former names, the oldest first, which the database goes on with.
        version: 1 or more; raised for a change that sagas already started cannot follow. They go on with the class
            that has their version, which may stand beside this one; the highest is the one for new sagas.
        continues: lower versions whose sagas this class goes on with, too.
        steps: the step classes, in order.
        compensate_past_failures: True to compensate earlier steps although a later one's compensation still fails. It
            is tried again after them, and the saga is not COMPENSATED before every step is.

    Raises:
        DefinitionError: when the class is defined, if it could not run correctly.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    version: ClassVar[int] = 1
    continues: ClassVar[Sequence[int]] = ()
    steps: ClassVar[Sequence[type[Step[Any]]]] = ()
    compensate_past_failures: ClassVar[bool] = False
    codec: ClassVar[ContextCodec[Any]]
    graph: ClassVar[Graph]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = _own_name(cls)
        cls.aliases = _own_aliases(cls)
        cls.version, cls.continues = _own_versions(cls)
        if not isinstance(cls.compensate_past_failures, bool):
            raise DefinitionError(
                f"{cls.__name__}: compensate_past_failures is {cls.compensate_past_failures!r}: give True or False."
            )
        _check_steps(cls)
        cls.steps = tuple(cls.steps)
        nodes = [Node(name=step.name, pivot=step.pivot, undoable=step.can_compensate()) for step in cls.steps]
        cls.graph = Graph.chain(cls.stored_name(), cls.version, nodes)
        cls.codec = ContextCodec(_context_type(cls), owner=cls.__name__)

    @classmethod
    def stored_name(cls) -> str:
        """The name in the database: the oldest, or a start repeated across a rename would start a second saga."""
        return (*cls.aliases, cls.name)[0]


AnySaga = type[Saga[Any]]


def _own_name(cls: type) -> str:
    """The name given in this very class, else one made from the class's name: a subclass is another thing."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__)
    name: str = cls.__dict__.get("name", words.lower())
    if not _is_name(name):
        raise DefinitionError(
            f"{cls.__name__}: name is {name!r}: give text of 1 to {MAX_NAME_LENGTH} characters without NUL, "
            "and without halves of surrogate pairs."
        )
    return name


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and is_storable(name)


def _own_aliases(cls: type[Step[Any]] | AnySaga) -> tuple[str, ...]:
    aliases = cls.__dict__.get("aliases", ())
    if isinstance(aliases, str) or not isinstance(aliases, Sequence) or not all(map(_is_name, aliases)):
        raise DefinitionError(
            f"{cls.__name__}: aliases is {aliases!r}: give a list of the former names, as ('reserve-stock',)."
        )
    if len({cls.name, *aliases}) <= len(aliases):
        raise DefinitionError(
            f"{cls.__name__}: its name {cls.name!r} and its aliases {', '.join(map(repr, aliases))} name one thing "
            "twice: list each former name once, and not the present one."
        )
    return tuple(aliases)


def _own_versions(cls: AnySaga) -> tuple[int, tuple[int, ...]]:
    version, continues = cls.__dict__.get("version", 1), cls.__dict__.get("continues", ())
    if not _is_version(version):
        raise DefinitionError(f"{cls.__name__}: version is {version!r}: give a whole number, 1 for the first.")
    if not isinstance(continues, Sequence) or not all(_is_version(lower) and lower < version for lower in continues):
        raise DefinitionError(
            f"{cls.__name__}: continues is {continues!r}: give a list of versions below its own, which is {version}."
        )
    return version, tuple(continues)


def _is_version(version: object) -> bool:
    return isinstance(version, int) and not isinstance(version, bool) and version >= 1


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
        for name in (step.name, *step.aliases):
            if name in seen:
                raise DefinitionError(
                    f"{cls.__name__}: {seen[name]} and {step.__name__} are both named {name!r}"
                    f"{'' if name == step.name else ', one by an alias'}, and the log could not tell them apart: "
                    "give one another name."
                )
            seen[name] = step.__name__
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
