"""Requests to cancel: what they do to a saga in each state, and when they come too late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas import Call, MemorySagaStorage, RetryPolicy, Saga, SagaStatus
from sagas.errors import SagaNotFound, SignalRefused
from sagas.progress import Action, Verdict
from sagas.storage.records import SagaState
from tests.samples import Clock, FakeDispatcher, QuickEngine, Stage, Trip, always
from tests.unit.test_waits import CoolingOff, Courier, PatientCourier, wake

SLOWLY = RetryPolicy(max_attempts=9, first_delay=3600, max_delay=3600)
AWAY = ConnectionError("away")


@pytest.fixture
def engine(clock: Clock) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock), dispatcher=FakeDispatcher())


def cancelled(engine: QuickEngine) -> str:
    """Ask for the saga to be cancelled, and return what the worker that is woken makes of it."""
    engine.cancel(engine.stored().id, "changed their mind", actor="ann")
    return wake(engine)


def test_a_saga_that_never_ran_ends_without_running(stage: Stage, engine: QuickEngine) -> None:
    engine.start(stage.saga("hotel"), Trip())

    assert cancelled(engine) == "compensated"

    assert stage.seen == []
    (entry,) = engine.stored().log
    assert (entry.step, entry.action, entry.verdict) == ("cancel", Action.OPERATOR, Verdict.ABORT)
    assert (entry.actor, entry.reason) == ("ann", "changed their mind")


def test_a_saga_that_is_to_start_later_is_cancelled_at_once(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.start(stage.saga("hotel"), Trip(), at=timedelta(days=9))

    assert cancelled(engine) == "compensated"

    assert engine.stored().finished_at == clock.now


@pytest.mark.parametrize("wait", [Courier, PatientCourier, CoolingOff])
def test_a_saga_that_waits_or_sleeps_is_undone_at_once(stage: Stage, engine: QuickEngine, wait: type[Courier]) -> None:
    engine.run(stage.saga("hotel", wait, "car"), Trip())

    assert cancelled(engine) == "compensated"

    assert stage.seen == ["act hotel", "compensate hotel"]


def test_a_saga_that_backs_off_is_undone_at_once(stage: Stage, engine: QuickEngine) -> None:
    engine.run(stage.saga("hotel", stage.step("car", always(AWAY), retry=SLOWLY)), Trip())

    assert cancelled(engine) == "compensated"

    assert stage.seen == ["act hotel", "act car", "compensate hotel"]


def test_a_saga_that_runs_is_undone_after_its_present_step(stage: Stage, engine: QuickEngine) -> None:
    def cancel(_: Trip, call: Call) -> None:
        engine.cancel(call.saga_id, "changed their mind")

    report = engine.run(stage.saga(stage.step("hotel", [cancel]), "car"), Trip())

    assert report.outcome == "compensated"
    assert stage.seen == ["act hotel", "compensate hotel"]


def test_a_request_during_the_last_step_is_not_missed(stage: Stage, engine: QuickEngine) -> None:
    def cancel(_: Trip, call: Call) -> None:
        engine.cancel(call.saga_id, "changed their mind")

    report = engine.run(stage.saga("hotel", stage.step("car", [cancel])), Trip())

    assert report.outcome == "compensated"
    assert stage.seen == ["act hotel", "act car", "compensate car", "compensate hotel"]


def test_a_request_during_the_pivot_comes_too_late_and_the_log_says_so(stage: Stage, engine: QuickEngine) -> None:
    def cancel(_: Trip, call: Call) -> None:
        engine.cancel(call.saga_id, "changed their mind", actor="ann")

    report = engine.run(
        stage.saga("hotel", stage.step("pay", [cancel], pivot=True), stage.step("m", undo=None)), Trip()
    )

    assert (report.outcome, stage.seen) == ("completed", ["act hotel", "act pay", "act m"])
    (entry,) = [entry for entry in engine.stored().log if entry.step == "cancel"]
    assert (entry.verdict, entry.actor) == (None, "ann")


def test_a_request_past_the_pivot_is_refused(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga(stage.step("pay", pivot=True), PatientCourier), Trip()).saga_id

    with pytest.raises(SignalRefused, match=r"is past its pivot and can only go forward: it cannot be cancelled"):
        engine.cancel(saga_id, "changed their mind")
    assert engine.storage.signals(saga_id) == []


def test_a_saga_whose_attempts_failed_is_undone_at_once(stage: Stage, engine: QuickEngine) -> None:
    class Broken(RuntimeError):
        pass

    def resolve(_: object) -> None:
        raise Broken("the step cannot be built")

    saga: type[Saga[Trip]] = stage.saga("hotel")
    broken = QuickEngine(engine.storage, dispatcher=engine.dispatcher, resolver=resolve)
    assert broken.run(saga, Trip()).outcome == "failed"
    engine.registry.add(saga)

    assert cancelled(engine) == "compensated"


def test_a_dead_saga_is_revived_to_be_undone(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    def resolve(_: object) -> None:
        raise RuntimeError("the step cannot be built")

    saga: type[Saga[Trip]] = stage.saga("hotel")
    broken = QuickEngine(engine.storage, dispatcher=engine.dispatcher, resolver=resolve)
    broken.run(saga, Trip())
    while not engine.stored().dead:
        clock.forward(3600)
        wake(broken)
    engine.registry.add(saga)

    assert cancelled(engine) == "compensated"

    assert engine.stored().recovery_attempts == 0


def test_a_paused_saga_is_undone_after_it_is_resumed(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())
    engine.storage.pause("trip", actor="ann", reason="why")
    wake(engine)
    assert engine.stored().state is SagaState.PAUSED

    engine.cancel(saga_id, "changed their mind")
    paused = wake(engine)
    engine.storage.resume("trip")

    assert (paused, wake(engine)) == ("not sent", "compensated")
    assert stage.seen == []


def test_a_saga_that_is_being_undone_already_cannot_be_cancelled_and_retries_no_sooner(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    stubborn = stage.step("hotel", undo=[AWAY], compensate_retry=SLOWLY)
    saga_id = engine.run(stage.saga(stubborn, stage.step("car", [AWAY])), Trip()).saga_id
    before = engine.stored()
    clock.forward(60)

    with pytest.raises(SignalRefused, match=r"is being undone already: there is nothing to add"):
        engine.cancel(saga_id, "changed their mind")

    assert engine.stored() == before


def test_a_finished_or_unknown_saga_cannot_be_cancelled(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga("hotel"), Trip()).saga_id

    with pytest.raises(SignalRefused, match=r"is COMPLETED already: nothing is left to cancel"):
        engine.cancel(saga_id, "why")
    with pytest.raises(SagaNotFound):
        engine.cancel(("trip", "trip-9"), "why")
    assert engine.stored().status is SagaStatus.COMPLETED


def test_two_requests_abort_once(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga("hotel", Courier), Trip()).saga_id
    for reason in ("first", "second"):
        engine.cancel(saga_id, reason)

    assert wake(engine) == "compensated"

    assert [entry.reason for entry in engine.stored().log if entry.step == "cancel"] == ["first"]


def test_nothing_is_in_doubt_after_a_crash_that_follows_a_request(
    stage: Stage, engine: QuickEngine, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The step that would have been next was never begun, so it is not compensated."""

    class Killed(BaseException):
        pass

    def cancel(_: Trip, call: Call) -> None:
        engine.cancel(call.saga_id, "changed their mind")

    def killed(_: Trip, call: Call) -> None:
        monkeypatch.setattr(engine.storage, "apply", lambda *_: (_ for _ in ()).throw(Killed()))
        raise Killed

    saga = stage.saga(stage.step("hotel", [cancel], [killed]), "car")
    with pytest.raises(Killed):
        engine.run(saga, Trip())
    monkeypatch.undo()
    clock.forward(3600)

    assert wake(engine) == "compensated"
    assert stage.seen == ["act hotel", "compensate hotel", "compensate hotel"]
