"""Where the matrix crashes a saga, and what a crash there is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import pytest

from sagas import Call, MemorySagaStorage, OutcomeUnknown, RetryPolicy, Saga, SagaStatus
from sagas.progress import Action
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease
from sagas.storage.transitions import FailedAttempt, GaveBack, Transition
from sagas.testing.crashes import SAGA_ID, CrashMatrix, CrashPlan, Moment, Outcome, crash_matrix
from sagas.testing.crashes.script import Crash, Script
from sagas.testing.crashes.simulated_parts import SimulatedStep
from sagas.testing.crashes.simulated_process import CrashingStorage
from tests.unit.testing.shop import Charge, Order, Reserve, Shop, saga, step

MOMENTS = ["before", "after", "before the checkpoint of", "after the checkpoint of"]


class Two(Saga[Order]):
    """Two steps, both undone when the saga turns back."""

    steps = [Reserve, Charge]


@pytest.fixture(scope="module")
def matrix_of_two() -> CrashMatrix:
    """The whole matrix of two steps."""
    return crash_matrix(Two, Order, world=Shop)


@pytest.fixture(scope="module")
def runs_of_two(matrix_of_two: CrashMatrix) -> list[tuple[str, ...]]:
    """The same as text."""
    return as_text(matrix_of_two.plans)


def crashes_of(made: type[Saga[Any]], **options: Any) -> list[tuple[str, ...]]:
    """Every run's failure and crashes, as text."""
    return as_text(crash_matrix(made, Order, world=Shop, **options).plans)


def as_text(plans: Iterable[CrashPlan]) -> list[tuple[str, ...]]:
    return [(_failure(plan), *(f"{c.moment} {c.action} {c.step}" for c in plan.crashes)) for plan in plans]


def _failure(plan: CrashPlan) -> str:
    if plan.failure is None:
        return ""
    return f"{plan.failure.step} {plan.failure.how.name}{' once' if plan.failure.once else ''}"


def test_every_place_is_visited(runs_of_two: list[tuple[str, ...]]) -> None:
    # By hand: what a saga of two steps does, for each way in which one of them fails.
    done = {
        "": ["act reserve", "act charge"],
        "reserve REFUSED": ["act reserve"],
        "reserve ANSWER_LOST": ["act reserve", "compensate reserve"],
        "reserve REQUEST_LOST": ["act reserve", "compensate reserve"],
        "charge REFUSED": ["act reserve", "act charge", "compensate reserve"],
        "charge ANSWER_LOST": ["act reserve", "act charge", "compensate charge", "compensate reserve"],
        "charge REQUEST_LOST": ["act reserve", "act charge", "compensate charge", "compensate reserve"],
    }
    expected = {
        (failure, f"{moment} {action}") for failure, actions in done.items() for action in actions for moment in MOMENTS
    }
    single = [run for run in runs_of_two if len(run) == 2]
    assert len(single) == len(set(single))
    assert set(single) == expected
    # Without crashes, each twice: to see whether a run can be compared with another.
    assert Counter(run for run in runs_of_two if len(run) == 1) == {(failure,): 2 for failure in done}


def test_without_failures_each_pair_of_places_that_differ_is_visited(
    runs_of_two: list[tuple[str, ...]],
) -> None:
    # By hand: a crash is at the begin of a process, after an action, or after its checkpoint; then another follows.
    reserved, reserve_saved = "after act reserve", "after the checkpoint of act reserve"
    charged, begin, begin_again = "after act charge", "before act reserve", "before act charge"
    to_the_end_from_reserve = [begin, reserved, reserve_saved, charged]
    to_the_end_from_charge = [begin_again, charged]
    expected = {
        *(("", begin, second) for second in to_the_end_from_reserve),
        *(("", reserved, second) for second in to_the_end_from_reserve),
        *(("", reserve_saved, second) for second in to_the_end_from_charge),
        *(("", charged, second) for second in to_the_end_from_charge),
    }
    pairs = [run for run in runs_of_two if len(run) == 3]

    assert len(pairs) == len(set(pairs))
    assert {pair for pair in pairs if pair[0] == ""} == expected


def test_a_failing_step_and_two_crashes_meet_where_an_action_runs_twice(runs_of_two: list[tuple[str, ...]]) -> None:
    pairs = [run for run in runs_of_two if len(run) == 3 and run[0]]

    assert {failure for failure, *_ in pairs} == {
        "reserve REFUSED",
        "reserve ANSWER_LOST",
        "charge REFUSED",
        "charge ANSWER_LOST",
    }
    assert {first.split()[0] for _, first, _ in pairs} == {"after"}
    assert ("charge REFUSED", "after compensate reserve", "after compensate reserve") in pairs
    assert ("charge ANSWER_LOST", "after act charge", "after compensate charge") in pairs


def test_no_pairs_unless_wanted() -> None:
    assert not [run for run in crashes_of(Two, pairs=False) if len(run) > 2]


def test_counts_tell_what_was_done(matrix_of_two: CrashMatrix) -> None:
    matrix = matrix_of_two

    assert matrix.runs == len(matrix.plans)
    assert matrix.places == 4 * (2 + 1 + 2 + 2 + 3 + 4 + 4)
    assert matrix.crashes == sum(len(plan.crashes) for plan in matrix.plans) > matrix.places
    assert str(matrix) == f"two survives every crash: {matrix.runs} runs, {matrix.crashes} crashes at 72 places."


def test_an_action_without_compensation_is_no_place() -> None:
    runs = crashes_of(saga(step("reserve", Reserve.act), Charge), pairs=False)

    assert not [run for run in runs if "compensate reserve" in " ".join(run)]
    assert [run for run in runs if "compensate charge" in " ".join(run)]


def test_what_returns_after_its_timeout_reaches_no_place() -> None:
    script = Script(None, crashes=[])
    script.begin(1)
    call = Call(saga_id=SAGA_ID, step_name="reserve", attempt=1, idempotency_key="k")

    def act(self: Any, order: Order, call: Call) -> Order:
        script.turn += 1  # the engine gave it up, and has gone on
        return order

    late = step("reserve", act)
    assert SimulatedStep(late, late(Shop()), script).act(Order(), call) == Order()
    assert [place.moment for place in script.trace] == [Moment.BEFORE]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_action_that_raises_by_itself_has_all_its_places(is_async: bool) -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such lamp")

    async def act_later(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such lamp")

    made = saga(step("reserve", act_later if is_async else act))
    runs = crashes_of(made, pairs=False, ends=SagaStatus.COMPENSATED)

    assert {run[1] for run in runs if len(run) == 2 and run[0] == ""} == {f"{moment} act reserve" for moment in MOMENTS}


def test_steps_that_are_tried_again_fail_once_too() -> None:
    patient = step("reserve", Reserve.act, Reserve.compensate, retry=RetryPolicy(max_attempts=3))

    failures = {run[0] for run in crashes_of(saga(patient), pairs=False)}

    assert failures == {
        "",
        "reserve REFUSED",
        "reserve ANSWER_LOST",
        "reserve REQUEST_LOST",
        "reserve REFUSED once",
        "reserve ANSWER_LOST once",
    }


def test_what_a_policy_does_not_try_again_fails_once_with_an_error_that_it_does() -> None:
    class Busy(Exception):
        def __init__(self, host: str, *, port: int) -> None:
            super().__init__(f"{host}:{port}")

    policy = RetryPolicy(max_attempts=2, retry_on=(OutcomeUnknown, Busy))
    seen: list[Outcome[Any]] = []

    crash_matrix(
        saga(step("reserve", Reserve.act, Reserve.compensate, retry=policy)),
        Order,
        world=Shop,
        check=lambda _, outcome: seen.append(outcome),
    )
    once = next(o for o in seen if str(o.plan) == "reserve fails once")
    for_good = next(o for o in seen if str(o.plan) == "reserve fails")

    assert (once.log[0].error_type, once.status) == ("Busy", SagaStatus.COMPLETED)
    assert (for_good.log[0].error_type, for_good.status) == ("InjectedFailure", SagaStatus.COMPENSATED)
    assert len(for_good.log) == 1


def test_of_many_attempts_the_second_stands_for_those_until_the_last() -> None:
    stubborn = step("reserve", Reserve.act, Reserve.compensate, retry=RetryPolicy(max_attempts=9))

    matrix = crash_matrix(saga(stubborn), Order, world=Shop, pairs=False)

    crashed = {(crash.action, crash.attempt) for plan in matrix.plans for crash in plan.crashes}
    assert {attempt for action, attempt in crashed if action is Action.ACT} == {1, 2, 9}


def _seen(check: Callable[[Outcome[Any]], bool], made: type[Saga[Any]]) -> list[Outcome[Any]]:
    outcomes: list[Outcome[Any]] = []
    crash_matrix(made, Order, world=Shop, check=lambda _, outcome: outcomes.append(outcome), pairs=False)
    return [outcome for outcome in outcomes if check(outcome)]


def test_a_crash_leaves_the_saga_as_sigkill_would(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[object] = []
    apply = MemorySagaStorage.apply

    def noted(storage: MemorySagaStorage, lease: Lease, transition: Transition) -> Applied:
        if isinstance(transition, GaveBack | FailedAttempt):
            given_back.append(transition)
        return apply(storage, lease, transition)

    monkeypatch.setattr(MemorySagaStorage, "apply", noted)
    outcomes = _seen(lambda o: o.plan.failure is None and [c.step for c in o.plan.crashes] == ["charge"], Two)

    assert {outcome.plan.crashes[0].moment for outcome in outcomes} == set(Moment)
    for outcome in outcomes:
        # The first process vanished: no failure is counted for it, and once its lease had run out the second went on.
        survivor = "process 1" if outcome.plan.crashes[0].moment is Moment.AFTER_CHECKPOINT else "process 2"
        rows = [(row.step, row.status, row.worker) for row in outcome.log]
        reserved, lost, charged = (
            ("reserve", "completed", "process 1"),
            ("holder", "lost", "process 1"),
            ("charge", "completed", survivor),
        )
        assert rows == ([reserved, charged] if survivor == "process 1" else [reserved, lost, charged])
        times = {row.step: row.created_at.timestamp() for row in outcome.log if row.created_at}
        assert times["charge"] - times["reserve"] == (0 if survivor == "process 1" else 30)
    assert given_back == []


@pytest.mark.parametrize("method", ["acquire", "apply", "renew", "operate", "load"])
def test_a_dead_process_reaches_no_storage(method: str) -> None:
    script = Script(None, crashes=[0])
    script.begin(1)
    connection: Any = CrashingStorage(MemorySagaStorage(), script)
    with pytest.raises(Crash):
        script.reach(Moment.BEFORE, "reserve", Action.ACT, 1)

    with pytest.raises(Crash):
        getattr(connection, method)(Lease(SAGA_ID, 1, "the dead one", uuid4()), None)


def test_recovery_builds_new_steps() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.shop.builders.append(self)

    class Site:
        def __init__(self) -> None:
            self.builders: list[object] = []

    counts: dict[str, int] = {}

    def check(site: Site, outcome: Outcome[Any]) -> None:
        counts[str(outcome.plan)] = len(set(map(id, site.builders)))

    crash_matrix(saga(step("build", act)), Order, world=Site, snapshot=lambda _: None, check=check)

    assert counts["nothing goes wrong"] == 1
    assert counts["crash after act of build, before its checkpoint"] == 2


def test_time_passes_on_the_fake_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep

    def refuse(seconds: float) -> None:
        if threading.current_thread().name == "sagas-leases":  # of an engine of another test
            sleep(seconds)
        else:
            pytest.fail(f"slept for {seconds} s")

    monkeypatch.setattr("time.sleep", refuse)
    # The first wait happens in place, the second puts the saga down.
    policy = RetryPolicy(max_attempts=3, first_delay=4, factor=100, max_delay=3600)
    made = saga(Reserve, step("charge", Charge.act, Charge.compensate, retry=policy, timeout=3600))

    outcomes = _seen(lambda o: str(o.plan) == "charge fails", made)

    first, *_, last = outcomes[0].log
    assert first.created_at is not None
    assert last.created_at is not None
    assert (last.created_at - first.created_at).total_seconds() == pytest.approx(404, abs=1)
