"""Sagas and time: starts in the future, deadlines before and past the pivot, and what they do to retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sagas import Call, MemorySagaStorage, RetryPolicy
from sagas.progress import Action, Verdict
from sagas.storage.records import SagaState
from tests.samples import Clock, FakeDispatcher, QuickEngine, Stage, Trip, always
from tests.unit.test_waits import CoolingOff, Courier, OptionalCourier, PatientCourier, wake

HOUR = timedelta(hours=1)
SLOWLY = RetryPolicy(max_attempts=9, first_delay=1800, max_delay=1800)
AWAY = ConnectionError("away")


@pytest.fixture
def engine(clock: Clock) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock), dispatcher=FakeDispatcher())


# -- starts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at",
    [
        HOUR,
        datetime(2031, 5, 1, 1, tzinfo=UTC),
        datetime(2031, 5, 1, 3, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_a_saga_starts_at_the_time_that_it_was_given(
    stage: Stage, engine: QuickEngine, clock: Clock, at: datetime | timedelta
) -> None:
    engine.start(stage.saga("hotel"), Trip(), at=at)

    assert engine.stored().available_at == clock.now + HOUR
    clock.forward(3599)
    assert wake(engine) == "not sent"
    clock.forward(1)
    assert wake(engine) == "completed"


def test_a_start_in_the_past_is_due_at_once(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.start(stage.saga("hotel"), Trip(), at=clock.now - HOUR)

    assert wake(engine) == "completed"


@pytest.mark.parametrize("at", [datetime(2031, 5, 1), timedelta(seconds=-1), 3600, "2031-05-01T00:00:00Z"])
def test_a_time_without_a_zone_and_other_values_are_refused(stage: Stage, engine: QuickEngine, at: Any) -> None:
    with pytest.raises(ValueError, match=r"give a datetime with a time zone, as .* or a timedelta"):
        engine.start(stage.saga("hotel"), Trip(), at=at)
    assert engine.storage.get_sagas_for_recovery(10) == []


def test_a_second_start_with_the_same_key_keeps_the_first_time(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga = stage.saga("hotel")
    ids = {engine.start(saga, Trip(), idempotency_key="trip-1", at=n * HOUR) for n in (1, 2)}

    assert len(ids) == 1
    assert engine.stored().available_at == clock.now + HOUR


def test_many_sagas_may_start_later_together(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    ids = engine.start_many(stage.saga("hotel"), [Trip(), Trip()], at=HOUR, tags={"batch": "7"})

    records = [engine.storage.load(saga_id) for saga_id in ids]
    assert {record.available_at for record in records} == {clock.now + HOUR}
    assert [record.tags for record in records] == [{"batch": "7"}] * 2


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, ["a"], {"a": "\0"}])
def test_tags_that_are_no_texts_are_refused(stage: Stage, engine: QuickEngine, tags: Any) -> None:
    with pytest.raises(ValueError, match=r"tag"):
        engine.start(stage.saga("hotel"), Trip(), tags=tags)


# -- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [Courier, PatientCourier])
def test_a_deadline_aborts_a_saga_that_waits(
    stage: Stage, engine: QuickEngine, clock: Clock, wait: type[Courier]
) -> None:
    engine.run(stage.saga("hotel", wait, deadline=HOUR), Trip())
    assert engine.stored().available_at == clock.now + HOUR
    clock.forward(3600)

    assert wake(engine) == "compensated"

    entry = engine.stored().log[2]
    assert (entry.step, entry.action, entry.verdict) == ("deadline", Action.OPERATOR, Verdict.ABORT)
    assert entry.message == "the deadline was 2031-05-01 01:00:00 UTC"
    assert stage.seen == ["act hotel", "compensate hotel"]


def test_a_deadline_aborts_a_saga_that_backs_off(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    flaky = stage.step("car", always(AWAY), retry=RetryPolicy(max_attempts=9, first_delay=7200, max_delay=7200))
    engine.run(stage.saga("hotel", flaky, deadline=HOUR), Trip())
    clock.forward(3600)

    assert wake(engine) == "compensated"

    assert stage.seen == ["act hotel", "act car", "compensate hotel"]


def test_a_deadline_that_passes_during_a_step_aborts_after_it(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    late = stage.step("hotel", [lambda *_: clock.forward(3600)])

    assert engine.run(stage.saga(late, "car", deadline=HOUR), Trip()).outcome == "compensated"

    assert stage.seen == ["act hotel", "compensate hotel"]


def test_a_saga_that_ends_in_time_never_hears_of_its_deadline(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    assert engine.run(stage.saga("hotel", deadline=HOUR), Trip()).outcome == "completed"


def test_a_saga_that_starts_after_its_deadline_is_aborted_before_its_first_step(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    engine.start(stage.saga("hotel", deadline=HOUR), Trip())
    clock.forward(3600)

    assert wake(engine) == "compensated"
    assert stage.seen == []


def test_the_deadline_counts_from_the_start_that_was_asked_for(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.start(stage.saga("hotel", deadline=HOUR), Trip(), at=HOUR)

    assert engine.stored().deadline_at == clock.now + 2 * HOUR


def test_past_the_pivot_a_deadline_is_logged_once_and_the_saga_goes_on(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga = stage.saga(stage.step("pay", pivot=True), OptionalCourier, CoolingOff, deadline=HOUR)
    engine.run(saga, Trip())
    clock.forward(3600)

    assert wake(engine) == "waiting"

    late = [entry for entry in engine.stored().log if entry.step == "deadline"]
    assert [entry.verdict for entry in late] == [None]
    assert engine.stored().available_at == clock.now + timedelta(days=2) - HOUR
    clock.forward(2 * 86_400)
    assert wake(engine) == "waiting"
    clock.forward(3600)
    assert wake(engine) == "completed"
    assert sum(entry.step == "deadline" for entry in engine.stored().log) == 1


def test_past_the_pivot_a_deadline_makes_no_retry_early(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    flaky = stage.step("mail", always(AWAY), undo=None, retry=SLOWLY)
    saga = stage.saga(stage.step("pay", pivot=True), flaky, deadline=timedelta(minutes=45))
    engine.run(saga, Trip())

    attempts = []
    for _ in range(4):
        clock.forward(1800)
        wake(engine)
        attempts.append(len(stage.attempts("act mail")))

    assert attempts == [2, 3, 4, 5]


def test_after_a_deadline_has_aborted_compensations_wait_for_their_retries(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    stubborn = stage.step("hotel", undo=[AWAY] * 3, compensate_retry=SLOWLY)
    engine.run(stage.saga(stubborn, Courier, deadline=HOUR), Trip())
    clock.forward(3600)
    assert wake(engine) == "waiting"
    assert len(stage.attempts("compensate hotel")) == 1

    assert engine.stored().available_at == clock.now + timedelta(seconds=1800)
    for _ in range(3):
        clock.forward(1800)
        wake(engine)
    assert len(stage.attempts("compensate hotel")) == 4


def test_a_step_named_deadline_is_not_taken_for_one(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.run(stage.saga("deadline", Courier, deadline=HOUR), Trip())
    clock.forward(3600)

    assert wake(engine) == "compensated"


def test_a_deadline_does_not_wake_a_failed_attempt_early(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    """A saga whose attempt failed keeps its backoff; it is aborted when it runs next."""

    def resolve(_: object) -> None:
        raise RuntimeError("the step cannot be built")

    saga = stage.saga(stage.step("hotel", undo=None), deadline=timedelta(seconds=5))
    broken = QuickEngine(engine.storage, dispatcher=engine.dispatcher, resolver=resolve)
    broken.run(saga, Trip())
    assert engine.stored().state is SagaState.READY
    clock.forward(10)

    assert wake(broken) == "compensated"


def test_a_signal_that_was_delivered_beats_nothing_past_the_deadline(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    """The deadline is for the saga as a whole: it aborts also a saga that could go on."""
    saga_id = engine.run(stage.saga("hotel", Courier, "car", deadline=HOUR), Trip()).saga_id
    clock.forward(3601)
    engine.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "compensated"


def test_a_deadline_and_a_request_that_is_not_read_yet_abort_once(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    def late(_: Trip, call: Call) -> None:
        clock.forward(3600)
        engine.cancel(call.saga_id, "changed their mind")

    engine.run(stage.saga(stage.step("hotel", [late]), "car", deadline=HOUR), Trip())

    aborts = [entry.step for entry in engine.stored().log if entry.verdict is Verdict.ABORT]
    assert aborts == ["cancel"]
