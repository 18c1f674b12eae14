"""What only the memory of a process holds, and a restart therefore loses: seen by comparing, after every action."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NamedTuple

from sagas.definition import Saga, Step
from sagas.errors import ContextError
from sagas.progress import Action
from sagas.testing.crashes.snapshot import Content, content, differences, is_data, parts

_SETTINGS_OF_A_STEP: Final = ("name", "retry", "compensate_retry", "timeout", "pivot")


class Keepsake(NamedTuple):
    """Something that a restart loses.

    Attributes:
        step: who left it; empty for what is lost from the start.
        action: in which action.
        lost: what it is.
        in_context: whether the context holds it; otherwise the step does.
        certain: whether it is data; otherwise it may be a client, say, that the next process makes anew.
    """

    step: str
    action: Action | None
    lost: str
    in_context: bool = False
    certain: bool = True

    def __str__(self) -> str:
        if self.in_context:
            return f"stored and read back, {self.lost}"
        return f"{self.lost}, set by {self.action}, is lost"


class Watch:
    """Watches one run that nothing disturbs.

    Args:
        saga: whose context it is.
        world: what outlives every process.
        make_step: makes the step of another process.
    """

    def __init__(
        self, saga: type[Saga[Any]], world: Any, make_step: Callable[[type[Step[Any]], Any], Step[Any]]
    ) -> None:
        self._codec = saga.codec
        self._world = world
        self._make_step = make_step
        self._outliving = [world, *parts(world).values(), *(world.values() if isinstance(world, dict) else ())]
        #: The length of the run's trace when each appeared.
        self.found: dict[Keepsake, int] = {}

    def look_at_context(self, context: Any, step: str, action: Action | None, *, at: int) -> None:
        """See what of the context is lost when it is stored, `at` this length of the run's trace."""
        try:
            stored = self._codec.load(self._codec.dump(context))
        except ContextError:
            return  # which fails the step, and says why
        here, there = content(context, exact=True), content(stored, exact=True)
        for difference in differences(there, here, "context"):
            self._add(Keepsake(step, action, difference, in_context=True), at)

    def held_by(self, step: Step[Any]) -> dict[str, Content]:
        """Return what a step holds, to be given to `look_at_step` later."""
        return {name: _seen(value) for name, value in _attributes(step, self._outliving).items()}

    def look_at_step(
        self, step: Step[Any], kind: type[Step[Any]], action: Action, before: dict[str, Content], *, at: int
    ) -> None:
        """See what an action left on its step that another process's step of this `kind` would not have."""
        now = _attributes(step, self._outliving)
        changed = {name: value for name, value in now.items() if before.get(name, self) != _seen(value)}
        if not changed:
            return
        fresh = _attributes(self._make_step(kind, self._world), self._outliving)
        for name, value in changed.items():
            on_class = "." in name
            if on_class or name not in fresh or _seen(fresh[name]) != _seen(value):
                lost = name if on_class else f"self.{name}"
                self._add(Keepsake(kind.name, action, lost, certain=is_data(value)), at)

    def _add(self, keepsake: Keepsake, at: int) -> None:
        # What was lost before is not lost anew after every further action.
        if not any((known.lost, known.in_context) == (keepsake.lost, keepsake.in_context) for known in self.found):
            self.found[keepsake] = at


def _attributes(step: Step[Any], outliving: list[Any]) -> dict[str, Any]:
    """A step's attributes by name, and as "Class.name" the data that its class holds for all instances."""
    held = parts(step)
    for cls in type(step).__mro__:
        if cls is Step:
            break
        for name, value in vars(cls).items():
            if name.startswith("__") or name in _SETTINGS_OF_A_STEP or isinstance(value, cached_property):
                continue
            if is_data(value) and not any(value is known for known in outliving):
                held[f"{cls.__name__}.{name}"] = value
    return held


def _seen(value: Any) -> Content:
    return content(value) if is_data(value) else ("object", id(value))
