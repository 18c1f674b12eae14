"""Scans: who is dispatched, how often, and how long the queue gets."""

from __future__ import annotations

import collections
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from celery import Celery

from sagas import SagaEngine, SagaStatus
from sagas.celery.dispatch import CeleryDispatcher
from sagas.errors import BrokerUnavailable
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.records import Claim, Lease, NewSaga, completed
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps

STALE = 1000
LIMIT = 200


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"SAGAS_SCAN_LIMIT": str(LIMIT)}


def leave_behind(engine: SagaEngine, count: int) -> list:
    """Store sagas whose worker died during its first step, with its lease run out."""
    context = ThreeSteps.codec.dump(Job())
    new = [NewSaga(id=new_saga_id(), name=ThreeSteps.name, context=context) for _ in range(count)]
    return [saga_id for saga_id, _ in engine.storage.create_sagas(new, owner="gone/1.1", for_seconds=-1)]


def queued_ids(broker_url: str, queue: str) -> list[str]:
    """Return the saga ids of the messages in a queue of the real broker."""
    client = redis.Redis.from_url(broker_url)
    messages = client.lrange(queue, 0, -1)
    client.close()
    return [json.loads(message)["headers"]["argsrepr"] for message in messages]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_overlapping_scans_keep_the_queue_within_the_limit_and_every_stale_saga_is_recovered_once(
    engine: SagaEngine, broker_url: str, celery: Start
) -> None:
    stale = set(map(str, leave_behind(engine, STALE)))

    def scan_twenty_times(_: int) -> int:
        return sum(len(engine.scan().dispatched) for _ in range(20))

    with ThreadPoolExecutor(2) as two_scanners:
        dispatched = sum(two_scanners.map(scan_twenty_times, range(2)))

    waiting = queued_ids(broker_url, "sagas.recover")
    assert dispatched == len(waiting) == LIMIT
    assert len(set(waiting)) == LIMIT, "an id is in the queue twice"
    assert set(waiting) <= stale

    celery("worker", SAGAS_LEASE_SECONDS="60")
    celery("beat")
    celery("beat")
    storage = engine.storage

    def finished() -> bool:
        return len(storage.get_sagas_for_recovery(1)) == 0 and not queued_ids(broker_url, "sagas.recover")

    wait_until(finished, timeout_seconds=480, what="the recovery of all")
    records = [wait_finished(engine, saga_id) for saga_id in sorted(stale)]
    assert collections.Counter(record.status for record in records) == {SagaStatus.COMPLETED: STALE}
    assert {record.version for record in records} == {2}, "a saga was recovered more than once"
    assert {len(record.log) for record in records} == {3}


def test_waiting_messages_are_not_sent_again_however_long_they_wait(engine: SagaEngine, broker_url: str) -> None:
    leave_behind(engine, 20)
    engine.scan()
    # The marks protect for a few seconds; after that, what counts is that the messages are still in the queue.
    age_marks(engine)
    for _ in range(5):
        assert engine.scan().dispatched == ()
        age_marks(engine)
    assert len(queued_ids(broker_url, "sagas.recover")) == 20


def test_messages_that_the_broker_lost_are_sent_again(engine: SagaEngine, broker_url: str, celery: Start) -> None:
    stale = leave_behind(engine, 30)
    fresh = engine.start_many(ThreeSteps, [Job()] * 10)
    engine.scan()
    assert len(queued_ids(broker_url, "sagas.recover")) == 30
    redis.Redis.from_url(broker_url).flushdb()

    celery("worker")
    celery("beat")
    for saga_id in [*stale, *fresh]:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED


def test_some_lost_messages_among_many_are_found(engine: SagaEngine, broker_url: str) -> None:
    leave_behind(engine, 20)
    engine.scan()
    client = redis.Redis.from_url(broker_url)
    lost = {json.loads(client.rpop("sagas.recover"))["headers"]["argsrepr"] for _ in range(5)}
    age_marks(engine)

    assert engine.scan().missing == 5
    age_marks(engine)
    assert {str(saga_id) for saga_id in engine.scan().dispatched} == lost
    assert len(set(queued_ids(broker_url, "sagas.recover"))) == 20


def test_scan_with_the_broker_down_claims_nothing_and_says_so(engine: SagaEngine, app: Celery) -> None:
    leave_behind(engine, 3)
    app.conf.broker_url = "redis://:secret@127.0.0.1:1/0"
    with pytest.raises(BrokerUnavailable) as caught:
        engine.scan()
    assert "the broker at redis://" in str(caught.value)
    assert "check that it runs (SAGAS_BROKER_URL)" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(engine.storage.get_sagas_for_recovery(10)) == 3


def test_what_was_claimed_and_not_sent_is_free_again(engine: SagaEngine, app: Celery) -> None:
    leave_behind(engine, 3)
    claims = engine.storage.claim_sagas(pending=False, limit=10, max_recovery_attempts=5, mark_seconds=60).claims
    assert engine.storage.get_sagas_for_recovery(10) == []
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    engine._send(claims)
    assert len(engine.storage.get_sagas_for_recovery(10)) == 3


def test_saga_committed_but_never_sent_is_run(engine: SagaEngine, celery: Start) -> None:
    silent = SagaEngine(engine.storage, settings=engine.settings)  # no dispatcher: nothing is sent
    saga_id = silent.start(ThreeSteps, Job())
    celery("worker")
    celery("beat")
    assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED


def test_messages_delivered_three_times_run_each_saga_once(engine: SagaEngine, app: Celery, celery: Start) -> None:
    ids = engine.start_many(ThreeSteps, [Job()] * 30)
    again = [Claim(saga_id, 0, pending=True) for saga_id in ids]
    CeleryDispatcher(app).send([*again, *again])
    celery("worker")
    for saga_id in ids:
        record = wait_finished(engine, saga_id)
        assert (record.version, len(record.log)) == (1, 3)


def test_saga_with_a_log_is_resumed_after_it(engine: SagaEngine, celery: Start) -> None:
    ((saga_id, _),) = engine.storage.create_sagas(
        [NewSaga(id=new_saga_id(), name=ThreeSteps.name, context=ThreeSteps.codec.dump(Job()))],
        owner="gone/1.1",
        for_seconds=60,
    )
    hold = Lease(saga_id, 1, "gone/1.1")
    engine.storage.checkpoint(hold, completed("first", Action.ACT), status=SagaStatus.RUNNING)
    engine.storage.seize_orphans("gone/1.1", max_recovery_attempts=5)
    celery("worker")
    celery("beat")
    record = wait_finished(engine, saga_id)
    assert [(entry.step, entry.version) for entry in record.log] == [("first", 1), ("second", 2), ("third", 2)]


def test_saga_unknown_to_the_worker_waits_unspent_for_one_that_knows_it(engine: SagaEngine, celery: Start) -> None:
    celery("worker", SAGAS_MODULES="tests.faults.errands")
    saga_id = engine.start(ThreeSteps, Job())
    declined = wait_for_saga(engine, saga_id, lambda saga: saga.last_error is not None, "the refusal")
    assert declined.status is SagaStatus.PENDING
    assert declined.recovery_attempts == 0
    assert declined.last_error is not None
    assert declined.last_error.startswith("declined: no saga named 'three-steps' is known here")


def age_marks(engine: SagaEngine) -> None:
    """Let the marks' time pass: a minute."""
    import sqlalchemy as sa

    with sa.create_engine(engine.settings.database_url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET available_at = available_at - interval '1 minute'")


def test_scans_do_not_pile_up_while_no_worker_runs_them(engine: SagaEngine, app: Celery, celery: Start) -> None:
    dispatcher = CeleryDispatcher(app)
    beats = [celery("beat", SAGAS_SCAN_INTERVAL_SECONDS="0.1"), celery("beat", SAGAS_SCAN_INTERVAL_SECONDS="0.1")]
    wait_until(lambda: dispatcher.length("sagas.scan") > 0, what="a scan")
    for log in [beat.log for beat in beats]:
        wait_until(lambda: log.read_text().count("Sending due task sagas.scan") >= 20, what="twenty scans' time")  # noqa: B023
    assert dispatcher.length("sagas.scan") <= len(beats)

    celery("worker")
    wait_until(lambda: dispatcher.length("sagas.scan") == 0, what="the scan")
