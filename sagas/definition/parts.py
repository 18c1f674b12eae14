"""What steps, waits and sleeps have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sagas.definition.names import own_aliases, own_name
from sagas.definition.retry_policy import ONCE, PATIENT, RetryPolicy
from sagas.errors import DefinitionError
from sagas.graph import Node


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
        cls.name = own_name(cls)
        cls.aliases = own_aliases(cls)
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
