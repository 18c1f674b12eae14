"""What operators do to sagas, on PostgreSQL: nothing they do breaks what the engine guarantees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, RetryPolicy, SagaEngine, SagaStatus, Settings
from sagas.admin import Operator
from sagas.errors import ActionRefused, SagaNotFound, UnknownSaga
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus, Progress
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import GaveBack
from sagas.testing.processes import wait_until
from tests.samples import DEADLINE_SECONDS, SETTINGS, FakeDispatcher, QuickEngine, Stage, Trip, always, book

LATER = RetryPolicy(max_attempts=5, first_delay=60)


@pytest.fixture
def engine(emptied_storage: PostgresSagaStorage) -> QuickEngine:
    return QuickEngine(emptied_storage, dispatcher=FakeDispatcher())


@pytest.fixture
def operator(engine: QuickEngine) -> Operator:
    return Operator(engine, actor="ann@pc")


class Gate:
    """An outcome of a step: tells that it has begun, and waits to be let on."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, context: Trip, call: Any) -> None:
        self.begun.set()
        assert self.open.wait(DEADLINE_SECONDS)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def rows(engine: SagaEngine, saga_id: UUID) -> list[str]:
    return [f"{e.action} {e.step}: {e.status}" for e in engine.storage.load(saga_id).log]


@pytest.mark.parametrize("command", ["compensate", "skip", "resolve", "retry"])
@pytest.mark.parametrize(("actor", "reason"), [("ann", "\ud800"), ("ann\udfff", "why"), ("ann", "a\0b")], ids=ascii)
def test_a_reason_that_no_database_can_hold_is_refused(
    engine: QuickEngine, stage: Stage, command: str, actor: str, reason: str
) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())
    before = engine.storage.load(saga_id)
    operator = Operator(engine, actor=actor)
    commands = {
        "compensate": lambda: operator.compensate(saga_id, reason=reason),
        "skip": lambda: operator.skip(saga_id, "hotel", reason=reason),
        "resolve": lambda: operator.resolve(saga_id, SagaStatus.COMPLETED, reason=reason),
        "retry": lambda: operator.retry(saga_id, reason=reason),
    }

    with pytest.raises(ValueError, match=r"(actor|reason) is .*, which no database can hold"):
        commands[command]()

    assert engine.storage.load(saga_id) == before


# -- compensate ---------------------------------------------------------------------------------------------------


def test_a_saga_that_waits_for_a_retry_is_turned_back_and_undone_in_reverse(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    trip = stage.saga("hotel", "car", stage.step("plane", act=always(OSError("full")), retry=LATER))
    saga_id = engine.run(trip, Trip()).saga_id

    record = operator.compensate(saga_id, reason="the customer called")

    assert (record.status, record.log[-1].actor, record.log[-1].reason) == (
        SagaStatus.COMPENSATING,
        "ann@pc",
        "the customer called",
    )
    assert engine.recover(saga_id).outcome == "compensated"
    assert stage.seen[3:] == ["compensate car", "compensate hotel"]


def test_a_step_that_may_have_begun_is_undone_too(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    trip = stage.saga("hotel", "car")
    saga_id = engine.start(trip, Trip())
    _lost_by_its_holder(engine, saga_id)

    operator.compensate(saga_id, reason="why")

    assert engine.recover(saga_id).outcome == "compensated"
    assert stage.seen == ["compensate hotel"]


def test_turning_back_a_saga_that_did_nothing_ends_it(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    saga_id = engine.start(stage.saga("hotel", "car"), Trip())

    assert operator.compensate(saga_id, reason="why").status is SagaStatus.COMPENSATED
    assert stage.seen == []


def test_a_saga_past_its_pivot_is_not_turned_back(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    mail = stage.step("mail", act=always(OSError("no server")), undo=None, retry=LATER)
    saga_id = engine.run(stage.saga("hotel", stage.step("pay", pivot=True), mail), Trip()).saga_id
    before = engine.storage.load(saga_id)

    with pytest.raises(ActionRefused, match=r"past its pivot.*sagas skip.*sagas resolve"):
        operator.compensate(saga_id, reason="why")

    assert engine.storage.load(saga_id) == before


def test_what_turned_back_or_ended_is_not_turned_back_again(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    ended = engine.run(stage.saga("hotel"), Trip()).saga_id
    stuck = stage.saga("car", stage.step("plane", act=[OSError()]), name="other")
    stuck.steps[0].compensate = stage._action("compensate", always(OSError("jammed")))  # type: ignore[method-assign]
    turned = engine.run(stuck, Trip()).saga_id

    for saga_id, why in ((ended, "COMPLETED already"), (turned, "unwinds already")):
        before = engine.storage.load(saga_id)
        with pytest.raises(ActionRefused, match=why):
            operator.compensate(saga_id, reason="why")
        assert engine.storage.load(saga_id) == before


def test_code_that_does_not_know_the_saga_turns_nothing_back(
    engine: QuickEngine, emptied_storage: PostgresSagaStorage, stage: Stage
) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())
    before = engine.storage.load(saga_id)

    with pytest.raises(UnknownSaga, match="SAGAS_MODULES"):
        Operator(QuickEngine(emptied_storage), actor="ann").compensate(saga_id, reason="why")

    assert engine.storage.load(saga_id) == before


def test_a_saga_nobody_has_is_not_found(operator: Operator) -> None:
    with pytest.raises(SagaNotFound):
        operator.retry(new_saga_id(), reason="why")


# -- sagas that a worker holds ------------------------------------------------------------------------------------


def test_a_live_holder_gives_its_saga_back_after_its_step_and_the_result_is_kept(
    emptied_storage: PostgresSagaStorage, pool: ThreadPoolExecutor, stage: Stage
) -> None:
    settings = Settings(lease_seconds=1)
    worker = SagaEngine(emptied_storage, settings=settings, node="worker")
    gate = Gate()
    trip = stage.saga("hotel", stage.step("car", act=[gate]), "plane")
    running = pool.submit(worker.run, trip, Trip())
    assert gate.begun.wait(DEADLINE_SECONDS)
    (record,) = emptied_storage.find(SagaFilter())
    person = SagaEngine(emptied_storage, settings=settings, sagas=[trip], node="ann@pc")
    acting = pool.submit(
        Operator(person, actor="ann@pc", wait_seconds=DEADLINE_SECONDS).compensate, record.id, reason="w"
    )
    wait_until(lambda: any(kept.yield_requested for kept in worker._keeper._leases), what="the ask to arrive")

    gate.open.set()

    assert running.result(DEADLINE_SECONDS).outcome == "handed over"
    assert acting.result(DEADLINE_SECONDS).status is SagaStatus.COMPENSATING
    assert rows(worker, record.id) == ["act hotel: completed", "act car: completed", "act plane: failed"]
    assert worker.recover(record.id).outcome == "compensated"
    assert stage.seen == ["act hotel", "act car", "compensate car", "compensate hotel"]


def test_of_two_operators_who_wait_the_one_who_is_done_does_not_end_the_others_wait(
    emptied_storage: PostgresSagaStorage, pool: ThreadPoolExecutor, stage: Stage
) -> None:
    settings = Settings(lease_seconds=60)
    engine = SagaEngine(emptied_storage, settings=settings, sagas=[stage.saga("hotel")], node="ann@pc")
    saga_id = engine.start(stage.saga("hotel"), Trip())
    lease = _held(engine, saga_id)
    waiting = pool.submit(Operator(engine, actor="ann", wait_seconds=DEADLINE_SECONDS).retry, saga_id, reason="why")
    wait_until(lambda: emptied_storage.renew(lease, 60), what="the ask to arrive")

    emptied_storage.request_yield(saga_id, actor="bob", for_seconds=0)

    wait_until(lambda: emptied_storage.renew(lease, 60), what="the ask to arrive again")
    emptied_storage.apply(lease, GaveBack(status=SagaStatus.RUNNING, after_seconds=60))
    assert waiting.result(DEADLINE_SECONDS).log[-1].step == "retry"
    assert emptied_storage.renew(_held(engine, saga_id), 60) is False


def test_an_operator_who_dies_while_waiting_asks_for_seconds_only(
    emptied_storage: PostgresSagaStorage, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SagaEngine(emptied_storage, sagas=[stage.saga("hotel")], node="ann@pc")
    saga_id = engine.start(stage.saga("hotel"), Trip())
    lease = _held(engine, saga_id)
    asked: list[float] = []
    monkeypatch.setattr(emptied_storage, "request_yield", lambda _, actor, for_seconds: asked.append(for_seconds))

    with pytest.raises(ActionRefused, match=f"held by {lease.owner}"):
        Operator(engine, actor="ann", wait_seconds=0.4).retry(saga_id, reason="why")

    assert max(asked) <= 5
    assert asked[-1] == 0


@pytest.mark.parametrize("action", ["compensate", "skip", "resolve", "retry"])
def test_what_a_worker_holds_is_left_alone_and_the_holder_is_named(
    engine: QuickEngine, operator: Operator, stage: Stage, action: str
) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())
    lease = _held(engine, saga_id)
    before = engine.storage.load(saga_id)
    calls = {
        "compensate": lambda: operator.compensate(saga_id, reason="why"),
        "skip": lambda: operator.skip(saga_id, "hotel", reason="why"),
        "resolve": lambda: operator.resolve(saga_id, SagaStatus.COMPLETED, reason="why"),
        "retry": lambda: operator.retry(saga_id, reason="why"),
    }

    with pytest.raises(ActionRefused, match=rf"held by {lease.owner}.*--wait"):
        calls[action]()

    assert engine.storage.load(saga_id) == before


def test_a_paused_running_saga_stops_at_the_next_step_and_continues_once_resumed(
    emptied_storage: PostgresSagaStorage, pool: ThreadPoolExecutor, stage: Stage
) -> None:
    worker = SagaEngine(
        emptied_storage, settings=Settings(lease_seconds=0.9), node="worker", dispatcher=FakeDispatcher()
    )
    gate = Gate()
    running = pool.submit(worker.run, stage.saga("hotel", stage.step("car", act=[gate]), "plane"), Trip())
    assert gate.begun.wait(DEADLINE_SECONDS)
    (record,) = emptied_storage.find(SagaFilter())
    emptied_storage.pause("trip", actor="ann", reason="why")
    wait_until(lambda: any(kept.yield_requested for kept in worker._keeper._leases), what="the ask to arrive")

    gate.open.set()

    report = running.result(DEADLINE_SECONDS)
    assert (report.outcome, stage.seen) == ("handed over", ["act hotel", "act car"])
    assert worker.recover(record.id).outcome == "skipped"
    emptied_storage.resume("trip")
    assert worker.recover(record.id, by_hand=True).outcome == "completed"
    assert stage.seen == ["act hotel", "act car", "act plane"]


def test_starting_a_saga_of_a_paused_name_keeps_it_for_later(engine: QuickEngine, stage: Stage) -> None:
    engine.storage.pause("trip", actor="ann", reason="the bank is away")
    saga_id = engine.start(stage.saga("hotel"), Trip())

    report = engine.recover(saga_id, version=0)

    assert (report.outcome, report.status) == ("skipped", SagaStatus.PENDING)
    assert "sagas resume trip" in report.message
    engine.storage.resume("trip")
    assert engine.recover(saga_id, version=0).outcome == "completed"


# -- skip ---------------------------------------------------------------------------------------------------------


def test_a_compensation_that_cannot_be_done_is_skipped_and_the_rest_is_undone(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    jammed = stage.step("car", undo=always(OSError("jammed")))
    trip = stage.saga("hotel", jammed, stage.step("plane", act=[OSError("full")]))
    saga_id = engine.run(trip, Trip()).saga_id
    assert engine.storage.load(saga_id).status is SagaStatus.FAILED

    record = operator.skip(saga_id, "car", reason="returned by hand")

    assert record.log[-1].action is Action.COMPENSATE
    assert record.log[-1].status is EntryStatus.SKIPPED
    assert engine.recover(saga_id).outcome == "compensated"
    assert stage.seen[-1] == "compensate hotel"
    assert stage.seen.count("compensate car") == 1


def test_a_skipped_step_is_neither_acted_nor_compensated_by_code(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    car = stage.step("car", act=always(OSError("no answer")), retry=LATER)
    trip = stage.saga("hotel", car, stage.step("plane", act=[OSError("full")]))
    saga_id = engine.run(trip, Trip()).saga_id

    record = operator.skip(saga_id, "car", reason="booked by phone")

    assert (record.status, record.log[-1].action) == (SagaStatus.RUNNING, Action.ACT)
    assert engine.recover(saga_id).outcome == "compensated"
    assert stage.seen == ["act hotel", "act car", "act plane", "compensate hotel"]


def test_skipping_the_last_step_ends_the_saga(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    saga_id = engine.run(stage.saga("hotel", stage.step("car", act=[OSError()], retry=LATER)), Trip()).saga_id

    assert operator.skip(saga_id, "car", reason="why").status is SagaStatus.COMPLETED


def test_only_the_next_step_can_be_skipped(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    saga_id = engine.start(stage.saga("hotel", "car"), Trip())
    before = engine.storage.load(saga_id)

    with pytest.raises(ActionRefused, match=r"'hotel' \(act\) next, not 'car'"):
        operator.skip(saga_id, "car", reason="why")

    assert engine.storage.load(saga_id) == before


# -- resolve and retry --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
def test_a_dead_saga_is_resolved_without_its_code_and_no_message_takes_it_again(
    engine: QuickEngine, emptied_storage: PostgresSagaStorage, stage: Stage, status: SagaStatus
) -> None:
    saga_id = _dead(engine, stage)
    calls = len(stage.calls)

    record = Operator(QuickEngine(emptied_storage), actor="ann@pc").resolve(saga_id, status, reason="settled with them")

    assert (record.status, record.finished_at is not None) == (status, True)
    assert (record.log[-1].step, record.log[-1].actor) == (f"resolve as {status.lower()}", "ann@pc")
    assert engine.recover(saga_id).outcome == "skipped"
    assert len(stage.calls) == calls


def test_a_saga_is_resolved_to_an_end_only(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())

    with pytest.raises(ValueError, match="choose COMPLETED or COMPENSATED"):
        operator.resolve(saga_id, SagaStatus.FAILED, reason="why")


def test_a_dead_saga_that_is_retried_is_due_with_all_its_attempts(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    saga_id = _dead(engine, stage)

    record = operator.retry(saga_id, reason="the shelf is free")

    assert (record.recovery_attempts, record.status, record.dead) == (0, SagaStatus.COMPENSATING, False)
    assert engine.scan().dispatched == (saga_id,)


def test_a_retry_keeps_in_mind_that_a_step_may_have_begun(
    engine: QuickEngine, operator: Operator, stage: Stage
) -> None:
    trip = stage.saga("hotel")
    saga_id = engine.start(trip, Trip())
    _lost_by_its_holder(engine, saga_id)

    record = operator.retry(saga_id, reason="why")

    assert Progress(trip.graph, record.log).in_doubt == {"hotel"}


def test_the_dead_are_found_each_once_while_they_are_retried(
    engine: QuickEngine, operator: Operator, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas.admin._PAGE", 2)
    dead = {_dead(engine, stage) for _ in range(5)}

    found = []
    for record in operator.dead("trip"):
        found.append(record.id)
        operator.retry(record.id, reason="why")

    assert (sorted(found), list(operator.dead())) == (sorted(dead), [])


def test_paused_and_failed_is_not_dead(engine: QuickEngine, operator: Operator, stage: Stage) -> None:
    saga_id = engine.run(stage.saga(stage.step("car", act=[OSError()], retry=LATER)), Trip()).saga_id
    operator.retry(saga_id, reason="why")
    engine.storage.pause("trip", actor="ann", reason="why")

    assert engine.storage.load(saga_id).state is SagaState.PAUSED
    assert list(operator.dead()) == []


# -- two at once ----------------------------------------------------------------------------------------------------


def test_what_another_operator_did_in_between_is_refused_and_a_dead_saga_stays_dead(
    engine: QuickEngine, operator: Operator, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = _dead(engine, stage)
    before = engine.storage.load(saga_id)
    stale = replace(before, log=before.log[:1], status=SagaStatus.RUNNING)  # as it was before it aborted
    monkeypatch.setattr(engine.storage, "load", lambda _: stale)

    with pytest.raises(ActionRefused, match="unwinds already"):
        operator.compensate(saga_id, reason="why")

    monkeypatch.undo()
    assert engine.storage.load(saga_id) == before


# -- details ------------------------------------------------------------------------------------------------------


def _held(engine: SagaEngine, saga_id: UUID) -> Lease:
    request = LeaseRequest(owner="worker-9", seconds=60)
    most = SETTINGS.max_recovery_attempts
    acquired = engine.storage.acquire(saga_id, request, max_recovery_attempts=most, by_hand=True)
    assert isinstance(acquired, Acquired)
    return acquired.lease


def _lost_by_its_holder(engine: SagaEngine, saga_id: UUID) -> None:
    owner = _held(engine, saga_id).owner
    assert engine.storage.reclaim(owner, max_recovery_attempts=SETTINGS.max_recovery_attempts) == 1


def _dead(engine: QuickEngine, stage: Stage) -> UUID:
    hotel = stage.step("hotel", act=[book], undo=always(OSError("jammed")))
    saga_id = engine.run(stage.saga(hotel, stage.step("car", act=[OSError("full")])), Trip()).saga_id
    while engine.recover(saga_id, by_hand=True).outcome != "dead":
        pass
    return saga_id
