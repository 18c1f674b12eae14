"""What becomes of a checkpoint when the database, the lease or the process is about to go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sagas import Call, MemorySagaStorage, PostgresSagaStorage, RetryPolicy, SagaStatus
from sagas.errors import StorageUnavailable
from sagas.storage.answers import Acquired, Applied
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import Claim, SagaState
from sagas.storage.transitions import Transition
from tests.samples import DEADLINE_SECONDS, Clock, FakeDispatcher, FlakyStorage, QuickEngine, Stage, Trip, book

FULL = ConnectionError("fully booked")


@pytest.fixture
def storage(clock: Clock) -> FlakyStorage:
    return FlakyStorage(clock)


@pytest.fixture
def engine(storage: FlakyStorage) -> QuickEngine:
    return QuickEngine(storage)


# -- the database goes away ---------------------------------------------------------------------------------------

BEFORE, AFTER = ("apply", "before"), ("apply", "after")
LOAD_BEFORE = ("load", "before")


@pytest.mark.parametrize(
    "failures",
    [[BEFORE], [AFTER], [BEFORE, BEFORE], [BEFORE, AFTER], [AFTER, LOAD_BEFORE], [BEFORE, LOAD_BEFORE, LOAD_BEFORE]],
    ids=lambda failures: ", ".join(" ".join(failure) for failure in failures),
)
@pytest.mark.parametrize("nth", [1, 3, 4, 5], ids=["act", "failure", "compensation", "end"])
def test_checkpoint_is_neither_lost_nor_doubled_when_the_database_goes_away(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, failures: list[tuple[str, str]], nth: int
) -> None:
    def fail_the_nth(context: Trip, call: Call) -> None:
        if len(stage.calls) == nth:
            storage.failures += failures
        if call.step_name == "plane":
            raise FULL

    acts = [fail_the_nth]
    steps = [stage.step(name, acts, undo=acts) for name in ("hotel", "car", "plane")]

    report = engine.run(stage.saga(*steps), Trip())

    assert report.outcome == "compensated"
    assert stage.seen == ["act hotel", "act car", "act plane", "compensate car", "compensate hotel"]
    assert [(e.step, e.action, e.status) for e in engine.stored().log] == [
        ("hotel", "act", "completed"),
        ("car", "act", "completed"),
        ("plane", "act", "failed"),
        ("car", "compensate", "completed"),
        ("hotel", "compensate", "completed"),
    ]
    assert storage.failures == []


@pytest.mark.parametrize("failure", [BEFORE, AFTER])
def test_saga_is_put_down_to_wait_once_though_the_database_goes_away_meanwhile(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, failure: tuple[str, str]
) -> None:
    def fail(context: Trip, call: Call) -> None:
        storage.failures.append(failure)
        raise FULL

    report = engine.run(stage.saga(stage.step("hotel", [fail], retry=RetryPolicy(first_delay=60))), Trip())

    assert report.outcome == "waiting"
    assert engine.stored().lease_owner is None
    assert len(engine.stored().log) == 1


@pytest.mark.parametrize("failure", [BEFORE, AFTER])
def test_failed_attempt_is_counted_once_though_the_database_goes_away_meanwhile(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, failure: tuple[str, str]
) -> None:
    def fail(context: Trip, call: Call) -> None:
        storage.failures.append(failure)
        raise FULL

    report = engine.run(stage.saga(stage.step("hotel", undo=[fail]), stage.step("car", [FULL])), Trip())

    assert report.outcome == "failed"
    assert (engine.stored().lease_owner, engine.stored().recovery_attempts) == (None, 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_saga_with_a_yield_request_is_given_back_although_the_database_goes_away(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, clock: Clock, when: str
) -> None:
    def request_yield(context: Trip, call: Call) -> None:
        (kept,) = engine._keeper._leases
        kept.yield_requested = True
        storage.failures += [("release", when), ("load", "before")]

    report = engine.run(stage.saga(stage.step("hotel", [request_yield]), "car"), Trip())

    record = engine.stored()
    assert (report.outcome, stage.seen) == ("handed over", ["act hotel"])
    assert (record.state, record.lease_owner, record.recovery_attempts) == (SagaState.READY, None, 0)
    clock.forward(60)
    assert engine.recover(record.id).outcome == "completed"


def test_database_that_is_away_is_asked_again_at_growing_intervals(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage
) -> None:
    def cut(context: Trip, call: Call) -> None:
        storage.failures += [BEFORE, *[LOAD_BEFORE] * 6]

    engine.run(stage.saga(stage.step("hotel", [cut])), Trip())

    assert engine.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_worker_that_stops_does_not_wait_for_the_database(stage: Stage, storage: FlakyStorage) -> None:
    stopping = threading.Event()

    def cut(context: Trip, call: Call) -> None:
        storage.failures.append(BEFORE)
        stopping.set()

    engine = QuickEngine(storage, stopping=stopping.is_set)

    with pytest.raises(StorageUnavailable):
        engine.run(stage.saga(stage.step("hotel", [cut])), Trip())

    stored = engine.stored()
    assert (stored.status, stored.lease_owner) == (SagaStatus.RUNNING, engine.runtime().owner)


def test_worker_does_nothing_more_after_losing_its_saga_while_the_database_was_away(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, clock: Clock
) -> None:
    def cut(context: Trip, call: Call) -> None:
        storage.failures.append(AFTER)

    def taken_over() -> None:
        clock.forward(31)
        acquire(storage, engine.stored().id)

    engine.on_sleep = taken_over
    report = engine.run(stage.saga(stage.step("hotel", [cut]), "car"), Trip())

    assert report.outcome == "lost"
    assert stage.seen == ["act hotel"]
    assert [entry.step for entry in engine.stored().log] == ["hotel", "holder"]


# -- the lease goes away ------------------------------------------------------------------------------------------


def acquire(storage: MemorySagaStorage | PostgresSagaStorage, saga_id: Any) -> Lease:
    """Another worker acquires the saga."""
    acquired = storage.acquire(saga_id, LeaseRequest(owner="another", seconds=30), max_recovery_attempts=3)
    assert isinstance(acquired, Acquired)
    return acquired.lease


def lapse(storage: MemorySagaStorage, clock: Clock, saga_id: Any) -> None:
    clock.forward(31)
    acquire(storage, saga_id)


@pytest.mark.parametrize("failing", [False, True])
def test_outcome_of_a_worker_that_was_replaced_is_not_kept(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, clock: Clock, failing: bool
) -> None:
    def slow(context: Trip, call: Call) -> None:
        context.booked.append("lost")
        lapse(storage, clock, call.saga_id)
        if failing:
            raise FULL

    report = engine.run(stage.saga(stage.step("hotel", [slow]), "car"), Trip())

    assert report.outcome == "lost"
    assert "another worker may have it by now, so nothing was written" in report.message
    stored = engine.stored()
    assert (stored.lease_owner, stored.version) == ("another", 2)
    assert [entry.status for entry in stored.log] == ["lost"]
    assert "lost" not in stored.context
    assert stage.seen == ["act hotel"]


def test_failed_attempt_of_a_worker_that_was_replaced_is_not_counted(
    stage: Stage, storage: FlakyStorage, clock: Clock
) -> None:
    def resolve(step: Any) -> Any:
        lapse(storage, clock, QuickEngine(storage).stored().id)
        raise FULL

    engine = QuickEngine(storage, resolver=resolve)

    assert engine.run(stage.saga("hotel"), Trip()).outcome == "lost"
    assert engine.stored().recovery_attempts == 0


def test_exit_of_a_worker_that_was_replaced_is_still_an_exit(
    stage: Stage, engine: QuickEngine, storage: FlakyStorage, clock: Clock
) -> None:
    def leave(context: Trip, call: Call) -> None:
        lapse(storage, clock, call.saga_id)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        engine.run(stage.saga(stage.step("hotel", [leave])), Trip())
    assert engine.stored().recovery_attempts == 0


def test_worker_that_was_replaced_before_it_could_decline_reports_it(
    stage: Stage, storage: FlakyStorage, clock: Clock
) -> None:
    class Replaced(FlakyStorage):
        def apply(self, lease: Lease, transition: Transition) -> Applied:
            lapse(self, clock, lease.saga_id)
            return super().apply(lease, transition)

    storage = Replaced(clock)
    saga_id = QuickEngine(storage).start(stage.saga("hotel"), Trip())

    assert QuickEngine(storage).recover(saga_id).outcome == "lost"


def test_frozen_worker_cannot_checkpoint_after_takeover_in_postgresql(
    stage: Stage, database_url: str, request: pytest.FixtureRequest
) -> None:
    postgres = PostgresSagaStorage(database_url)
    request.addfinalizer(postgres.close)
    engine = QuickEngine(postgres)

    def frozen(context: Trip, call: Call) -> None:
        context.booked.append("lost")
        with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql("UPDATE saga_executions SET available_at = now() - interval '1 second'")
        acquire(postgres, call.saga_id)

    report = engine.run(stage.saga(stage.step("hotel", [frozen]), "car"), Trip())

    assert report.outcome == "lost"
    stored = engine.stored()
    assert (stored.lease_owner, stored.version) == ("another", 2)
    assert [entry.status for entry in stored.log] == ["lost"]
    assert "lost" not in stored.context


# -- the process is asked to stop ---------------------------------------------------------------------------------


def test_worker_that_stops_ends_at_the_steps_boundary_and_sends_the_saga_on(
    stage: Stage, storage: FlakyStorage
) -> None:
    def asked_to_stop(context: Trip, call: Call) -> None:
        book(context, call)
        stopping.set()

    stopping, dispatcher = threading.Event(), FakeDispatcher()
    engine = QuickEngine(storage, dispatcher=dispatcher, stopping=stopping.is_set)
    saga = stage.saga(stage.step("hotel", [asked_to_stop]), "car")

    report = engine.run(saga, Trip())

    assert (report.outcome, report.status) == ("handed over", SagaStatus.RUNNING)
    stored = engine.stored()
    assert dispatcher.sent == [Claim(stored.id, stored.version)]
    assert (stored.state, stored.recovery_attempts) == (SagaState.QUEUED, 0)
    assert saga.codec.load(stored.context) == Trip(["hotel"])

    next_worker = QuickEngine(storage, sagas=[saga])
    assert next_worker.recover(stored.id, version=dispatcher.sent[0].version).outcome == "completed"
    assert stage.seen == ["act hotel", "act car"]


@pytest.mark.parametrize("dispatcher", [lambda: None, FakeDispatcher])
def test_saga_that_cannot_be_sent_on_is_free_at_once(
    stage: Stage, storage: FlakyStorage, dispatcher: Callable[[], FakeDispatcher | None]
) -> None:
    broker = dispatcher()
    if broker:
        broker.capacity = 0
    engine = QuickEngine(storage, dispatcher=broker, stopping=lambda: True)

    assert engine.run(stage.saga("hotel"), Trip()).outcome == "handed over"
    assert engine.storage.get_sagas_for_recovery(10) == [engine.stored().id]


def test_worker_that_stops_still_ends_a_saga_that_has_no_step_left(stage: Stage, storage: FlakyStorage) -> None:
    stopping = threading.Event()
    engine = QuickEngine(storage, dispatcher=FakeDispatcher(), stopping=stopping.is_set)

    report = engine.run(stage.saga(stage.step("hotel", [lambda *_: stopping.set()])), Trip())

    assert report.outcome == "completed"


def test_worker_that_stops_does_not_sit_out_a_wait(stage: Stage, storage: FlakyStorage) -> None:
    stopping = threading.Event()
    policy = RetryPolicy(first_delay=4)
    engine = QuickEngine(storage, dispatcher=FakeDispatcher(), stopping=stopping.is_set)
    engine.on_sleep = stopping.set

    report = engine.run(stage.saga(stage.step("hotel", [FULL], retry=policy)), Trip())

    assert report.outcome == "handed over"
    assert sum(engine.slept) < 1
    assert stage.attempts("act hotel") == [1]


# -- two workers --------------------------------------------------------------------------------------------------


def test_saga_in_another_workers_hands_is_left_to_it(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(context: Trip, call: Call) -> None:
        entered.set()
        assert leave.wait(DEADLINE_SECONDS)

    saga = stage.saga(stage.step("hotel", [slow]), "car")
    worker = threading.Thread(target=engine.run, args=(saga, Trip()))
    worker.start()
    assert entered.wait(DEADLINE_SECONDS)
    other = QuickEngine(engine.storage, sagas=[saga], node="other")

    report = other.recover(engine.stored().id, by_hand=True)

    assert report.outcome == "skipped"
    assert f"{engine.runtime().owner} holds the lease until 2031-05-01 00:00:30" in report.message
    leave.set()
    worker.join(DEADLINE_SECONDS)
    assert engine.stored().status is SagaStatus.COMPLETED
    assert stage.seen == ["act hotel", "act car"]


def test_message_sent_for_an_earlier_version_is_skipped(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga = stage.saga(stage.step("hotel", [FULL], retry=RetryPolicy(first_delay=60)))
    saga_id = engine.run(saga, Trip()).saga_id
    clock.forward(60)

    assert engine.recover(saga_id, version=0).message.startswith(
        "nothing to do: the message was for an earlier version"
    )
    assert engine.recover(saga_id, version=1).outcome == "completed"
    assert engine.recover(saga_id, version=1).message == "nothing to do: the saga is COMPLETED already."
