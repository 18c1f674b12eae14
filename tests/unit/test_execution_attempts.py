"""Attempts that cannot bring a saga on: counted, backed off from, dead in the end; and those that are declined."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from sagas import Call, MemorySagaStorage, PostgresSagaStorage, RetryPolicy, SagaStatus, Step
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest
from sagas.telemetry import Observer
from tests.samples import SETTINGS, Clock, QuickEngine, Stage, Trip, always, book, saga_of

FULL = ConnectionError("fully booked")


@pytest.fixture
def engine(clock: Clock) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock))


def backoff(engine: QuickEngine, clock: Clock) -> float:
    """Seconds until the only saga is due."""
    available_at = engine.stored().available_at
    assert available_at
    return (available_at - clock.now).total_seconds()


# -- failed attempts ----------------------------------------------------------------------------------------------


def test_compensation_that_keeps_raising_backs_off_longer_each_time_and_ends_dead(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga = stage.saga(stage.step("hotel", undo=always(FULL)), stage.step("car", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id

    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.lease_owner) == (SagaStatus.FAILED, 1, None)
    assert stored.last_error == "hotel, compensate, attempt 1: ConnectionError: fully booked"
    assert backoff(engine, clock) == 10

    clock.forward(10)
    report = engine.recover(saga_id)
    assert (report.outcome, report.status) == ("failed", SagaStatus.FAILED)
    assert report.message == "failed attempt 2 of 3, the next in 20 s: fully booked"
    assert backoff(engine, clock) == 20

    clock.forward(20)
    report = engine.recover(saga_id)
    assert report.outcome == "dead"
    assert report.message == "failed attempt 3 of 3, so it is dead until an operator revives it: fully booked"
    assert engine.stored().dead
    assert stage.attempts("compensate hotel") == [1, 2, 3]
    clock.forward(1e6)
    assert engine.storage.get_sagas_for_recovery(10) == []


def test_backoff_is_capped(stage: Stage, clock: Clock) -> None:
    settings = SETTINGS.model_copy(update={"max_recovery_attempts": 100})
    engine = QuickEngine(MemorySagaStorage(clock), settings=settings)
    saga = stage.saga(stage.step("hotel", undo=always(FULL)), stage.step("car", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id

    waits = []
    for _ in range(5):
        waits.append(backoff(engine, clock))
        clock.forward(waits[-1])
        engine.recover(saga_id)

    assert waits == [10, 20, 40, 40, 40]


def test_recovery_of_a_saga_that_turned_back_goes_on_backward(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga = stage.saga("hotel", stage.step("car", undo=[FULL]), stage.step("plane", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id
    before = len(stage.seen)
    clock.forward(10)

    assert engine.recover(saga_id).outcome == "compensated"
    assert stage.seen[before:] == ["compensate car", "compensate hotel"]


def test_dead_saga_is_run_only_by_hand(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga = stage.saga(stage.step("hotel", undo=[FULL] * 3), stage.step("car", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id
    for _ in range(2):
        clock.forward(100)
        engine.recover(saga_id)

    refused = engine.recover(saga_id)
    assert refused.outcome == "skipped"
    assert refused.message.startswith("it is dead after 3 failed attempts (hotel, compensate, attempt 3: Conn")
    assert engine.recover(saga_id, by_hand=True).outcome == "compensated"


def test_saga_that_backs_off_is_run_by_hand_at_once(stage: Stage, engine: QuickEngine) -> None:
    saga = stage.saga(stage.step("hotel", undo=[FULL]), stage.step("car", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id

    assert engine.recover(saga_id).message.startswith("it waits until 2031-05-01 00:00:10 UTC")
    assert engine.recover(saga_id, by_hand=True).outcome == "compensated"


def test_step_completed_during_a_recovery_sets_the_attempts_to_zero(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    mail = stage.step("mail", [FULL] * 2, undo=None)
    call = stage.step("call", [FULL] * 2, undo=None)
    saga_id = engine.run(stage.saga(stage.step("pay", pivot=True), mail, call), Trip()).saga_id
    counts, told = [engine.stored().recovery_attempts], []
    for _ in range(3):
        clock.forward(100)
        told.append(engine.recover(saga_id).message.split(",")[0])
        counts.append(engine.stored().recovery_attempts)

    assert counts == [1, 2, 1, 2]
    assert told == [f"failed attempt {nth} of 3" for nth in (2, 1, 2)]
    clock.forward(100)
    assert engine.recover(saga_id).outcome == "completed"
    assert engine.stored().recovery_attempts == 0


def test_durable_retry_is_no_failed_attempt(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    policy = RetryPolicy(max_attempts=10, first_delay=60)
    saga_id = engine.run(stage.saga(stage.step("hotel", [FULL] * 9, retry=policy)), Trip()).saga_id
    for _ in range(8):
        clock.forward(100)
        assert engine.recover(saga_id).outcome == "waiting"

    assert engine.stored().recovery_attempts == 0


def test_engine_that_cannot_build_a_step_has_a_failed_attempt(stage: Stage, clock: Clock) -> None:
    class ContainerBroken(Exception):
        pass

    def resolve(step: type[Step[Any]]) -> Step[Any]:
        raise ContainerBroken("no database client")

    engine = QuickEngine(MemorySagaStorage(clock), resolver=resolve)

    report = engine.run(stage.saga("hotel"), Trip())

    assert (report.outcome, report.status) == ("failed", SagaStatus.FAILED)
    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.lease_owner) == (SagaStatus.FAILED, 1, None)
    assert stored.last_error == "ContainerBroken: no database client"
    assert [(row.action, row.status, row.message) for row in stored.log] == [("holder", "failed", "no database client")]
    clock.forward(10)
    assert QuickEngine(engine.storage, sagas=engine.registry).recover(stored.id).outcome == "completed"


def test_exit_from_a_step_counts_a_failed_attempt_and_ends_the_process(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    def leave(context: Trip, call: Call) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        engine.run(stage.saga(stage.step("hotel", [leave])), Trip())

    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.last_error) == (SagaStatus.FAILED, 1, "SystemExit: 3")
    assert backoff(engine, clock) == 10


# -- whatever an exception says -----------------------------------------------------------------------------------


class Unspeakable(Exception):
    """An exception whose message cannot be had."""

    def __str__(self) -> str:
        raise AttributeError("response")


AWKWARD = [
    RuntimeError("nul \0 in it"),
    RuntimeError("half a pair \ud800"),
    RuntimeError("x" * 10_000_000),
    Unspeakable(),
]


def test_any_error_message_can_be_stored(stage: Stage, storage: PostgresSagaStorage) -> None:
    policy = RetryPolicy(max_attempts=len(AWKWARD), first_delay=0)
    engine = QuickEngine(storage)

    report = engine.run(stage.saga("hotel", stage.step("car", AWKWARD, retry=policy)), Trip())

    assert report.outcome == "compensated"
    entries = engine.stored().log[1 : 1 + len(AWKWARD)]
    assert [entry.error_type for entry in entries] == [type(error).__name__ for error in AWKWARD]
    assert all(0 < len(entry.message or "") <= 2000 for entry in entries)
    assert all(0 < len(entry.traceback or "") <= 4000 for entry in entries)


def test_any_message_of_a_failed_attempt_can_be_stored(
    stage: Stage, storage: PostgresSagaStorage, caplog: pytest.LogCaptureFixture
) -> None:
    # The engine logs the error as it is, and pytest-xdist cannot carry half a surrogate pair.
    caplog.set_level(logging.CRITICAL, "sagas.execution")
    for error in AWKWARD:

        def resolve(step: type[Step[Any]], error: Exception = error) -> Step[Any]:
            raise error

        report = QuickEngine(storage, resolver=resolve).run(stage.saga("hotel"), Trip())

        last_error = storage.load(report.saga_id).last_error or ""
        assert report.outcome == "failed"
        assert last_error.startswith(f"{type(error).__name__}: ")
        assert len(last_error) <= 2100


# -- code that does not fit ---------------------------------------------------------------------------------------


@dataclass
class StricterTrip:
    booked: list[str]
    note: int


def waiting_saga(stage: Stage, engine: QuickEngine, clock: Clock) -> UUID:
    """A saga that booked a hotel and is due for its second attempt at the car, after one failed attempt in all."""
    policy = RetryPolicy(max_attempts=3, first_delay=60)
    saga = stage.saga(stage.step("hotel", [book]), stage.step("car", [FULL, book], retry=policy))
    saga_id = engine.run(saga, Trip()).saga_id
    engine.storage.set_recovery_attempts(saga_id, 1)
    clock.forward(60)
    return saga_id


@pytest.mark.parametrize(
    ("other_code", "reason"),
    [
        (None, "no saga named 'trip' is known here (known: none)"),
        (lambda: Stage().saga("hotel"), "step 'car', which this saga was started with, is none of those of Made"),
        (lambda: Stage().saga("hotel", "boat"), "none of those of Made (hotel, boat), so it was removed, or renamed"),
        (
            lambda: saga_of([Stage().step("hotel"), Stage().step("car")], context=StricterTrip),
            "its context does not validate as StricterTrip (note: Input should be a valid integer)",
        ),
    ],
    ids=["unknown saga", "removed step", "renamed step", "context"],
)
def test_code_that_does_not_fit_declines_and_the_saga_resumes_where_code_fits(
    stage: Stage, engine: QuickEngine, clock: Clock, other_code: Any, reason: str
) -> None:
    saga_id = waiting_saga(stage, engine, clock)
    before, seen = engine.stored(), list(stage.seen)
    other = QuickEngine(engine.storage, sagas=[other_code()] if other_code else [])

    report = other.recover(saga_id)

    assert (report.outcome, report.status) == ("declined", SagaStatus.RUNNING)
    assert reason in report.message
    after = engine.stored()
    assert (after.status, after.recovery_attempts) == (before.status, 1)
    assert (after.context, after.log[:-1], after.lease_owner) == (before.context, before.log, None)
    assert (after.log[-1].status, reason in (after.log[-1].message or "")) == ("declined", True)
    assert after.last_error
    assert after.last_error.startswith("declined: ")
    assert reason in after.last_error
    assert stage.seen == seen

    wait = backoff(engine, clock)
    assert 5 <= wait <= 60
    assert engine.recover(saga_id).outcome == "skipped"
    clock.forward(wait)
    assert engine.recover(saga_id).outcome == "completed"
    assert stage.attempts("act car") == [1, 2]


def test_saga_that_no_code_fits_is_left_alone_longer_and_longer_up_to_a_minute(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga_id = waiting_saga(stage, engine, clock)
    other = QuickEngine(engine.storage)
    clock.forward(-57)  # to three seconds after the last row of its log
    waits = []
    for _ in range(6):
        assert other.recover(saga_id, by_hand=True).outcome == "declined"
        waits.append(backoff(engine, clock))
        clock.forward(waits[-1])

    assert waits == [5, 8, 16, 32, 60, 60]
    assert engine.stored().recovery_attempts == 1


@pytest.mark.parametrize("status", [SagaStatus.PENDING, SagaStatus.FAILED])
def test_declined_saga_keeps_the_status_it_had(
    stage: Stage, engine: QuickEngine, clock: Clock, status: SagaStatus
) -> None:
    if status is SagaStatus.PENDING:
        engine.start(stage.saga("hotel"), Trip())
    else:
        engine.run(stage.saga(stage.step("hotel", undo=[FULL]), stage.step("car", [ValueError()])), Trip())
        clock.forward(10)

    QuickEngine(engine.storage).recover(engine.stored().id)

    assert engine.stored().status is status


def test_declining_keeps_the_doubt_that_a_crash_left(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga_id = engine.start(stage.saga(stage.step("hotel", [FULL])), Trip())
    request = LeaseRequest(owner="dead", seconds=30)
    assert isinstance(engine.storage.acquire(saga_id, request, max_recovery_attempts=3), Acquired)
    clock.forward(31)
    QuickEngine(engine.storage).recover(saga_id)
    clock.forward(60)

    engine.recover(saga_id)

    assert stage.seen == ["act hotel", "compensate hotel"]


# -- polling ------------------------------------------------------------------------------------------------------


def test_retries_that_the_policy_expects_are_no_warnings_and_their_rows_are_small(
    stage: Stage, engine: QuickEngine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sagas.execution")
    not_yet = [LookupError("not yet")] * 20
    policy = RetryPolicy(max_attempts=22, first_delay=60, factor=1)
    saga = stage.saga(stage.step("parcel", [*not_yet, LookupError("lost it"), ValueError("never")], retry=policy))
    saga_id = engine.run(saga, Trip()).saga_id
    while not engine.stored().status.finished:
        clock.forward(60)
        engine.recover(saga_id)

    retries, final = engine.stored().log[:21], engine.stored().log[21]
    assert [row.message for row in retries] == ["not yet"] * 20 + ["lost it"]
    assert [row.attempt for row in retries] == list(range(1, 22))
    assert [bool(row.traceback) for row in retries] == [True] + [False] * 19 + [True]
    assert final.traceback
    assert [record.levelname for record in caplog.records if "failed, retry" in record.getMessage()] == ["INFO"] * 21
    (warning,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert "parcel, act, attempt 22 failed, abort: ValueError: never" in warning.getMessage()


def test_a_saga_that_is_dead_is_an_error_in_the_log(
    stage: Stage, engine: QuickEngine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    saga = stage.saga(stage.step("hotel", undo=always(FULL)), stage.step("car", [ValueError()]))
    saga_id = engine.run(saga, Trip()).saga_id
    for _ in range(2):
        clock.forward(100)
        engine.recover(saga_id)

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "dead: failed attempt 3 of 3" in errors[0]


@pytest.mark.parametrize(
    ("scan_interval", "delay", "outcome"), [(5, 5, "completed"), (5, 6, "waiting"), (30, 6, "completed")]
)
def test_wait_that_scans_would_stretch_to_twice_its_length_is_made_in_place(
    stage: Stage, clock: Clock, scan_interval: float, delay: float, outcome: str
) -> None:
    settings = SETTINGS.model_copy(update={"scan_interval_seconds": scan_interval})
    engine = QuickEngine(MemorySagaStorage(clock), settings=settings)
    policy = RetryPolicy(max_attempts=2, first_delay=delay)

    assert engine.run(stage.saga(stage.step("hotel", [FULL], retry=policy)), Trip()).outcome == outcome


# -- errors around a run ------------------------------------------------------------------------------------------


class Broken(Observer):
    """An observer that raises, against its promise."""

    def running(self, acquired: Acquired) -> Any:
        raise RuntimeError("no span")


def test_saga_is_given_back_when_what_runs_it_fails(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="no span"):
        QuickEngine(engine.storage, observer=Broken()).run(stage.saga("hotel"), Trip())

    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.lease_owner) == (SagaStatus.FAILED, 1, None)
    assert stored.last_error == "RuntimeError: no span"
    assert backoff(engine, clock) == 10


def test_saga_is_given_back_when_looking_its_code_up_fails(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())
    engine.registry.fitting = lambda *_: 1 / 0  # type: ignore[assignment,return-value,method-assign]

    with pytest.raises(ZeroDivisionError):
        engine.recover(saga_id)

    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.lease_owner) == (SagaStatus.FAILED, 1, None)
