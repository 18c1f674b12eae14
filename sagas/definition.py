"""The classes that a user writes: `Saga`, its parts `Step`, `Wait` and `Sleep`, and `RetryPolicy`.

They are validated when they are defined.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, get_args, get_origin
from uuid import UUID

from sagas.context import ContextCodec, ContextT
from sagas.errors import DefinitionError
from sagas.graph import Fallback, Graph, Node
from sagas.outbox import EnqueuedTask, enqueued_task
from sagas.storable import is_storable

MAX_NAME_LENGTH = 255
#: Python limits how long a thread can wait. A year is below that limit and long enough for any retry.
_LONGEST_DELAY = 366 * 24 * 3600.0
_LONGEST_WAIT: Final = timedelta(days=36_600)
#: What follows when a wait has timed out.
OnTimeout = Literal["abort", "go on"]

#: Builds a step from its class. A DI container plugs in here.
Resolver = Callable[[type["Step[Any]"]], "Step[Any]"]
#: What a signal brings.
PayloadT = TypeVar("PayloadT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt at one action of one step, as the step sees it.

    Attributes:
        saga_id: the saga.
        step_name: the step's stable name, or the former name if the saga was started under that.
        attempt: 1 for the first attempt at this action in the log, then 2, 3, ...
        idempotency_key: the same for every attempt at this action. Pass it to the outside service.
        enqueued: the tasks that this attempt has asked for with `enqueue`.
    """

    saga_id: UUID
    step_name: str
    attempt: int
    idempotency_key: str
    enqueued: list[EnqueuedTask] = field(default_factory=list, repr=False, compare=False)

    def enqueue(self, task: Any, *args: Any, **kwargs: Any) -> None:
        """Have a Celery task sent once this action is checkpointed, and never if it is not.

        The task is written to the database together with the checkpoint. This worker sends it right after that, or a
        later scan does. It is sent at least once, each time with the same task id.

        Args:
            task: the task, its name, or a signature such as `send_receipt.s(7).set(queue="mail", countdown=60)`.
            *args: the task's positional arguments; only what JSON has.
            **kwargs: the task's keyword arguments; only what JSON has.

        Raises:
            TypeError: it is no task, or an argument is not JSON.
            ValueError: the name cannot be stored.
        """
        number = f"{self.idempotency_key}:{len(self.enqueued)}"
        self.enqueued.append(enqueued_task(task, args, kwargs, saga_id=self.saga_id, number=number))

    @property
    def act_idempotency_key(self) -> str:
        """The key of every attempt at this step's `act`. `compensate` can ask the service with it what took effect."""
        return f"{self.saga_id}:{self.step_name}:act"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how soon, an action that raised is tried again.

    The worker waits out a short delay. For a long delay the saga is suspended, and no worker is kept waiting.

    Args:
        max_attempts: attempts in all, including the first.
        first_delay: seconds before the second attempt.
        factor: multiplies each further delay.
        max_delay: the longest delay in seconds; default: 60, or `first_delay` if that is longer.
        jitter: the random share of the delay, 0 to 1, so that many sagas do not retry at the same moment.
        retry_on: exceptions after which the action is tried again; any other fails the action at once.

    Raises:
        DefinitionError: a value is out of range, or `max_delay` would cut the first delay short.
    """

    max_attempts: int = 3
    first_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = None  # type: ignore[assignment]  # __post_init__ makes it a number
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
        """Return the seconds to wait after this many failures in a row.

        Args:
            failures: attempts that have failed, 1 or more.
            random: a number in [0, 1) that determines the jitter.
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
#: For actions that have no alternative: it retries for more than six hours, and holds no worker during most of them.
PATIENT = RetryPolicy(max_attempts=45, first_delay=6.0, max_delay=600.0)


class Part:
    """What stands in `steps`: a step, a wait or a sleep.

    Attributes:
        name: stable name in the log; default: the class's name in kebab case, in whatever module the class is.
        aliases: its former names, the oldest first. A saga that was started under one of them keeps it to its end.
        kind: the kind of node that it is in the saga's graph.
        retry, compensate_retry: what to do when its code raises.
        pivot: True for the point of no return.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    kind: ClassVar[str] = ""
    retry: ClassVar[RetryPolicy] = ONCE
    compensate_retry: ClassVar[RetryPolicy] = PATIENT
    pivot: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Part in cls.__bases__:
            return  # a kind of part, such as Step
        cls.name = _own_name(cls)
        cls.aliases = _own_aliases(cls)
        for name in ("retry", "compensate_retry"):
            if not isinstance(policy := getattr(cls, name), RetryPolicy):
                raise DefinitionError(
                    f"{cls.__name__}: {name} is {policy!r}: set it to a RetryPolicy, as RetryPolicy(max_attempts=3)."
                )

    @classmethod
    def retry_after_pivot(cls) -> RetryPolicy:
        """The policy for its code after the pivot: its own `retry` if a class sets one, or else the patient one."""
        chosen = any("retry" in vars(base) for base in cls.__mro__ if base is not Part)
        return cls.retry if chosen else PATIENT

    @classmethod
    def can_compensate(cls) -> bool:
        """Whether the class defines a way to undo its effect."""
        return False

    @classmethod
    def limit(cls) -> float | None:
        """How many seconds it takes at most; None for no limit."""
        return None

    @classmethod
    def alternates(cls) -> tuple[type[Part], ...]:
        """Return the class itself, and then its fallbacks in the order in which they are tried."""
        return (cls,)

    @classmethod
    def node(cls) -> Node:
        """Return its node in a graph."""
        return Node(name=cls.name, kind=cls.kind, pivot=cls.pivot, undoable=cls.can_compensate())


class Step(Part, Generic[ContextT]):
    """One step of a saga: an effect, and how to undo it.

    Every step runs at least once. The result of at most one worker is kept. Every attempt has the same idempotency
    key. Both methods may be `async def`. They change the context in place, or return a new one.

    Attributes:
        name: stable name in the log; default: the class's name in kebab case, in whatever module the class is.
        aliases: its former names, the oldest first. A saga that was started under one of them keeps it to its end.
        retry: what to do when `act` raises; default: no second attempt before the pivot, 45 over six hours after it.
        compensate_retry: the same for `compensate`; default: 45 attempts over six hours.
        timeout: seconds after which an action counts as failed and in doubt; None for no limit.
        pivot: True for the point of no return. Once this step has completed, the saga only goes forward.
        fallback: the step class that is tried in this step's place once `act` has failed for good. It has a name,
            policies, a timeout and a compensation of its own, and may have a fallback itself. If the saga aborts, what
            it did is undone first, and then what this step did or may have done.
    """

    kind: ClassVar[str] = "step"
    timeout: ClassVar[float | None] = None
    fallback: ClassVar[type[Step[Any]] | None] = None

    def act(self, context: ContextT, call: Call) -> ContextT | Awaitable[ContextT | None] | None:
        """Take effect."""
        raise NotImplementedError

    def compensate(self, context: ContextT, call: Call) -> ContextT | Awaitable[ContextT | None] | None:
        """Undo the effect. It is also called when the effect is in doubt. Default: there is nothing to undo."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.timeout is not None and (cls.timeout == 0 or not _between(0, cls.timeout, _LONGEST_DELAY)):
            raise DefinitionError(
                f"{cls.__name__}: timeout is {cls.timeout!r}: "
                "give seconds above 0, at most a year, or None for no limit."
            )
        _check_fallbacks(cls)

    @classmethod
    def alternates(cls) -> tuple[type[Step[Any]], ...]:
        """Return the class itself, and then its fallbacks in the order in which they are tried."""
        found: list[type[Step[Any]]] = [cls]
        while (fallback := found[-1].fallback) is not None and fallback not in found:
            found.append(fallback)
        return tuple(found)

    @classmethod
    def node(cls) -> Node:
        """Return its node in a graph."""
        return replace(super().node(), fallbacks=tuple(Fallback.of(each.node()) for each in cls.alternates()[1:]))

    @classmethod
    def defines_act(cls) -> bool:
        """Whether the class says what the step does."""
        return cls.act is not Step.act

    @classmethod
    def can_compensate(cls) -> bool:
        """Whether the class defines a way to undo its effect."""
        return cls.compensate is not Step.compensate

    @classmethod
    def limit(cls) -> float | None:
        """How many seconds one action takes at most; None for no limit."""
        return cls.timeout


class Wait(Part, Generic[PayloadT]):
    """A wait for a signal: from a person, a webhook, another program. While a saga waits, it costs nothing.

    Declare the type of what the signal brings, as `Wait[Accepted]`: a dataclass, TypedDict or pydantic model. A signal
    that comes before the saga waits for it is kept.

    Attributes:
        timeout: how long to wait; None for no limit.
        on_timeout: "abort" undoes the saga after the timeout; "go on" goes on with the next step.
    """

    kind: ClassVar[str] = "wait"
    timeout: ClassVar[timedelta | None] = None
    on_timeout: ClassVar[OnTimeout] = "abort"
    payload: ClassVar[ContextCodec[Any]]

    def received(self, context: Any, signal: PayloadT) -> Any:
        """Change the context in place, or return a new one. It has no other effect, as it may run again.

        Args:
            context: the saga's.
            signal: what the signal brought.
        """
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_no_effect(cls)
        if cls.timeout is not None:
            _check_duration(cls, "timeout", cls.timeout, "timedelta(days=2), or None for no limit")
        if cls.on_timeout not in get_args(OnTimeout):
            raise DefinitionError(f'{cls.__name__}: on_timeout is {cls.on_timeout!r}: give "abort" or "go on".')
        payload_type = _type_argument(cls, Wait)
        if payload_type is None:
            raise DefinitionError(
                f"{cls.__name__}: the type of its signal is missing: write class {cls.__name__}(Wait[YourSignal]) with "
                "a dataclass, TypedDict or pydantic model, or Wait[None] for a signal that brings nothing."
            )
        cls.payload = ContextCodec(payload_type, owner=cls.__name__, what="signal")

    @classmethod
    def limit(cls) -> float | None:
        """How many seconds it waits at most; None for no limit."""
        return None if cls.timeout is None else cls.timeout.total_seconds()


class Sleep(Part):
    """A wait for a time. While a saga sleeps, it costs nothing, and no message waits in the broker.

    Attributes:
        duration: how long it lasts, from the moment at which the saga gets there.
    """

    kind: ClassVar[str] = "sleep"
    duration: ClassVar[timedelta]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_no_effect(cls)
        _check_duration(cls, "duration", getattr(cls, "duration", None), "timedelta(hours=1)")

    @classmethod
    def limit(cls) -> float | None:
        """How many seconds it lasts."""
        return cls.duration.total_seconds()


class Saga(Generic[ContextT]):
    """A business process: its steps run in order, and are undone in reverse order when one of them fails finally.

    Declare the context's type as `Saga[Order]` and the steps as a list of classes.

    Attributes:
        name: stable name in the database; default: the class's name in kebab case, in whatever module the class is.
        aliases: its former names, the oldest first. The database keeps the oldest name.
        version: 1 or more. Raise it for a change that sagas already started cannot follow. Those sagas continue with
            the class of their version, which you may keep next to this one. New sagas use the highest version.
        continues: lower versions whose sagas this class continues too.
        steps: the step classes, in order.
        deadline: how long after its start the saga is to have ended. Later, it is undone; past the pivot, a log line
            says so instead. None for no deadline.
        compensate_past_failures: True to compensate earlier steps although the compensation of a later step still
            fails. That compensation is tried again after them. The saga is COMPENSATED once every step is.
        secret_fields: fields of the context that the console does not show, as ("card_number", "customer.phone"): a
            name hides the field wherever it is, a path hides it below those fields only.

    Raises:
        DefinitionError: when the class is defined, if it could not run correctly.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    version: ClassVar[int] = 1
    continues: ClassVar[Sequence[int]] = ()
    steps: ClassVar[Sequence[type[Part]]] = ()
    deadline: ClassVar[timedelta | None] = None
    compensate_past_failures: ClassVar[bool] = False
    secret_fields: ClassVar[Sequence[str]] = ()
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
        if cls.deadline is not None:
            _check_duration(cls, "deadline", cls.deadline, "timedelta(days=7), or None for no deadline")
        cls.secret_fields = _own_secret_fields(cls)
        nodes = [part.node() for part in cls.steps]
        cls.graph = Graph.chain(cls.stored_name(), cls.version, nodes, cls.secret_fields)
        cls.codec = ContextCodec(_context_type(cls), owner=cls.__name__)

    @classmethod
    def stored_name(cls) -> str:
        """The name in the database: the oldest one. With a later name, repeating a start would start a second saga."""
        return (*cls.aliases, cls.name)[0]


AnySaga = type[Saga[Any]]


def steps_of(saga: AnySaga) -> list[type[Step[Any]]]:
    """Return the steps of a saga in order, each followed by its fallbacks."""
    return [part for part in parts_of(saga) if issubclass(part, Step)]


def parts_of(saga: AnySaga) -> list[type[Part]]:
    """Return the parts of a saga in order, each followed by its fallbacks."""
    return [each for part in saga.steps for each in part.alternates()]


def _own_name(cls: type) -> str:
    """Return the name that this class itself gives, or one made from the class's name. A name is not inherited."""
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


def _own_aliases(cls: type[Part] | AnySaga) -> tuple[str, ...]:
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


def _own_secret_fields(cls: AnySaga) -> tuple[str, ...]:
    fields = cls.secret_fields
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not all(map(_is_name, fields)):
        raise DefinitionError(
            f"{cls.__name__}: secret_fields is {fields!r}: give a list of field names, as ('card_number',)."
        )
    return tuple(fields)


def _is_version(version: object) -> bool:
    return isinstance(version, int) and not isinstance(version, bool) and version >= 1


def _check_duration(cls: type, name: str, value: object, example: str) -> None:
    if not isinstance(value, timedelta) or not 0 < value.total_seconds() <= _LONGEST_WAIT.total_seconds():
        raise DefinitionError(
            f"{cls.__name__}: {name} is {value!r}: give a timedelta above 0, at most {_LONGEST_WAIT.days} days, as "
            f"{example}."
        )


def _check_no_effect(cls: type[Part]) -> None:
    for name in ("act", "compensate"):
        if hasattr(cls, name):
            raise DefinitionError(
                f"{cls.__name__}: it defines {name}(), which would never run, because a {cls.kind} has no effect: "
                "move it to a Step."
            )


def _type_argument(cls: type, generic: type) -> Any:
    """Return what stands in the brackets of a generic base class, as `Wait[Accepted]`; None if nothing does."""
    # Look at the bases of every parent: the original bases of a generic mixin would hide those of the class.
    for base in (base for parent in cls.__mro__ for base in parent.__dict__.get("__orig_bases__", ())):
        if isinstance(get_origin(base), type) and issubclass(get_origin(base), generic):
            (argument,) = get_args(base)
            if not isinstance(argument, TypeVar):
                return argument
    return None


def _context_type(cls: AnySaga) -> Any:
    if (context_type := _type_argument(cls, Saga)) is not None:
        return context_type
    raise DefinitionError(
        f"{cls.__name__}: the type of its context is missing: "
        f"write class {cls.__name__}(Saga[YourContext]) with a dataclass, TypedDict or pydantic model."
    )


def _check_fallbacks(step: type[Step[Any]]) -> None:
    chain = [step]
    while (fallback := chain[-1].fallback) is not None:
        owner = chain[-1].__name__
        if not (isinstance(fallback, type) and issubclass(fallback, Step)):
            raise DefinitionError(
                f"{owner}: fallback is {fallback!r}: give the Step class itself, not an instance or a function."
            )
        if fallback in chain:
            raise DefinitionError(
                f"{owner}: its fallback {fallback.__name__} leads back to itself, so that it would be tried for ever: "
                "let the last fallback have none."
            )
        if not fallback.defines_act():
            raise DefinitionError(f"{owner}: its fallback {fallback.__name__} defines no act(): say what it does.")
        if fallback.pivot is not step.pivot:
            raise DefinitionError(
                f"{owner}: its pivot is {step.pivot} and that of its fallback {fallback.__name__} is {fallback.pivot}, "
                "but the fallback takes the same place in the saga: give both the same `pivot`."
            )
        chain.append(fallback)


def _check_steps(cls: AnySaga) -> None:
    if not isinstance(cls.steps, Sequence):
        raise DefinitionError(f"{cls.__name__}: steps is {cls.steps!r}: give a list of Step classes.")
    if not cls.steps:
        raise DefinitionError(f"{cls.__name__}: it has no steps: list its Step classes in `steps`.")
    seen: dict[str, type[Part]] = {}
    pivot: str | None = None
    for step in cls.steps:
        _check_part(cls, step)
        for each in step.alternates():
            _check_names(cls, each, seen)
        if pivot and step.pivot:
            raise DefinitionError(
                f"{cls.__name__}: {pivot} and {step.__name__} are both pivots, and there is one point of no return: "
                "keep `pivot = True` on the one after which the saga must go forward."
            )
        for each in step.alternates():
            if pivot and each.can_compensate():
                raise DefinitionError(
                    f"{cls.__name__}: {each.__name__} comes after the pivot {pivot}, so its compensate() could never "
                    "run: remove it, or move the step before the pivot."
                )
        if pivot and issubclass(step, Wait) and step.timeout is not None and step.on_timeout == "abort":
            raise DefinitionError(
                f"{cls.__name__}: {step.__name__} comes after the pivot {pivot}, so its timeout could not abort the "
                'saga: set on_timeout = "go on", or timeout = None.'
            )
        if step.pivot:
            pivot = step.__name__


def _check_part(cls: AnySaga, step: type[Part]) -> None:
    if not (isinstance(step, type) and issubclass(step, Part)):
        raise DefinitionError(
            f"{cls.__name__}: steps holds {step!r}: list the Step class itself, not an instance or a function."
        )
    if step in (Part, Step, Wait, Sleep):
        raise DefinitionError(
            f"{cls.__name__}: steps holds {step.__name__} itself: list a subclass, which says what it does."
        )
    if issubclass(step, Step) and not step.defines_act():
        raise DefinitionError(f"{cls.__name__}: step {step.__name__} defines no act(): say what it does.")
    if issubclass(step, Step):
        _check_fallbacks(step)


def _check_names(cls: AnySaga, step: type[Part], seen: dict[str, type[Part]]) -> None:
    for name in (step.name, *step.aliases):
        if (other := seen.get(name)) is step:
            raise DefinitionError(
                f"{cls.__name__}: {step.__name__} is in it twice, as a step or as a fallback, and the log could not "
                "tell the two apart: derive a class from it, and list that for one of them."
            )
        if other is not None:
            raise DefinitionError(
                f"{cls.__name__}: {other.__name__} and {step.__name__} are both named {name!r}"
                f"{'' if name == step.name else ', one by an alias'}, and the log could not tell them apart: "
                "give one another name."
            )
        seen[name] = step
