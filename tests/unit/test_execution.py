"""Sagas run forward and backward, step by step; contexts, attempts and checkpoints have modules of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from sagas import Call, MemorySagaStorage, OutcomeUnknown, RetryPolicy, Saga, SagaStatus, Step
from sagas.progress import EntryStatus
from sagas.storage.leases import LeaseRequest
from tests.samples import Clock, Outcome, QuickEngine, Stage, Trip, always, book

FULL = ConnectionError("fully booked")


@pytest.fixture
def engine(clock: Clock) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock))


def logged(engine: QuickEngine) -> list[str]:
    """The log of the only saga, such as ["act hotel #1 completed"]."""
    return [f"{e.action} {e.step} #{e.attempt} {e.verdict or e.status}" for e in engine.stored().log]


# -- forward and backward -----------------------------------------------------------------------------------------


def test_steps_act_in_order_and_the_saga_completes(stage: Stage, engine: QuickEngine) -> None:
    report = engine.run(stage.saga("hotel", "car", "plane"), Trip())

    assert stage.seen == ["act hotel", "act car", "act plane"]
    assert (report.outcome, report.status) == ("completed", SagaStatus.COMPLETED)
    assert report.events == ("hotel: acted", "car: acted", "plane: acted")
    stored = engine.stored()
    assert (stored.status, stored.lease_owner, stored.last_error) == (SagaStatus.COMPLETED, None, None)
    assert stored.finished_at


def test_failure_undoes_the_finished_steps_in_reverse(stage: Stage, engine: QuickEngine) -> None:
    saga = stage.saga("hotel", "car", stage.step("plane", [FULL]), "mail")

    report = engine.run(saga, Trip())

    assert stage.seen == ["act hotel", "act car", "act plane", "compensate car", "compensate hotel"]
    assert (report.outcome, report.status) == ("compensated", SagaStatus.COMPENSATED)
    assert report.events[2] == "plane: act failed (ConnectionError), abort"
    assert logged(engine)[2:] == [
        "act plane #1 abort",
        "compensate car #1 completed",
        "compensate hotel #1 completed",
    ]


def test_reason_for_turning_back_is_kept(stage: Stage, engine: QuickEngine) -> None:
    engine.run(stage.saga("hotel", stage.step("plane", [FULL])), Trip())

    stored = engine.stored()
    failure = stored.log[1]
    assert stored.last_error == "plane, act, attempt 1: ConnectionError: fully booked"
    assert (failure.error_type, failure.message, failure.in_doubt) == ("ConnectionError", "fully booked", False)
    assert failure.traceback
    assert "in perform" in failure.traceback


def test_saga_whose_first_step_fails_has_nothing_to_undo(stage: Stage, engine: QuickEngine) -> None:
    report = engine.run(stage.saga(stage.step("hotel", [FULL]), "car"), Trip())

    assert stage.seen == ["act hotel"]
    assert report.outcome == "compensated"


def test_clean_rollback_is_no_failed_attempt_and_never_recovered(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    engine.run(stage.saga("hotel", stage.step("plane", [FULL])), Trip())
    clock.forward(1e6)

    assert engine.stored().recovery_attempts == 0
    assert engine.storage.get_sagas_for_recovery(10) == []
    assert engine.recover(engine.stored().id, by_hand=True).outcome == "skipped"


def test_async_steps_run_like_sync_ones(stage: Stage, engine: QuickEngine) -> None:
    async def booked(context: Trip, call: Call) -> None:
        await asyncio.sleep(0)
        book(context, call)

    async def full(context: Trip, call: Call) -> None:
        await asyncio.sleep(0)
        raise FULL

    report = engine.run(stage.saga(stage.step("hotel", [booked]), stage.step("car", [full])), Trip())

    assert stage.seen == ["act hotel", "act car", "compensate hotel"]
    assert report.outcome == "compensated"


# -- retries ------------------------------------------------------------------------------------------------------


def test_short_waits_happen_in_place(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0.5, factor=2)

    report = engine.run(stage.saga(stage.step("hotel", [FULL, FULL], retry=policy)), Trip())

    assert report.outcome == "completed"
    assert stage.attempts("act hotel") == [1, 2, 3]
    assert sum(engine.slept) == pytest.approx(0.5 + 1.0)
    assert logged(engine) == ["act hotel #1 retry", "act hotel #2 retry", "act hotel #3 completed"]


def test_long_wait_puts_the_saga_down_until_it_is_due(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    policy = RetryPolicy(max_attempts=2, first_delay=60)
    saga = stage.saga("hotel", stage.step("car", [FULL], retry=policy))

    report = engine.run(saga, Trip())

    assert (report.outcome, report.status) == ("waiting", SagaStatus.RUNNING)
    assert report.message == "car is tried again in 60 s."
    assert engine.slept == []
    stored = engine.stored()
    assert (stored.lease_owner, stored.recovery_attempts) == (None, 0)
    assert stored.available_at
    assert (stored.available_at - clock.now).total_seconds() == 60

    clock.forward(59)
    assert engine.storage.get_sagas_for_recovery(10) == []
    assert engine.recover(stored.id).outcome == "skipped"

    clock.forward(1)
    assert engine.storage.get_sagas_for_recovery(10) == [stored.id]
    assert engine.recover(stored.id).outcome == "completed"
    assert stage.attempts("act car") == [1, 2]
    assert stage.attempts("act hotel") == [1]


def test_attempts_that_are_spent_turn_the_saga_back(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0)

    engine.run(stage.saga("hotel", stage.step("car", always(FULL), retry=policy)), Trip())

    assert stage.attempts("act car") == [1, 2, 3]
    assert logged(engine)[1:4] == ["act car #1 retry", "act car #2 retry", "act car #3 abort"]


def test_error_that_the_policy_does_not_name_is_not_retried(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0, retry_on=(ConnectionError,))
    steps = [stage.step("hotel", [FULL], retry=policy), stage.step("car", [FULL, ValueError("no")], retry=policy)]

    engine.run(stage.saga(*steps), Trip())

    assert stage.attempts("act hotel") == [1, 2]
    assert stage.attempts("act car") == [1, 2]


def test_compensation_is_retried_like_an_act(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0)
    saga = stage.saga(stage.step("hotel", undo=[FULL, FULL], retry=policy), stage.step("car", [ValueError()]))

    assert engine.run(saga, Trip()).outcome == "compensated"
    assert stage.attempts("compensate hotel") == [1, 2, 3]


class Outage:
    """A bank that is away, for as long as a test says."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, _context: Trip, _call: Call) -> None:
        if not self.over:
            raise FULL


@pytest.mark.parametrize("hours", [0.05, 2, 6])
@pytest.mark.parametrize("past_pivot", [False, True], ids=["a compensation", "past the pivot"])
def test_an_outage_of_hours_is_survived_by_default(
    stage: Stage, engine: QuickEngine, clock: Clock, hours: float, past_pivot: bool
) -> None:
    outage = Outage()

    class Book(Step[Trip]):
        def act(self, context: Trip, call: Call) -> None:
            if past_pivot:
                outage(context, call)

    class Undo(Book):
        def compensate(self, context: Trip, call: Call) -> None:
            outage(context, call)

    first = stage.step("hotel", pivot=past_pivot)
    steps = [first, Book] if past_pivot else [first, Undo, stage.step("car", [FULL])]
    saga_id = engine.start(stage.saga(*steps), Trip())
    began = clock.now

    while not (report := engine.recover(saga_id)).status.finished:
        assert (report.outcome, engine.stored().recovery_attempts) == ("waiting", 0)
        waits_until = engine.stored().available_at
        assert waits_until
        assert 0 < (waits_until - clock.now).total_seconds() <= 600
        clock.now = waits_until
        outage.over = clock.now - began > timedelta(hours=hours)

    assert report.outcome == ("completed" if past_pivot else "compensated")
    assert engine.slept == []
    assert clock.now - began < timedelta(hours=hours, seconds=601)


def test_a_compensation_has_a_policy_of_its_own(stage: Stage, engine: QuickEngine) -> None:
    own = RetryPolicy(max_attempts=3, first_delay=0.5, retry_on=(ConnectionError,))
    hotel = stage.step("hotel", undo=[FULL, FULL, ValueError()], compensate_retry=own)

    report = engine.run(stage.saga(hotel, stage.step("car", [ConnectionError()])), Trip())

    assert (report.outcome, engine.stored().recovery_attempts) == ("failed", 1)
    assert stage.attempts("act car") == [1]
    assert logged(engine)[2:] == [
        "compensate hotel #1 retry",
        "compensate hotel #2 retry",
        "compensate hotel #3 fail the attempt",
    ]
    assert sum(engine.slept) == pytest.approx(0.5 + 1.0)


def test_earlier_steps_are_undone_while_one_compensation_keeps_failing(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=60)
    car = stage.step("car", undo=[FULL] * 4, compensate_retry=policy)
    saga = stage.saga("hotel", car, stage.step("plane", [FULL]), compensate_past_failures=True)

    report = engine.run(saga, Trip())

    assert stage.seen[3:] == ["compensate car", "compensate hotel"]
    assert (report.outcome, report.message) == ("waiting", "car is tried again in 60 s.")
    clock.forward(60)
    assert engine.recover(report.saga_id).outcome == "waiting"
    clock.forward(60)
    assert engine.recover(report.saga_id).outcome == "failed"
    assert engine.stored().status is SagaStatus.FAILED
    clock.forward(60)
    assert engine.recover(report.saga_id).outcome == "waiting"
    clock.forward(60)
    assert engine.recover(report.saga_id).outcome == "compensated"
    assert logged(engine)[3:] == [
        "compensate car #1 retry",
        "compensate hotel #1 completed",
        "compensate car #2 retry",
        "compensate car #3 fail the attempt",
        "compensate car #4 retry",
        "compensate car #5 completed",
    ]


def test_a_saga_whose_compensation_always_fails_is_dead_with_all_others_undone(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    steps = ["hotel", stage.step("car", undo=always(FULL)), "plane", stage.step("mail", [FULL])]
    saga_id = engine.run(stage.saga(*steps, compensate_past_failures=True), Trip()).saga_id
    for _ in range(5):
        clock.forward(100)
        engine.recover(saga_id)

    assert engine.stored().dead
    assert logged(engine)[4:] == [
        "compensate plane #1 completed",
        "compensate car #1 set aside",
        "compensate hotel #1 completed",
        "compensate car #2 fail the attempt",
        "compensate car #3 fail the attempt",
        "compensate car #4 fail the attempt",
    ]


def test_all_compensations_that_fail_wait_together(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0.5)
    steps = [stage.step(name, undo=[FULL, FULL], compensate_retry=policy) for name in ("hotel", "car")]

    report = engine.run(stage.saga(*steps, stage.step("mail", [FULL]), compensate_past_failures=True), Trip())

    assert report.outcome == "compensated"
    assert stage.seen[3:] == ["compensate car", "compensate hotel"] * 3
    assert sum(engine.slept) == pytest.approx(0.5 + 1.0)


def test_compensate_is_told_the_key_that_act_had(stage: Stage, engine: QuickEngine) -> None:
    asked: list[str] = []
    car = stage.step("car", [OutcomeUnknown()], undo=[lambda _, call: asked.append(call.act_idempotency_key)])

    engine.run(stage.saga(car), Trip())

    (_, act), (_, compensate) = stage.calls
    assert asked == [act.idempotency_key] == [act.act_idempotency_key]
    assert compensate.idempotency_key != act.idempotency_key


def test_every_attempt_at_an_action_carries_the_same_key(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=3, factor=10)
    saga = stage.saga(stage.step("hotel", [FULL, FULL], undo=[FULL], retry=policy), stage.step("car", [ValueError()]))

    saga_id = engine.run(saga, Trip()).saga_id
    clock.forward(60)
    engine.recover(saga_id)

    assert [call.idempotency_key for _, call in stage.calls] == [
        *[f"{saga_id}:hotel:act"] * 3,
        f"{saga_id}:car:act",
        *[f"{saga_id}:hotel:compensate"] * 2,
    ]
    assert {call.saga_id for _, call in stage.calls} == {saga_id}


# -- in doubt -----------------------------------------------------------------------------------------------------


async def never_ends(context: Trip, call: Call) -> None:
    await asyncio.Event().wait()


class Interrupted(Exception):
    """Raised into a step from outside."""


@pytest.mark.parametrize(
    ("outcome", "timeout"),
    [
        (OutcomeUnknown("no answer"), None),
        (asyncio.CancelledError(), None),
        (Interrupted(), None),
        (never_ends, 0.05),
    ],
)
def test_step_that_may_have_taken_effect_is_undone_too(stage: Stage, outcome: Outcome, timeout: float | None) -> None:
    engine = QuickEngine(MemorySagaStorage(), in_doubt_on=(Interrupted,))
    saga = stage.saga("hotel", stage.step("car", [outcome], timeout=timeout))

    assert engine.run(saga, Trip()).outcome == "compensated"

    assert stage.seen == ["act hotel", "act car", "compensate car", "compensate hotel"]
    assert engine.stored().log[1].in_doubt


def test_step_that_failed_cleanly_is_not_undone(stage: Stage, engine: QuickEngine) -> None:
    engine.run(stage.saga("hotel", stage.step("car", [TimeoutError("the step's own")], timeout=20)), Trip())

    assert stage.seen == ["act hotel", "act car", "compensate hotel"]


def test_step_whose_holder_was_cut_off_is_in_doubt_even_if_it_then_fails_cleanly(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    def cut_off(context: Trip, call: Call) -> None:
        raise SystemExit

    saga = stage.saga("hotel", stage.step("car", [cut_off, FULL]))
    with pytest.raises(SystemExit):
        engine.run(saga, Trip())
    clock.forward(100)

    assert engine.recover(engine.stored().id).outcome == "compensated"
    assert stage.seen == ["act hotel", "act car", "act car", "compensate car", "compensate hotel"]


def test_step_that_completed_after_a_crash_leaves_no_doubt_on_the_next(stage: Stage, clock: Clock) -> None:
    engine = QuickEngine(MemorySagaStorage(clock))
    saga = stage.saga("hotel", stage.step("car", [FULL]))
    saga_id = engine.start(saga, Trip())
    engine.storage.acquire(saga_id, LeaseRequest(owner="dead", seconds=30), max_recovery_attempts=3)
    clock.forward(31)

    engine.recover(saga_id)

    assert stage.seen == ["act hotel", "act car", "compensate hotel"]


# -- the pivot ----------------------------------------------------------------------------------------------------


def test_failure_after_the_pivot_is_retried_for_ever_and_never_undone(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    mail = stage.step("mail", [FULL, FULL], undo=None)
    saga = stage.saga("hotel", stage.step("pay", pivot=True), mail)

    report = engine.run(saga, Trip())

    assert (report.outcome, report.status) == ("failed", SagaStatus.FAILED)
    assert logged(engine)[2] == "act mail #1 fail the attempt"
    clock.forward(10)
    assert engine.recover(report.saga_id).outcome == "failed"
    clock.forward(20)
    assert engine.recover(report.saga_id).outcome == "completed"
    assert stage.attempts("act mail") == [1, 2, 3]
    assert not [seen for seen in stage.seen if seen.startswith("compensate")]


def test_pivot_that_fails_turns_the_saga_back(stage: Stage, engine: QuickEngine) -> None:
    saga = stage.saga("hotel", stage.step("pay", [FULL], pivot=True), stage.step("mail", undo=None))

    assert engine.run(saga, Trip()).outcome == "compensated"
    assert stage.seen == ["act hotel", "act pay", "compensate hotel"]


# -- the steps' instances -----------------------------------------------------------------------------------------


def test_steps_come_from_the_resolver_once_for_each_run(clock: Clock) -> None:
    @dataclass
    class Client:
        used: int = 0

    client, built = Client(), []

    class Hotel(Step[Trip]):
        retry = RetryPolicy(max_attempts=3, first_delay=0)

        def __init__(self, client: Client) -> None:
            self.client = client

        def act(self, context: Trip, call: Call) -> None:
            self.client.used += 1
            if call.attempt < 3:
                raise FULL

        def compensate(self, context: Trip, call: Call) -> None:
            self.client.used += 1

    class Car(Hotel):
        def act(self, context: Trip, call: Call) -> None:
            raise ValueError

    class Travel(Saga[Trip]):
        steps = (Hotel, Car)

    def resolve(step: type[Step[Any]]) -> Step[Any]:
        built.append(step)
        return step(client)  # type: ignore[call-arg]

    engine = QuickEngine(MemorySagaStorage(clock), resolver=resolve)
    engine.run(Travel, Trip())

    assert built == [Hotel, Car]
    assert client.used == 4


def test_log_tells_attempt_and_holder_of_every_action(stage: Stage, engine: QuickEngine) -> None:
    engine.run(stage.saga("hotel"), Trip())

    (entry,) = engine.stored().log
    assert (entry.status, entry.attempt, entry.version, entry.verdict) == (EntryStatus.COMPLETED, 1, 1, None)
    assert entry.worker == engine.runtime().owner
