"""The PostgreSQL storage keeps the contract, also within a transaction of the caller's and while others write."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas.errors import SagaNotFound
from sagas.progress import SagaStatus
from sagas.storage import ISagaStorage, PostgresSagaStorage
from sagas.storage.answers import Acquired, Applied, NotAcquired, Refusal
from sagas.storage.leases import Lease
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Ended, Transition
from sagas.testing import StorageContract
from sagas.testing.storage_contract.fencing import TRANSITIONS
from sagas.testing.storage_contract.signals import SEEING, signal
from tests.calls import DEADLINE_SECONDS, acquire, backends, claim, held_saga, new_saga, wait_until, writing_to


class TestPostgresSagaStorage(StorageContract):
    a_while = 60.0

    @pytest.fixture(autouse=True)
    def _engine(self, engine: sa.Engine) -> None:
        self.engine = engine

    def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
        shift = """
            UPDATE saga_executions SET
                available_at = available_at - make_interval(secs => :seconds),
                created_at = created_at - make_interval(secs => :seconds),
                updated_at = updated_at - make_interval(secs => :seconds),
                deadline_at = deadline_at - make_interval(secs => :seconds),
                finished_at = finished_at - make_interval(secs => :seconds)"""
        delivered = """
            UPDATE saga_deliveries SET
                at = at - make_interval(secs => :seconds), queued_at = queued_at - make_interval(secs => :seconds)"""
        scheduled = "UPDATE saga_schedules SET last_tick = last_tick - make_interval(secs => :seconds)"
        sent = "UPDATE saga_signals SET sent_at = sent_at - make_interval(secs => :seconds)"
        outbox = "UPDATE saga_outbox SET created_at = created_at - make_interval(secs => :seconds)"
        with self.engine.begin() as connection:
            for statement in (shift, delivered, scheduled, sent, outbox):
                connection.execute(sa.text(statement), {"seconds": seconds})


# -- the first call of a process ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        claim,
        lambda storage: storage.find(SagaFilter()),
        lambda storage: storage.create_sagas([new_saga()]),
        lambda storage: storage.prune(older_than_seconds=1, limit=1),
    ],
    ids=["claim", "find", "create", "prune"],
)
def test_any_operation_may_be_the_first(
    storage: PostgresSagaStorage, operation: Callable[[PostgresSagaStorage], Any]
) -> None:
    operation(storage)


# -- many transitions at once -------------------------------------------------------------------------------------


class WritesNoneAlone(PostgresSagaStorage):
    """Writes no transition by a statement of its own."""

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        raise AssertionError(f"{transition} was written alone")


def test_one_statement_writes_transitions_of_every_kind(storage: PostgresSagaStorage, engine: sa.Engine) -> None:
    transitions = [*TRANSITIONS.values(), *(make(0) for make in SEEING.values())]
    leases = [held_saga(storage) for _ in transitions]

    applied = WritesNoneAlone(engine).apply_many(list(zip(leases, transitions, strict=True)))

    assert [len(storage.load(lease.saga_id).log) for lease in leases] == [len(each.events) for each in transitions]
    assert all(isinstance(each, Applied) for each in applied)


# -- a transaction of the caller's own ------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [sa.Connection, Session], ids=["connection", "session"])
def test_a_saga_started_in_the_callers_transaction_exists_if_and_only_if_it_commits(
    storage: PostgresSagaStorage, engine: sa.Engine, begin: type[Any]
) -> None:
    kept, undone = new_saga(), new_saga()
    with begin(engine) as own:
        created = storage.create_sagas([kept], queued=True, connection=own)
        assert created == [(kept.id, True)]
        with pytest.raises(SagaNotFound):
            storage.load(kept.id)
        own.commit()
    with begin(engine) as own:
        storage.create_sagas([undone], queued=True, connection=own)
        own.rollback()

    saga = storage.load(kept.id)
    assert (saga.status, saga.state, json.loads(saga.context)) == (SagaStatus.PENDING, SagaState.QUEUED, {"n": 1})
    with pytest.raises(SagaNotFound):
        storage.load(undone.id)


def test_time_tags_and_deadline_of_a_start_are_kept_within_the_callers_transaction(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    at = datetime(2031, 5, 1, tzinfo=UTC)
    later, soon = (replace(new_saga(), tags={"customer": "ü"}, deadline_seconds=60.0) for _ in range(2))
    with Session(engine) as session, session.begin():
        storage.create_sagas([later], connection=session, at=at)
        storage.create_sagas([soon], connection=session, after_seconds=3600)

    saga = storage.load(later.id)
    assert (saga.available_at, saga.deadline_at, saga.tags) == (at, at + timedelta(seconds=60), {"customer": "ü"})
    saga = storage.load(soon.id)
    assert saga.deadline_at is not None
    assert saga.available_at is not None
    assert saga.deadline_at - saga.available_at == timedelta(seconds=60)
    assert saga.available_at - saga.created_at > timedelta(minutes=59)


@pytest.mark.parametrize("begin", [sa.Connection, Session], ids=["connection", "session"])
def test_a_signal_sent_in_the_callers_transaction_exists_if_and_only_if_it_commits(
    storage: PostgresSagaStorage, engine: sa.Engine, begin: type[Any]
) -> None:
    lease = held_saga(storage)
    kept, undone = signal(lease.saga_id, "kept", payload='{"a":  1.50}', actor="é"), signal(lease.saga_id, "undone")
    with begin(engine) as own:
        assert storage.add_signal(kept, connection=own) is True
        assert storage.add_signal(kept, connection=own) is False
        assert storage.signals(lease.saga_id) == []
        storage.deliver([lease.saga_id])
        own.commit()
    with begin(engine) as own:
        assert storage.add_signal(kept, connection=own) is False
        assert storage.add_signal(undone, connection=own) is True
        own.rollback()

    assert storage.signals(lease.saga_id) == [kept]
    assert storage.load(lease.saga_id).inbox == 0
    storage.deliver([lease.saga_id])
    assert storage.load(lease.saga_id).inbox == 1


@pytest.mark.parametrize("begin", [sa.Connection, Session], ids=["connection", "session"])
def test_idempotency_keys_hold_within_the_callers_transaction(
    storage: PostgresSagaStorage, engine: sa.Engine, begin: type[Any]
) -> None:
    committed, mine, again = new_saga("old"), new_saga("new"), new_saga("new")
    storage.create_sagas([committed])

    with begin(engine) as own:
        created = storage.create_sagas([new_saga("old"), mine], connection=own)
        assert created == [(committed.id, False), (mine.id, True)]
        assert storage.create_sagas([again], connection=own) == [(mine.id, False)]


def test_a_savepoint_that_is_rolled_back_takes_its_saga_along(storage: PostgresSagaStorage, engine: sa.Engine) -> None:
    kept, undone = new_saga(), new_saga()
    with Session(engine) as session, session.begin():
        storage.create_sagas([kept], connection=session)
        savepoint = session.begin_nested()
        storage.create_sagas([undone], connection=session)
        savepoint.rollback()

    assert [saga.id for saga in storage.find(SagaFilter())] == [kept.id]


# -- acquiring while the holder writes ---------------------------------------------------------------------------


def test_whoever_waited_for_a_checkpoint_to_commit_sees_what_it_wrote(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    lease = held_saga(storage, for_seconds=0)
    with engine.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.exec_driver_sql("UPDATE saga_executions SET updated_at = clock_timestamp()")
        holder.exec_driver_sql(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, details)"
            """ SELECT id, 'charge', 'act', 'failed', '{"verdict": "turn back"}' FROM saga_executions"""
        )
        holder.exec_driver_sql("UPDATE saga_executions SET status = 'FAILED'")
        acquiring = pool.submit(acquire, storage, lease)
        wait_until(lambda: backends(engine, "wait_event_type = 'Lock'"))
        holder.commit()

        acquired = acquiring.result(timeout=DEADLINE_SECONDS)

    assert isinstance(acquired, Acquired)
    assert [entry.step for entry in acquired.record.log] == ["charge", "holder"]
    # Its direction is read from the log, too.
    assert acquired.record.status is SagaStatus.COMPENSATING


def test_whoever_waited_for_the_end_of_a_saga_finds_it_finished(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    lease = held_saga(storage, for_seconds=0)
    with engine.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.exec_driver_sql("UPDATE saga_executions SET status = 'COMPLETED', state = 'finished'")
        acquiring = pool.submit(acquire, storage, lease)
        wait_until(lambda: backends(engine, "wait_event_type = 'Lock'"))
        holder.commit()

        refused = acquiring.result(timeout=DEADLINE_SECONDS)

    assert isinstance(refused, NotAcquired)
    assert refused.why is Refusal.FINISHED


def test_a_scan_passes_over_a_saga_that_somebody_is_writing_to(storage: PostgresSagaStorage, engine: sa.Engine) -> None:
    in_hand, due = new_saga(), new_saga()
    storage.create_sagas([in_hand])
    storage.create_sagas([due])
    with writing_to(engine, in_hand):
        scanned = claim(storage, pending=True, limit=1)

    assert [claim.saga_id for claim in scanned.claims] == [due.id]


def test_pruning_passes_over_a_saga_that_somebody_is_writing_to(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    in_hand, other = held_saga(storage), held_saga(storage)
    for lease in (in_hand, other):
        storage.apply(lease, Ended(events=(), status=SagaStatus.COMPLETED))
    with writing_to(engine, storage.load(in_hand.saga_id)):
        assert storage.prune(older_than_seconds=0, limit=1) == 1

    assert [saga.id for saga in storage.find(SagaFilter())] == [in_hand.saga_id]


def test_releasing_claims_waits_for_nobody_who_has_a_saga_in_hand(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    in_hand, other = new_saga(), new_saga()
    storage.create_sagas([in_hand, other])
    claims = claim(storage, pending=True).claims
    with writing_to(engine, in_hand):
        storage.release_claims(claims)

    assert [storage.load(saga.id).state for saga in (in_hand, other)] == [SagaState.QUEUED, SagaState.READY]
