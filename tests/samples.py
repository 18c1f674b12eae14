"""Sagas with scripted steps, an engine that does not wait, and a storage and a broker that fail on demand."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any
from uuid import UUID

from sagas import Call, ISagaStorage, MemorySagaStorage, Saga, SagaEngine, Settings, Step
from sagas.definition import ONCE, Part
from sagas.errors import StorageUnavailable
from sagas.outbox import OutboxTask
from sagas.progress import Action
from sagas.runtime import Runtime
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease
from sagas.storage.records import Claim, SagaRecord, Signal
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import FailedAttempt, GaveBack, Transition

#: Deadline for expected events, long enough for a slow machine.
DEADLINE_SECONDS = 20.0


@dataclass
class Trip:
    """The context of most sagas here."""

    booked: list[str] = field(default_factory=list)
    note: Any = None


#: The outcome of one attempt: None succeeds, an exception is raised, a function is called with context and call.
Outcome = BaseException | Callable[[Any, Call], Any] | None


def always(outcome: Outcome) -> Iterable[Outcome]:
    """The same outcome at every attempt."""
    return repeat(outcome)


def book(context: Trip, call: Call) -> None:
    """Succeed, and record the action in the context."""
    context.booked.append(call.step_name)


class Stage:
    """Makes steps and sagas, and records every call of their actions, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Call]] = []

    @property
    def seen(self) -> list[str]:
        """The calls, such as ["act hotel", "compensate hotel"]."""
        return [f"{action} {call.step_name}" for action, call in self.calls]

    def attempts(self, seen: str) -> list[int]:
        """Return the attempt numbers of one action, as in `attempts("act hotel")`."""
        return [call.attempt for action, call in self.calls if f"{action} {call.step_name}" == seen]

    def step(
        self, name: str, act: Iterable[Outcome] = (), undo: Iterable[Outcome] | None = (), **attributes: Any
    ) -> type[Step[Trip]]:
        """Return a step class.

        Args:
            name: the step's name.
            act: the outcomes of its attempts; later attempts succeed.
            undo: the same for compensate(); None for a step without compensate().
            attributes: aliases, retry, timeout, pivot, and compensate_retry, whose default is `retry`.
        """
        # Make one attempt. The default of a step that cannot be undone is to retry for hours.
        policies = {"retry": ONCE, "compensate_retry": attributes.get("retry", ONCE)}
        members: dict[str, Any] = {"name": name, "act": self._action("act", act), **policies, **attributes}
        if undo is not None:
            members["compensate"] = self._action("compensate", undo)
        return type(name.title(), (Step,), members)

    def saga(self, *steps: type[Part] | str, name: str = "trip", **attributes: Any) -> type[Saga[Trip]]:
        """Return a saga of these steps; a string is the name of a step that succeeds and can be undone."""
        return saga_of([self.step(step) if isinstance(step, str) else step for step in steps], name=name, **attributes)

    def _action(self, action: str, outcomes: Iterable[Outcome]) -> Callable[[Any, Trip, Call], Any]:
        left = iter(outcomes)

        def perform(_: Any, context: Trip, call: Call) -> Any:
            self.calls.append((action, call))
            outcome = next(left, None)
            if isinstance(outcome, BaseException):
                raise outcome
            return None if outcome is None else outcome(context, call)

        return perform


def saga_of(
    classes: Sequence[type[Part]],
    *,
    name: str = "trip",
    context: Any = Trip,
    called: str = "Made",
    **attributes: Any,
) -> type[Saga[Any]]:
    """Return a saga of these step classes, with this class name, aliases, version and continues."""
    members = {"name": name, "steps": classes, "__module__": __name__, **attributes}
    return types.new_class(called, (Saga[context],), {}, lambda namespace: namespace.update(members))


class Clock:
    """A storage's clock, advanced by the test."""

    def __init__(self) -> None:
        self.now = datetime(2031, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FlakyStorage(MemorySagaStorage):
    """A storage that fails at the next calls in `failures`: ("apply", "before") or "after" the call took effect.

    "release" means an `apply` that gives the saga back without the end of an action.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.failures: list[tuple[str, str]] = []
        self.calls: list[str] = []

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        of_a_step = any(event.action is not Action.HOLDER for event in transition.events)
        gives_back = isinstance(transition, GaveBack | FailedAttempt) and not of_a_step
        applied: Applied = self._call("release" if gives_back else "apply", super().apply, lease, transition)
        return applied

    def signals(self, saga_id: UUID) -> list[Signal]:
        signals: list[Signal] = self._call("signals", super().signals, saga_id)
        return signals

    def load(self, *args: Any, **kwargs: Any) -> SagaRecord:
        record: SagaRecord = self._call("load", super().load, *args, **kwargs)
        return record

    def _call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        when = self.failures.pop(0)[1] if self.failures and self.failures[0][0] == name else None
        if when == "before":
            raise StorageUnavailable("gone before it took effect")
        result = method(*args, **kwargs)
        if when == "after":
            raise StorageUnavailable("gone after it took effect")
        return result


class FakeDispatcher:
    """A dispatcher that records the sent messages, and fails after `capacity` messages."""

    def __init__(self) -> None:
        self.sent: list[Claim] = []
        self.tasks: list[OutboxTask] = []
        self.capacity: int | None = None

    def send(self, claims: Sequence[Claim]) -> int:
        accepted = list(claims)[: self.capacity]
        self.sent += accepted
        return len(accepted)

    def enqueue(self, tasks: Sequence[OutboxTask]) -> list[int]:
        accepted = list(tasks)[: self.capacity]
        self.tasks += accepted
        return [task.id for task in accepted]


#: Backoff of 10, 20, 40 and then 40 seconds; a saga is dead after the third failed attempt.
SETTINGS = Settings(backoff_seconds=10, max_backoff_seconds=40, max_recovery_attempts=3)


class QuickEngine(SagaEngine):
    """An engine that records its waits in `slept` instead of waiting, and has no jitter."""

    def __init__(self, storage: ISagaStorage, **options: Any) -> None:
        options.setdefault("settings", SETTINGS)
        super().__init__(storage, **options)
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def runtime(self) -> Runtime:
        return replace(super().runtime(), sleep=self._sleep, random=lambda: 0.0)

    def stored(self) -> SagaRecord:
        """Return the only saga in the storage."""
        (record,) = self.storage.find(SagaFilter())
        return self.storage.load(record.id)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()
