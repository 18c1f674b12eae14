"""Fallbacks as a user writes them, as the graph stores them, and as later code finds them."""

from __future__ import annotations

from typing import Any

import pytest

from sagas import Step
from sagas.definition import AnySaga
from sagas.definition_version import graph_of
from sagas.errors import DefinitionError, LogDoesNotFit
from sagas.graph import Fallback, Graph, Node
from sagas.plan import plan_for
from tests.samples import Stage, Trip, saga_of
from tests.unit.test_definition_version import HOTEL_AND_CAR


def step(name: str, **attributes: Any) -> type[Step[Trip]]:
    return Stage().step(name, **attributes)


def chain(*names: str, **attributes: Any) -> type[Step[Trip]]:
    """Return a step of the first name, with fallbacks of the others."""
    *others, last = names
    made = step(last, **attributes)
    for name in reversed(others):
        made = step(name, fallback=made, **attributes)
    return made


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fallback", ["bus", step("bus")(), lambda: None, int])
def test_a_fallback_that_is_no_step_class_is_refused(fallback: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Train: fallback is .*: give the Step class itself, not an instance"):
        step("train", fallback=fallback)


def test_a_fallback_without_act_is_refused() -> None:
    class Bus(Step[Trip]):
        pass

    with pytest.raises(DefinitionError, match=r"Train: its fallback Bus defines no act\(\): say what it does"):
        step("train", fallback=Bus)


@pytest.mark.parametrize("pivot", [True, False])
def test_a_fallback_whose_pivot_differs_is_refused(pivot: bool) -> None:
    with pytest.raises(
        DefinitionError, match=f"Train: its pivot is {pivot} and that of its fallback Bus is {not pivot}, but"
    ):
        step("train", pivot=pivot, fallback=step("bus", pivot=not pivot))


@pytest.mark.parametrize("names", [("bus",), ("train", "bus"), ("plane", "train", "bus")])
def test_fallbacks_that_lead_in_a_circle_are_refused(names: tuple[str, ...]) -> None:
    first = chain(*names)
    first.alternates()[-1].fallback = first

    with pytest.raises(DefinitionError, match=f"Bus: its fallback {first.__name__} leads back to itself"):
        saga_of([first])
    with pytest.raises(DefinitionError, match=f"Bus: its fallback {first.__name__} leads back to itself"):
        step("bike", fallback=first)


def test_one_class_twice_in_a_saga_is_refused() -> None:
    bus = step("bus")

    for steps in ([bus, step("train", fallback=bus)], [step("car", fallback=bus), step("train", fallback=bus)]):
        with pytest.raises(DefinitionError, match="Made: Bus is in it twice, as a step or as a fallback"):
            saga_of(steps)


def test_a_fallback_named_like_another_step_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Hotel and Bus are both named 'hotel', one by an alias"):
        saga_of([step("hotel"), step("train", fallback=step("bus", aliases=["hotel"]))])


def test_a_compensation_of_a_fallback_after_the_pivot_is_refused() -> None:
    after = step("mail", undo=None, fallback=step("letter"))

    with pytest.raises(DefinitionError, match=r"Letter comes after the pivot Pay, so its compensate\(\) could never"):
        saga_of([step("pay", pivot=True), after])
    saga_of([step("pay", pivot=True, fallback=step("invoice", pivot=True)), step("mail", undo=None)])


def test_a_subclass_has_the_fallback_of_its_parent() -> None:
    train = step("train", fallback=step("bus"))

    class NightTrain(train):  # type: ignore[misc, valid-type]
        pass

    assert [each.name for each in NightTrain.alternates()] == ["night-train", "bus"]


# -- the graph ----------------------------------------------------------------------------------------------------


def test_the_graph_stores_each_fallback_with_whether_it_can_be_undone() -> None:
    letter = step("letter", undo=None)
    graph = saga_of([step("hotel"), step("train", fallback=step("bus", fallback=letter))]).graph

    assert graph.nodes[1].fallbacks == (Fallback(name="bus", undoable=True), Fallback(name="letter"))
    assert graph.text == (
        '{"saga":"trip","version":1,"nodes":[{"name":"hotel","kind":"step","undoable":true},'
        '{"name":"train","kind":"step","after":["hotel"],"undoable":true,"fallbacks":['
        '{"name":"bus","kind":"step","undoable":true},{"name":"letter","kind":"step"}]}]}'
    )
    assert Graph.parse(graph.text) == graph


def test_a_graph_without_fallbacks_has_the_text_and_hash_that_it_always_had() -> None:
    graph = saga_of([step("hotel"), step("pay", undo=None, pivot=True)]).graph

    assert graph.text == (
        '{"saga":"trip","version":1,"nodes":[{"name":"hotel","kind":"step","undoable":true},'
        '{"name":"pay","kind":"step","after":["hotel"],"pivot":true}]}'
    )
    assert graph.hash == "c538d9bb7a8a731572fc12608d6b5f26d0a2982be8bb9be871fdcfc22f0d9d85"


def test_a_graph_with_one_name_for_two_alternates_is_refused() -> None:
    with pytest.raises(DefinitionError, match="two nodes are named 'bus'"):
        Graph("trip", 1, (Node(name="bus"), Node(name="train", fallbacks=(Fallback(name="bus"),))))


# -- later code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "classes"),
    [
        (saga_of([chain("train", "bus")]), {"train": "Train", "bus": "Bus"}),
        (saga_of([step("hotel"), chain("train", "taxi", "bus")]), {"train": "Train", "bus": "Bus"}),
        (saga_of([chain("train", "coach")]), None),
        (saga_of([step("train", fallback=step("coach", aliases=["bus"]))]), {"train": "Train", "bus": "Coach"}),
        (saga_of([step("rail", aliases=["train"], fallback=step("bus"))]), {"train": "Rail", "bus": "Bus"}),
        (saga_of([chain("bus", "train")]), {"train": "Train", "bus": "Bus"}),
        (saga_of([step("train")]), None),
        (saga_of([step("train"), step("bus")]), {"train": "Train", "bus": "Bus"}),
    ],
)
def test_later_code_goes_on_if_it_has_each_alternate_by_name_or_alias(
    after: AnySaga, classes: dict[str, str] | None
) -> None:
    graph = saga_of([chain("train", "bus")]).graph
    if classes is None:
        with pytest.raises(
            LogDoesNotFit, match="fallback of 'train': 'bus', which this saga was started with, is none"
        ):
            plan_for(after, graph)
        return
    plan = plan_for(after, graph)

    assert {name: part.__name__ for name, part in plan.steps.items()} == classes
    assert [fallback.name for fallback in plan.graph.nodes[0].fallbacks] == ["bus"]


def test_a_fallback_that_lost_its_compensation_does_not_fit_and_one_that_got_it_is_undone() -> None:
    with_undo, without = (saga_of([step("train", fallback=step("bus", undo=undo))]) for undo in ((), None))

    with pytest.raises(LogDoesNotFit, match=r"Bus lost its compensate\(\) since"):
        plan_for(without, with_undo.graph)
    assert plan_for(with_undo, without.graph).graph == with_undo.graph


def test_a_saga_that_was_started_without_a_fallback_gets_none() -> None:
    before, after = saga_of([step("train")]), saga_of([chain("train", "bus")])

    assert plan_for(after, before.graph).graph == before.graph


def test_a_saga_of_0_1_0_gets_no_fallback() -> None:
    after = saga_of([step("hotel"), chain("car", "bus")])

    assert graph_of(after, HOTEL_AND_CAR) == saga_of([step("hotel"), step("car")]).graph
    moved = saga_of([step("hotel"), chain("bus", "car")])
    assert [node.name for node in graph_of(moved, HOTEL_AND_CAR).nodes] == ["hotel", "car"]
