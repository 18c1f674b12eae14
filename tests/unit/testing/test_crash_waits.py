"""The crash matrix of sagas that wait for signals and sleep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from sagas import Call, Saga, SagaStatus, Sleep, Wait
from sagas.progress import Action
from sagas.testing.crashes import CrashMatrix, Fault, Moment, Outcome, Place, Waiting, crash_matrix
from tests.unit.testing.shop import Charge, Notify, Order, Reserve, Shop, ShopStep, findings, step


@dataclass
class Accepted:
    courier: str


class Courier(Wait[Accepted]):
    timeout = timedelta(days=2)

    def received(self, order: Order, signal: Accepted) -> None:
        order.notes.append(f"accepted by {signal.courier}")


class Quiet(Wait[None]):
    """Its signal brings nothing, and it has no timeout."""


class Nap(Sleep):
    duration = timedelta(hours=8)


class Deliver(ShopStep):
    def act(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.letters.append(order.notes[-1])


class Ordered(Saga[Order]):
    """Correct."""

    steps = [Reserve, Courier, Nap, Deliver]


#: How a run ended: its status, the stock, and the letters.
End = tuple[SagaStatus, dict[str, int], list[str]]
SIGNALS: dict[str, object] = {"courier": Accepted("Ann")}


def saga_of(*parts: Any) -> type[Saga[Order]]:
    class Made(Saga[Order]):
        name = "made"
        steps = parts

    return Made


def bugs(made: type[Saga[Any]], signals: dict[str, object] = SIGNALS, **options: Any) -> set[tuple[Fault, str]]:
    return {(finding.fault, finding.step) for finding in findings(made, signals=signals, **options)}


@pytest.fixture(scope="module")
def ends() -> dict[str, End]:
    return {}


@pytest.fixture(scope="module")
def matrix(ends: dict[str, End]) -> CrashMatrix:
    """The whole matrix of a correct saga, and how each of its runs ended."""

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        ends[str(outcome.plan)] = (outcome.status, shop.stock, shop.letters)

    return crash_matrix(Ordered, Order, world=Shop, signals=SIGNALS, check=check)


def test_a_saga_that_waits_and_sleeps_survives(matrix: CrashMatrix, ends: dict[str, Any]) -> None:
    assert str(matrix).startswith("ordered survives every crash: ")
    completed = (SagaStatus.COMPLETED, {"lamp": 8}, ["accepted by Ann"])
    compensated: End = (SagaStatus.COMPENSATED, {"lamp": 10}, [])
    assert ends["nothing goes wrong"] == completed
    assert ends["the signal for courier comes before the saga begins"] == completed
    assert ends["courier gets no signal"] == ends["deliver fails"] == compensated


def test_it_crashes_at_every_place_of_a_wait_and_a_sleep(matrix: CrashMatrix) -> None:
    runs = {str(plan) for plan in matrix.plans}

    for place in (
        "before the checkpoint with which courier begins",
        "after the checkpoint with which courier begins",
        "before received of courier in process 2",
        "after received of courier, before its checkpoint in process 2",
        "before the checkpoint of received of courier in process 2",
        "after the checkpoint of received of courier in process 2",
        "before the checkpoint with which nap begins in process 2",
        "after the checkpoint with which nap begins in process 2",
        "before the checkpoint with which nap is over in process 3",
        "after the checkpoint with which nap is over in process 3",
    ):
        assert f"crash {place}" in runs
    for place in (
        "before the checkpoint with which courier begins",
        "before the checkpoint with which courier is over in process 2",
        "after the checkpoint with which courier is over in process 2",
        "after compensate of reserve, before its checkpoint in process 2",
    ):
        assert f"courier gets no signal; crash {place}" in runs


def test_a_signal_also_comes_early_and_beside_a_crash(matrix: CrashMatrix) -> None:
    runs = {str(plan) for plan in matrix.plans if plan.early is not None}

    early, begins = "before the saga begins", "before the checkpoint with which courier begins"
    assert {run for run in runs if "crash" not in run} == {
        f"the signal for courier comes {early}",
        f"the signal for courier comes {begins}",
    }
    for place in (
        "before act of reserve",
        "after act of reserve, before its checkpoint",
        begins,
        "after the checkpoint with which courier begins",
    ):
        assert f"the signal for courier comes {place}; crash {place}" in runs
    assert f"the signal for courier comes {early}; crash after received of courier, before its checkpoint" in runs


def test_places_of_early_signals_are_not_counted_twice(matrix: CrashMatrix) -> None:
    assert matrix.places == sum(len(plan.crashes) == 1 for plan in matrix.plans if plan.early is None)


def test_time_jumps_to_the_end_of_sleeps_and_timeouts() -> None:
    hours: dict[str, float] = {}

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        first, last = outcome.log[0].created_at, outcome.log[-1].created_at
        assert first
        assert last
        hours[str(outcome.plan)] = (last - first) / timedelta(hours=1)

    crash_matrix(Ordered, Order, world=Shop, signals=SIGNALS, check=check, pairs=False)

    assert hours["nothing goes wrong"] == 8
    assert hours["courier gets no signal"] == 48


def test_a_wait_that_goes_on_without_its_signal() -> None:
    patient = type("Courier", (Courier,), {"on_timeout": "go on"})
    ends: dict[str, tuple[SagaStatus, list[str]]] = {}

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        ends[str(outcome.plan)] = outcome.status, shop.letters

    crash_matrix(saga_of(Reserve, patient, Deliver), Order, world=Shop, signals=SIGNALS, check=check, pairs=False)

    assert ends["courier gets no signal"] == (SagaStatus.COMPLETED, ["reserved"])
    assert ends["courier gets no signal, then deliver fails"] == (SagaStatus.COMPENSATED, [])


def test_a_wait_that_is_not_named_times_out() -> None:
    assert bugs(Ordered, {}, ends=SagaStatus.COMPENSATED) == set()
    assert bugs(Ordered, {}) == {(Fault.ENDS_WRONG, "courier")}


def test_two_waits_and_one_after_the_pivot_survive() -> None:
    class Clerk(Wait[str]):
        def received(self, order: Order, signal: str) -> None:
            order.notes.append(signal)

    pay = step("pay", Charge.act, pivot=True)

    assert bugs(saga_of(Courier, Reserve, pay, Clerk, Notify), {**SIGNALS, "clerk": "seen"}, pairs=True) == set()


def test_received_that_takes_effect_is_found() -> None:
    class Counting(Shop):
        present: ClassVar[Shop]

        def __init__(self) -> None:
            super().__init__()
            Counting.present = self

    class Greedy(Wait[Accepted]):
        name = "courier"

        def received(self, order: Order, signal: Accepted) -> None:
            Counting.present.letters.append(signal.courier)

    found = bugs(saga_of(Reserve, Greedy, Notify), world=Counting)

    assert (Fault.RECEIVED_NOT_REPEATABLE, "courier") in found


def test_a_wait_that_changes_data_on_its_class_is_found() -> None:
    class Listed(Wait[None]):
        calls: ClassVar[list[str]] = []

        def received(self, order: Order, signal: None) -> None:
            self.calls.append(order.id)

    assert (Fault.STATE_LOST, "listed") in bugs(saga_of(Reserve, Listed, Notify), {"listed": None})


def test_only_a_crash_around_code_makes_code_run_again() -> None:
    saved = {
        waiting: Place("courier", Action.ACT, Moment.BEFORE_CHECKPOINT, waiting=waiting).repeats
        for waiting in (None, *Waiting)
    }

    assert saved == {None: True, Waiting.BEGINS: False, Waiting.RECEIVES: True, Waiting.ENDS: False}


def test_a_compensation_that_needs_the_signal_is_found() -> None:
    def release(self: Any, order: Order, call: Call) -> None:
        if any(note.startswith("accepted") for note in order.notes):
            Reserve.compensate(self, order, call)

    reserve = step("reserve", Reserve.act, release)

    (found, *_) = [f for f in findings(saga_of(reserve, Courier, Notify), signals=SIGNALS) if f.step == "courier"]

    assert found.fault is Fault.UNDOES_BY_SIGNAL
    assert str(found.plan) == "courier gets no signal"
    assert "world.stock['lamp'] is 8 instead of 10" in found.left_behind


def test_a_timeout_that_does_not_end_is_found() -> None:
    def release(self: Any, order: Order, call: Call) -> None:
        if not any(note.startswith("accepted") for note in order.notes):
            raise LookupError("nobody accepted")
        Reserve.compensate(self, order, call)

    reserve = step("reserve", Reserve.act, release)

    found = findings(saga_of(reserve, Courier, Notify), signals=SIGNALS)

    assert "courier gets no signal" in [str(f.plan) for f in found if f.fault is Fault.ENDS_WRONG]


def test_an_early_signal_that_changes_the_end_is_found() -> None:
    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        # As a saga that is fast ends, which only the early signal allows.
        assert len({row.worker for row in outcome.log}) > 1

    (found,) = findings(saga_of(Quiet, Notify), signals={"quiet": None}, check=check, ends=SagaStatus.COMPLETED)

    assert (found.fault, found.step) == (Fault.EARLY_SIGNAL, "quiet")
    assert str(found.plan) == "the signal for quiet comes before the saga begins"


def test_an_early_signal_that_matters_only_beside_a_crash_is_found() -> None:
    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        assert not (outcome.plan.early and outcome.plan.crashes)

    (found,) = findings(saga_of(Reserve, Quiet, Notify), signals={"quiet": None}, check=check)

    assert (found.fault, found.step) == (Fault.EARLY_SIGNAL, "quiet")
    place = "before act of reserve"
    assert str(found.plan) == f"the signal for quiet comes {place}; crash {place}"


@pytest.mark.parametrize(
    ("made", "signals", "message"),
    [
        (saga_of(Quiet, Reserve), {}, "waits for 'quiet' without a timeout"),
        (Ordered, {"postman": None}, "no wait of that name: it waits for 'courier'"),
        (saga_of(Reserve), {"courier": None}, "it has no waits"),
        (Ordered, {"courier": {"courier": 3}}, "signal for 'courier' does not fit Courier"),
    ],
)
def test_signals_that_cannot_be_sent_are_refused(
    made: type[Saga[Any]], signals: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        crash_matrix(made, Order, world=Shop, signals=signals)
