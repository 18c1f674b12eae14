"""What only the memory of a process holds, and a restart therefore loses: seen by comparing, after every action."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from sagas.definition import Saga, Step
from sagas.errors import ContextError
from sagas.progress import Action
from sagas.testing.crashes.snapshot import Content, content, differences, is_data, parts

_SETTINGS_OF_A_STEP = ("name", "retry", "timeout", "pivot")


class Keepsake(NamedTuple):
    """Something that a restart loses.

    Attributes:
        step: who left it; empty for what is lost from the start.
        action: in which action.
        lost: what it is.
        in_context: whether the context holds it; otherwise the step does.
    """

    step: str
    action: Action | None
    lost: str
    in_context: bool


class Watch:
    """Watches one run, until its first crash.

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
        self._outliving = [world, *_direct_parts(world)]
        self.found: dict[Keepsake, int] = {}

    def look_at_start(self, context: Any) -> None:
        """See what the context loses before any step has run."""
        self._look_at_context("", None, context, at=0)

    def before(self, step: Step[Any]) -> dict[str, Content]:
        """Return the data that a step holds."""
        return {name: content(value) for name, value in self._data(step).items()}

    def after(
        self,
        kind: type[Step[Any]],
        step: Step[Any],
        action: Action,
        context: Any,
        before: dict[str, Content],
        *,
        at: int,
    ) -> None:
        """See what an action left on the step and in the context.

        Args:
            kind: the class that the saga lists.
            step: whose action it was.
            action: which.
            context: as it stands now.
            before: what `before` returned.
            at: the length of the run's trace.
        """
        self._look_at_context(kind.name, action, context, at=at)
        changed = {name: value for name, value in self._data(step).items() if before.get(name, self) != content(value)}
        if not changed:
            return
        fresh = self._data(self._make_step(kind, self._world))
        for name, value in changed.items():
            on_class = "." in name
            if on_class or name not in fresh or content(fresh[name]) != content(value):
                self._add(Keepsake(kind.name, action, name if on_class else f"self.{name}", False), at)

    def _look_at_context(self, step: str, action: Action | None, context: Any, *, at: int) -> None:
        try:
            stored = self._codec.load(self._codec.dump(context))
        except ContextError:
            return  # which fails the step, and says why
        here, there = content(context, exact=True), content(stored, exact=True)
        for difference in differences(there, here, "context"):
            self._add(Keepsake(step, action, difference, True), at)

    def _data(self, step: Step[Any]) -> dict[str, Any]:
        """A step's attributes that are data: its own by name, and as "Class.name" what its class holds for all."""
        data = {name: value for name, value in parts(step).items() if is_data(value)}
        for cls in type(step).__mro__:
            if cls is Step:
                break
            for name, value in vars(cls).items():
                if name.startswith("__") or name in _SETTINGS_OF_A_STEP or isinstance(value, cached_property):
                    continue
                if is_data(value) and not any(value is outliving for outliving in self._outliving):
                    data[f"{cls.__name__}.{name}"] = value
        return data

    def _add(self, keepsake: Keepsake, at: int) -> None:
        # What was lost before is not lost anew after every further action.
        if not any(known.lost == keepsake.lost and known.in_context == keepsake.in_context for known in self.found):
            self.found[keepsake] = at


def _direct_parts(world: Any) -> list[Any]:
    return [*parts(world).values(), *(world.values() if isinstance(world, dict) else ())]
