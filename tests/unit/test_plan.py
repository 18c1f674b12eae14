"""The steps of a saga, found again in any later definition, or declined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas import Step
from sagas.definition import AnySaga
from sagas.errors import LogDoesNotFit
from sagas.plan import plan_for
from tests.samples import Stage


@dataclass(frozen=True)
class Edited:
    """A step of the old definition as it is in the new one; None for `now` if it was removed."""

    was: str
    now: str | None
    undo_before: bool
    undo_after: bool
    aliased: bool

    @property
    def found(self) -> bool:
        """Whether a saga that has this step can go on."""
        named = self.now == self.was or (self.now is not None and self.aliased)
        return named and self.undo_after >= self.undo_before


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[Edited], AnySaga, AnySaga, dict[str, type[Step[Any]]]]:
    """An old definition, what became of each of its steps, and the new definition with steps of its own between."""
    stage = Stage()
    steps = [
        Edited(
            was=f"s{index}",
            now=draw(st.sampled_from([f"s{index}"] * 4 + [f"r{index}"] * 2 + [None])),
            undo_before=draw(st.booleans()),
            undo_after=draw(st.booleans()) or draw(st.booleans()),
            aliased=draw(st.booleans()) or draw(st.booleans()),
        )
        for index in range(draw(st.integers(1, 6)))
    ]
    before = stage.saga(*(stage.step(s.was, undo=() if s.undo_before else None) for s in steps))
    kept = {
        s.was: stage.step(
            s.now, undo=() if s.undo_after else None, aliases=[s.was] if s.aliased and s.now != s.was else []
        )
        for s in steps
        if s.now
    }
    added = [stage.step(f"new{index}") for index in range(draw(st.integers(0 if kept else 1, 4)))]
    after = stage.saga(*draw(st.permutations([*kept.values(), *added])))
    return steps, before, after, kept


@given(edits())
@settings(max_examples=300)
def test_a_saga_is_declined_unless_each_step_is_found_by_old_name_and_place(
    made: tuple[list[Edited], AnySaga, AnySaga, dict[str, type[Step[Any]]]],
) -> None:
    steps, before, after, kept = made

    if not all(step.found for step in steps):
        with pytest.raises(LogDoesNotFit):
            plan_for(after, before.graph)
        return
    plan = plan_for(after, before.graph)

    assert list(plan.steps.items()) == [(step.was, kept[step.was]) for step in steps]


@given(edits())
@settings(max_examples=50)
def test_new_saga_has_the_new_steps(made: tuple[list[Edited], AnySaga, AnySaga, Any]) -> None:
    _, _, after, _ = made

    assert list(plan_for(after, after.graph).steps) == [step.name for step in after.steps]
