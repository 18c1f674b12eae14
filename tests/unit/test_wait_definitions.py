"""What a user may write as a wait, a sleep or a deadline, and what is refused when the class is defined."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import TypedDict

from sagas import Saga, Sleep, Wait
from sagas.definition import Part
from sagas.errors import DefinitionError
from tests.samples import Stage, Trip, saga_of


@dataclass
class Accepted:
    courier: str


class Answer(TypedDict):
    yes: bool


@dataclass
class WithCallback:
    done: Callable[[], None]


class CourierAccepts(Wait[Accepted]):
    timeout = timedelta(days=2)


class CoolingOff(Sleep):
    duration = timedelta(hours=1)


def test_waits_and_sleeps_stand_among_the_steps_and_in_the_graph() -> None:
    saga = saga_of([Stage().step("hotel"), CourierAccepts, CoolingOff])

    assert [(node.name, node.kind) for node in saga.graph.nodes] == [
        ("hotel", "step"),
        ("courier-accepts", "wait"),
        ("cooling-off", "sleep"),
    ]
    assert [part.limit() for part in saga.steps] == [None, 172_800.0, 3600.0]


@pytest.mark.parametrize("payload", [Accepted, Answer, None, str, dict[str, int]])
def test_a_signal_brings_what_json_can_hold(payload: Any) -> None:
    class Arrives(Wait[payload]):
        pass

    assert Arrives.name == "arrives"


def test_a_wait_without_the_type_of_its_signal_is_refused() -> None:
    with pytest.raises(DefinitionError, match=re.escape("Arrives: the type of its signal is missing: write class A")):

        class Arrives(Wait):  # type: ignore[type-arg]
            pass


def test_a_signal_type_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Arrives: its signal type WithCallback cannot be stored as JSON"):

        class Arrives(Wait[WithCallback]):
            pass


@pytest.mark.parametrize("timeout", [60, timedelta(0), timedelta(seconds=-1), timedelta(days=40_000), "2d"])
def test_a_timeout_that_is_no_timedelta_in_range_is_refused(timeout: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Arrives: timeout is .*: give a timedelta above 0.* or None"):
        type("Arrives", (CourierAccepts,), {"timeout": timeout})


def test_another_end_of_a_wait_than_the_two_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"""Arrives: on_timeout is 'retry': give "abort" or "go on"\."""):
        type("Arrives", (CourierAccepts,), {"on_timeout": "retry"})


@pytest.mark.parametrize("duration", [None, 60, timedelta(0), timedelta(days=40_000)])
def test_a_sleep_without_a_duration_in_range_is_refused(duration: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Nap: duration is .*: give a timedelta above 0"):
        type("Nap", (Sleep,), {} if duration is None else {"duration": duration})


@pytest.mark.parametrize("deadline", [60, timedelta(0), timedelta(days=40_000)])
def test_a_deadline_that_is_no_timedelta_in_range_is_refused(deadline: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made: deadline is .*: give a timedelta above 0.* or None"):
        saga_of([Stage().step("hotel")], deadline=deadline)


@pytest.mark.parametrize("base", [Part, Wait, Sleep])
def test_a_base_class_itself_among_the_steps_is_refused(base: type[Part]) -> None:
    with pytest.raises(DefinitionError, match=f"steps holds {base.__name__} itself: list a subclass"):
        saga_of([base])


def test_a_wait_and_a_step_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="both named 'courier-accepts'"):
        saga_of([Stage().step("courier-accepts"), CourierAccepts])


def test_a_retry_of_a_wait_that_is_no_policy_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Arrives: retry is 3: set it to a RetryPolicy"):
        type("Arrives", (CourierAccepts,), {"retry": 3})


@pytest.mark.parametrize("kind", [CourierAccepts, CoolingOff])
@pytest.mark.parametrize("method", ["act", "compensate"])
def test_a_wait_that_defines_an_effect_is_refused(kind: type[Part], method: str) -> None:
    with pytest.raises(DefinitionError, match=rf"Odd: it defines {method}\(\), which would never run"):
        type("Odd", (kind,), {method: lambda *_: None})


def test_a_wait_past_the_pivot_that_would_abort_is_refused() -> None:
    pivot = Stage().step("pay", pivot=True)

    with pytest.raises(DefinitionError, match="CourierAccepts comes after the pivot Pay, so its timeout could not"):
        saga_of([pivot, CourierAccepts])


@pytest.mark.parametrize("changed", [{"on_timeout": "go on"}, {"timeout": None}])
def test_a_wait_past_the_pivot_that_cannot_abort_is_allowed(changed: dict[str, Any]) -> None:
    waits = type("Arrives", (CourierAccepts,), changed)

    assert issubclass(saga_of([Stage().step("pay", pivot=True), waits, CoolingOff]), Saga)


def test_received_may_return_a_new_context() -> None:
    class Arrives(Wait[Accepted]):
        def received(self, context: Trip, signal: Accepted) -> Trip:
            return Trip(booked=[*context.booked, signal.courier])

    assert Arrives().received(Trip(), Accepted("ann")).booked == ["ann"]
