"""What is sent to a saga survives what fails meanwhile: steps, the code of a wait, and the database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sagas import Call, RetryPolicy, SagaStatus, Wait
from sagas.admin import Operator
from sagas.execution import Outcome
from sagas.storage.records import SagaState
from tests.samples import Clock, FlakyStorage, QuickEngine, Stage, Trip, saga_of

_LATER = RetryPolicy(max_attempts=3, first_delay=60)
_AT_ONCE = RetryPolicy(max_attempts=3, first_delay=0)


def _engine() -> QuickEngine:
    return QuickEngine(FlakyStorage(Clock()))


def _sending(engine: QuickEngine, *whats: str, error: Exception | None = None) -> Callable[[Any, Call], None]:
    """Return an action that sends these to its saga, a signal or a request to cancel, and fails or succeeds."""

    def act(context: Trip, call: Call) -> None:
        for what in whats:
            if what == "cancel":
                engine.cancel(call.saga_id, "why")
            else:
                engine.signal(call.saga_id, what, 7)
        if error is not None:
            raise error

    return act


class Courier(Wait[int]):
    timeout = timedelta(hours=1)

    def received(self, context: Trip, signal: int) -> None:
        context.note = signal


def test_a_signal_makes_no_retry_early() -> None:
    engine, stage = _engine(), Stage()
    fails = stage.step("car", [_sending(engine, "courier", error=TimeoutError())], retry=_LATER)
    trip = saga_of([fails, Courier])

    report = engine.run(trip, Trip())

    assert (report.outcome, stage.attempts("act car")) == (Outcome.WAITING, [1])
    saga = engine.stored()
    assert saga.available_at is not None
    assert (saga.state, (saga.available_at - saga.updated_at).total_seconds()) == (SagaState.READY, 60)
    engine.storage._clock.forward(60)  # type: ignore[attr-defined]
    assert engine.recover(report.saga_id).outcome is Outcome.COMPLETED
    assert engine.stored().context == '{"booked":[],"note":7}'


def test_a_request_to_cancel_ends_the_wait_for_a_retry_that_begins() -> None:
    engine, stage = _engine(), Stage()
    fails = stage.step("car", [_sending(engine, "cancel", error=TimeoutError())], retry=_LATER)

    report = engine.run(saga_of([stage.step("hotel"), fails]), Trip())

    assert (report.outcome, stage.seen) == (Outcome.COMPENSATED, ["act hotel", "act car", "compensate hotel"])


def test_the_log_tells_of_a_request_to_cancel_that_came_during_the_pivot() -> None:
    engine, stage = _engine(), Stage()
    pivot = stage.step("hotel", [_sending(engine, "cancel")], undo=None, pivot=True)

    report = engine.run(saga_of([pivot]), Trip())

    assert report.outcome is Outcome.COMPLETED
    assert [(e.step, e.reason) for e in engine.stored().log if e.signal is not None] == [("cancel", "why")]


def test_a_signal_whose_code_fails_is_received_again() -> None:
    engine, stage = _engine(), Stage()
    errors: list[Exception] = [TimeoutError(), TimeoutError()]

    class Patient(Courier):
        retry = _AT_ONCE

        def received(self, context: Trip, signal: int) -> None:
            if errors:
                raise errors.pop()
            context.note = signal

    report = engine.run(saga_of([stage.step("hotel", [_sending(engine, "patient")]), Patient]), Trip())

    assert (report.outcome, engine.stored().context) == (Outcome.COMPLETED, '{"booked":[],"note":7}')


def test_a_signal_whose_code_fails_past_the_pivot_is_received_again_later() -> None:
    engine, stage = _engine(), Stage()
    errors: list[Exception] = [TimeoutError()] * 9

    class Patient(Courier):
        timeout = None

        def received(self, context: Trip, signal: int) -> None:
            if errors:
                raise errors.pop()
            context.note = signal

    hotel = stage.step("hotel", [_sending(engine, "patient")], undo=None, pivot=True)
    report = engine.run(saga_of([hotel, Patient]), Trip())
    for _ in range(20):
        assert engine.stored().state is not SagaState.WAITING
        engine.storage._clock.forward(3600)  # type: ignore[attr-defined]
        if report.outcome is Outcome.COMPLETED:
            break
        report = engine.recover(report.saga_id)

    assert (engine.stored().status, engine.stored().context) == (SagaStatus.COMPLETED, '{"booked":[],"note":7}')


def test_a_wait_that_fails_for_good_aborts_the_saga_and_says_so() -> None:
    engine, stage = _engine(), Stage()

    class Broken(Courier):
        def received(self, context: Trip, signal: int) -> None:
            raise RuntimeError("no such order")

    report = engine.run(saga_of([stage.step("hotel", [_sending(engine, "broken")]), Broken]), Trip())

    assert (report.outcome, stage.seen) == (Outcome.COMPENSATED, ["act hotel", "compensate hotel"])
    assert "no such order" in (engine.stored().last_error or "")


def test_a_database_that_is_away_while_signals_are_read_is_waited_for() -> None:
    engine, stage = _engine(), Stage()
    storage: Any = engine.storage
    storage.failures = [("signals", "before"), ("signals", "before")]

    report = engine.run(saga_of([stage.step("hotel", [_sending(engine, "courier")]), Courier]), Trip())

    assert (report.outcome, len(engine.slept)) == (Outcome.COMPLETED, 2)


def test_each_of_two_requests_is_logged_although_the_answer_to_a_write_was_lost() -> None:
    engine, stage = _engine(), Stage()
    storage: Any = engine.storage

    def send(context: Trip, call: Call) -> None:
        for what in ("cancel", "cancel"):
            _sending(engine, what)(context, call)
        storage.failures = [("apply", "after"), ("apply", "after"), ("apply", "before")]

    steps = [stage.step("hotel", [send], undo=None, pivot=True), stage.step("car", undo=None)]

    report = engine.run(saga_of(steps), Trip())

    assert report.outcome is Outcome.COMPLETED
    told = [e.signal["id"] for e in engine.stored().log if e.signal is not None]
    assert len(told) == len(set(told)) == 2


def test_an_operator_skips_a_wait_or_aborts_a_saga_that_waits() -> None:
    ends = []
    for command in ("skip", "compensate"):
        engine, stage = _engine(), Stage()
        report = engine.run(saga_of([stage.step("hotel"), Courier]), Trip())
        operator = Operator(engine, actor="ann")
        if command == "skip":
            operator.skip(report.saga_id, "courier", reason="he called")
        else:
            operator.compensate(report.saga_id, reason="fraud")

        ends.append(engine.recover(report.saga_id).outcome if not engine.stored().status.finished else "")

    assert ends == ["", Outcome.COMPENSATED]
