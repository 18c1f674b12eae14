"""Steps: an effect, how to undo it, and what is tried in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic
from uuid import UUID

from sagas.context import ContextT
from sagas.definition.parts import Part
from sagas.definition.retry_policy import LONGEST_DELAY, is_between
from sagas.errors import DefinitionError
from sagas.graph import Fallback, Node
from sagas.outbox import EnqueuedTask, enqueued_task

#: Builds a step from its class. A DI container plugs in here.
Resolver = Callable[[type["Step[Any]"]], "Step[Any]"]


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
            task: the task, its name, or a signature such as `send_receipt.s(7).set(queue="mail")`.
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
        if cls.timeout is not None and (cls.timeout == 0 or not is_between(0, cls.timeout, LONGEST_DELAY)):
            raise DefinitionError(
                f"{cls.__name__}: timeout is {cls.timeout!r}: "
                "give seconds above 0, at most a year, or None for no limit."
            )
        check_fallbacks(cls)

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


def check_fallbacks(step: type[Step[Any]]) -> None:
    """Make sure that a step's fallbacks can be tried in its place."""
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
