"""What a user may write, and what is refused when the class is defined."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from sagas import RetryPolicy, Saga, SagaError, Step
from sagas.definition import ONCE, backoff
from sagas.errors import DefinitionError
from sagas.execution import IN_PLACE_SECONDS
from sagas.graph import Graph
from tests.samples import Stage, Trip, saga_of

T = TypeVar("T")


class Connection:
    """A class that is no data."""


@dataclass
class WithCallback:
    done: Callable[[], None]


@dataclass
class WithConnection:
    connection: Connection


def step(name: str, **attributes: Any) -> type[Step[Trip]]:
    return Stage().step(name, **attributes)


# -- refusals of sagas --------------------------------------------------------------------------------------------


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="both named 'hotel', and the log could not tell them apart"):
        saga_of([step("hotel"), step("hotel")])


def test_two_pivots_are_refused() -> None:
    steps = [step("hotel", undo=None, pivot=True), step("car", undo=None, pivot=True)]

    with pytest.raises(DefinitionError, match="Hotel and Car are both pivots"):
        saga_of(steps)


def test_compensation_after_the_pivot_is_refused() -> None:
    steps = [step("hotel", pivot=True), step("car")]

    with pytest.raises(
        DefinitionError, match=r"Car comes after the pivot Hotel, so its compensate\(\) could never run"
    ):
        saga_of(steps)


def test_pivot_itself_may_be_compensated() -> None:
    saga_of([step("hotel", pivot=True), step("car", undo=None)])


@pytest.mark.parametrize("context", [Connection, WithCallback, WithConnection])
def test_context_type_that_cannot_be_json_is_refused(context: type) -> None:
    with pytest.raises(DefinitionError, match=f"context type {context.__name__} cannot be stored as JSON"):
        saga_of([step("hotel")], context=context)


def test_saga_without_its_context_type_is_refused() -> None:
    with pytest.raises(DefinitionError, match=re.escape("write class Bare(Saga[YourContext])")):

        class Bare(Saga):  # type: ignore[type-arg]
            steps = (step("hotel"),)


def test_saga_without_steps_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Empty: it has no steps"):

        class Empty(Saga[Trip]):
            pass


def test_step_without_act_is_refused() -> None:
    class Idle(Step[Trip]):
        pass

    with pytest.raises(DefinitionError, match=r"step Idle defines no act\(\)"):
        saga_of([Idle])


@pytest.mark.parametrize("wrong", [step("hotel")(), len, Connection, "hotel"])
def test_anything_but_a_step_class_among_the_steps_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="list the Step class itself, not an instance or a function"):
        saga_of([step("car"), wrong])


def test_steps_that_are_no_list_are_refused() -> None:
    with pytest.raises(DefinitionError, match="give a list of Step classes"):
        saga_of(step("hotel"))  # type: ignore[arg-type]


def test_definition_errors_are_type_errors_and_saga_errors() -> None:
    assert issubclass(DefinitionError, TypeError)
    assert issubclass(DefinitionError, SagaError)


# -- refusals of steps and policies -------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("nan"), float("inf"), "5"])
def test_timeout_that_cannot_be_waited_for_is_refused(timeout: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Hotel: timeout is .*: give seconds above 0"):
        step("hotel", timeout=timeout)


def test_a_compensate_retry_that_is_no_policy_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Hotel: compensate_retry is None: set it to a RetryPolicy"):
        step("hotel", compensate_retry=None)


def test_a_compensate_past_failures_that_is_no_truth_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Made: compensate_past_failures is 'no': give True or False"):
        saga_of([step("hotel")], compensate_past_failures="no")


def test_policies_and_the_order_of_compensations_change_no_definition() -> None:
    plain = saga_of([step("hotel"), step("car")])
    other = saga_of(
        [step("hotel", compensate_retry=RetryPolicy()), step("car", retry=RetryPolicy())], compensate_past_failures=True
    )

    assert plain.graph.hash == other.graph.hash


@pytest.mark.parametrize("name", ["a\ud800", "\udfff", "a\0b"])
def test_names_that_no_database_can_hold_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"name is .* without NUL, and without halves of surrogate pairs"):
        types.new_class("Hotel", (Step,), {}, lambda namespace: namespace.update(name=name))
    with pytest.raises(DefinitionError, match=r"Made: name is "):
        saga_of([step("hotel")], name=name)
    with pytest.raises(DefinitionError, match=r"aliases is "):
        saga_of([step("hotel")], aliases=[name])


def test_retry_that_is_no_policy_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Hotel: retry is 3: set it to a RetryPolicy"):
        step("hotel", retry=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number of 1 or more"),
        ({"max_attempts": 1.5}, "max_attempts must be a whole number of 1 or more"),
        ({"first_delay": -1}, "first_delay must be 0 or more seconds"),
        ({"first_delay": float("nan")}, "first_delay must be 0 or more seconds"),
        ({"first_delay": "1"}, "first_delay must be 0 or more seconds"),
        ({"factor": 0.9}, "factor must be 1 or more"),
        ({"factor": float("nan")}, "factor must be 1 or more"),
        ({"max_delay": -1}, "max_delay must be 0 or more seconds"),
        ({"max_delay": float("inf")}, "max_delay must be 0 or more seconds, at most a year"),
        ({"jitter": -0.1}, "jitter must be between 0 and 1"),
        ({"jitter": 1.1}, "jitter must be between 0 and 1"),
        ({"retry_on": ConnectionError}, "retry_on must be a tuple of exception classes"),
        ({"retry_on": [ConnectionError]}, "retry_on must be a tuple of exception classes"),
        ({"retry_on": ("ConnectionError",)}, "retry_on must be a tuple of exception classes"),
    ],
)
def test_policy_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=f"RetryPolicy: {message}"):
        RetryPolicy(**values)


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("ReserveStock", "reserve-stock"),
        ("HTTPCall", "http-call"),
        ("SendSMS", "send-sms"),
        ("Step2Go", "step2-go"),
        ("hotel", "hotel"),
    ],
)
def test_default_name_is_the_class_name_in_kebab_case(class_name: str, name: str) -> None:
    assert types.new_class(class_name, (Step,)).name == name  # type: ignore[attr-defined]


def test_default_name_stays_when_the_class_moves() -> None:
    def in_module(module: str) -> type[Step[Any]]:
        return types.new_class("BookHotel", (Step,), {}, lambda namespace: namespace.update(__module__=module))

    assert in_module("shop.steps").name == in_module("shop.travel.hotel").name == "book-hotel"


def test_saga_is_named_like_a_step() -> None:
    class BookTrip(Saga[Trip]):
        steps = (step("hotel"),)

    assert BookTrip.name == "book-trip"


def test_name_can_be_given_and_stays_as_written() -> None:
    assert step("Book Hotel (v2)").name == "Book Hotel (v2)"


def test_subclass_does_not_inherit_a_name_because_it_is_another_thing() -> None:
    class Hotel(Step[Trip]):
        name = "the-hotel"

    class CheapHotel(Hotel):
        pass

    assert CheapHotel.name == "cheap-hotel"


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", 7, None])
def test_name_that_the_database_cannot_hold_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="give text of 1 to 255 characters without NUL"):
        type("Hotel", (Step,), {"name": name})


# -- inheritance --------------------------------------------------------------------------------------------------


def test_sub_saga_keeps_the_context_type_of_its_base() -> None:
    class Base(Saga[Trip]):
        steps = (step("hotel"),)

    class Sub(Base):
        pass

    assert Sub.codec.load('{"booked": ["hotel"]}') == Trip(["hotel"])


def test_generic_mixin_does_not_hide_the_context_type() -> None:
    class Audited(Generic[T]):
        pass

    class Base(Saga[Trip]):
        steps = (step("hotel"),)

    class Sub(Audited[int], Base):
        pass

    assert Sub.codec.load("{}") == Trip()


def test_steps_given_as_a_list_cannot_be_changed_later() -> None:
    given = [step("hotel")]
    saga = saga_of(given)

    given.append(step("car"))

    assert [s.name for s in saga.steps] == ["hotel"]


def test_inherited_compensation_counts() -> None:
    base = step("hotel")

    class Sub(base):  # type: ignore[misc, valid-type]
        pass

    assert Sub.can_compensate()
    assert not step("car", undo=None).can_compensate()


# -- the definition's version -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [step("hotel")],
        [step("car"), step("hotel")],
        [step("hotel"), step("boat")],
        [step("hotel"), step("car", undo=None)],
        [step("hotel"), step("car", pivot=True)],
    ],
    ids=["fewer", "order", "name", "compensation", "pivot"],
)
def test_definition_changes_with_what_a_log_depends_on(steps: list[type[Step[Trip]]]) -> None:
    assert saga_of(steps).graph.hash != saga_of([step("hotel"), step("car")]).graph.hash


def test_definition_stays_with_what_no_log_depends_on() -> None:
    other = saga_of([step("hotel", timeout=3), step("car", retry=RetryPolicy())], context=dict)

    assert other.graph == saga_of([step("hotel"), step("car")]).graph


def test_version_that_is_declared_is_part_of_the_definition() -> None:
    first, second = saga_of([step("hotel")]), saga_of([step("hotel")], version=2)

    assert (first.graph.version, second.graph.version) == (1, 2)
    assert first.graph.nodes == second.graph.nodes
    assert first.graph.hash != second.graph.hash


def test_definition_of_any_length_is_read_back_as_it_was() -> None:
    graph = saga_of([step(f"step{index}") for index in range(2000)], version=10**9).graph

    assert Graph.parse(graph.text) == graph
    assert len(graph.hash) == 64


@pytest.mark.parametrize("version", [0, -1, 1.0, "2", True, None])
def test_version_that_is_no_whole_number_is_refused(version: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made: version is .*: give a whole number, 1 for the first"):
        saga_of([step("hotel")], version=version)


@pytest.mark.parametrize("continues", [1, "1", (2,), (3,), (0,), ("1",)])
def test_versions_to_go_on_with_that_are_not_lower_are_refused(continues: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made: continues is .*: give a list of versions below its own, .* is 2"):
        saga_of([step("hotel")], version=2, continues=continues)


# -- aliases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aliases", ["inn", ("",), (7,), ("a\0b",), ("x" * 256,), {"inn"}])
def test_aliases_that_are_no_list_of_names_are_refused(aliases: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Hotel: aliases is .*: give a list of the former names"):
        step("hotel", aliases=aliases)
    with pytest.raises(DefinitionError, match=r"Made: aliases is .*: give a list of the former names"):
        saga_of([step("hotel")], aliases=aliases)


@pytest.mark.parametrize("aliases", [("hotel",), ("inn", "inn")])
def test_alias_that_is_the_name_or_comes_twice_is_refused(aliases: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Hotel: its name 'hotel' and its aliases .* name one thing twice"):
        step("hotel", aliases=aliases)


@pytest.mark.parametrize(
    "steps",
    [
        [step("inn"), step("hotel", aliases=["inn"])],
        [step("hotel", aliases=["inn"]), step("inn")],
        [step("hotel", aliases=["inn"]), step("motel", aliases=["inn"])],
    ],
    ids=["name first", "alias first", "two aliases"],
)
def test_alias_that_another_step_has_as_a_name_is_refused(steps: list[type[Step[Trip]]]) -> None:
    with pytest.raises(DefinitionError, match=r"are both named 'inn'.*, and the log could not tell them apart"):
        saga_of(steps)


def test_subclass_inherits_no_alias_and_no_version_because_it_is_another_thing() -> None:
    class Booking(saga_of([step("hotel")], aliases=["reserve"], version=3, continues=[1])):  # type: ignore[misc]
        pass

    assert (Booking.name, Booking.aliases, Booking.version, Booking.continues) == ("booking", (), 1, ())


# -- delays -------------------------------------------------------------------------------------------------------


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    policy = RetryPolicy(max_attempts=9, first_delay=1, factor=3, max_delay=20, jitter=0)

    assert [policy.delay(failures, random=0.5) for failures in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]


@pytest.mark.parametrize(
    ("first_delay", "delays"), [(600, [600, 600]), (60.5, [60.5, 60.5]), (60, [60, 60]), (40, [40, 60]), (1, [1, 2])]
)
def test_no_default_shortens_the_first_delay(first_delay: float, delays: list[float]) -> None:
    policy = RetryPolicy(first_delay=first_delay)

    assert [policy.delay(failures, random=0.0) for failures in (1, 2)] == delays


def test_a_first_delay_above_the_cap_is_refused() -> None:
    with pytest.raises(DefinitionError, match="max_delay is below first_delay, which is 600"):
        RetryPolicy(first_delay=600, max_delay=60)


def test_the_default_for_compensations_outlasts_hours_without_holding_a_worker() -> None:
    policy = Step.compensate_retry
    waits = [policy.delay(failures, random=0.999) for failures in range(1, policy.max_attempts)]

    assert policy.retry_on == (Exception,)
    assert waits == sorted(waits)
    assert waits[0] > IN_PLACE_SECONDS
    assert waits[-1] <= 600
    assert 5 * 3600 < sum(waits) < 7 * 3600


def test_what_comes_after_the_pivot_is_patient_unless_the_class_has_a_policy() -> None:
    class Set(Step[Any]):
        retry = ONCE

    class Below(Set):
        pass

    class Unset(Step[Any]):
        pass

    assert (Set.retry_after_pivot(), Below.retry_after_pivot()) == (ONCE, ONCE)
    assert Unset.retry_after_pivot() is Step.compensate_retry


def test_jitter_takes_away_up_to_its_share() -> None:
    policy = RetryPolicy(first_delay=10, jitter=0.2)

    assert policy.delay(1, random=0.0) == 10
    assert policy.delay(1, random=0.5) == 9
    assert policy.delay(1, random=0.999) == pytest.approx(8.002)


@pytest.mark.parametrize("factor", [2, 2.0, 1e300, float("inf")])
def test_delay_does_not_overflow_at_attempt_ten_thousand(factor: float) -> None:
    assert RetryPolicy(first_delay=0.5, factor=factor, jitter=0).delay(10_000, random=0.0) == 60


def test_no_first_delay_means_none_ever() -> None:
    assert {backoff(failures, first=0.0, factor=2.0, cap=60) for failures in (1, 2, 10_000)} == {0}
