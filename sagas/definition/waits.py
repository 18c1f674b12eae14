"""Waits for a signal or for a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, get_args

from sagas.context import ContextCodec
from sagas.definition.generics import type_argument
from sagas.definition.parts import Part
from sagas.errors import DefinitionError

_LONGEST_WAIT: Final = timedelta(days=36_600)
#: What follows when a wait has timed out.
OnTimeout = Literal["abort", "go on"]

#: What a signal brings.
PayloadT = TypeVar("PayloadT")


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
            check_duration(cls, "timeout", cls.timeout, "timedelta(days=2), or None for no limit")
        if cls.on_timeout not in get_args(OnTimeout):
            raise DefinitionError(f'{cls.__name__}: on_timeout is {cls.on_timeout!r}: give "abort" or "go on".')
        payload_type = type_argument(cls, Wait)
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
        check_duration(cls, "duration", getattr(cls, "duration", None), "timedelta(hours=1)")

    @classmethod
    def limit(cls) -> float | None:
        """How many seconds it lasts."""
        return cls.duration.total_seconds()


def check_duration(cls: type, name: str, value: object, example: str) -> None:
    """Make sure that an attribute of a class is a duration that can be waited for; the message shows an example."""
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
