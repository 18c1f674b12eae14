"""Scans: who is dispatched, how often, and how long the queue gets."""

from __future__ import annotations

import collections
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from kombu.utils.url import parse_url

from sagas import SagaEngine, SagaStatus, recovery
from sagas.celery.dispatch import CeleryDispatcher
from sagas.progress import Action
from sagas.storage.records import Claim, SagaRecord, SagaState, completed
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Progressed
from sagas.testing.processes import wait_until
from tests.faults.network import Forwarding
from tests.integration.celery.conftest import Start, held_sagas, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps, marks
from tests.integration.celery.shop import make

STALE = 1000
LIMIT = 200


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"SAGAS_SCAN_LIMIT": str(LIMIT)}


def leave_behind(engine: SagaEngine, count: int) -> list:
    """Store sagas whose worker died during its first step, with its lease run out."""
    return [lease.saga_id for lease in held_sagas(engine, count, for_seconds=-1)]


def queued(engine: SagaEngine) -> list[SagaRecord]:
    return engine.storage.find(SagaFilter(states=[SagaState.QUEUED], limit=1000))


def pass_time(engine: SagaEngine, seconds: float) -> None:
    """Let so much time pass for everything that waits in the broker, and since the last delivery."""
    ago = f"- interval '{seconds} s'"
    with sa.create_engine(engine.settings.database_url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE saga_executions SET available_at = available_at {ago}, updated_at = updated_at {ago} "
            "WHERE state = 'queued'"
        )
        connection.exec_driver_sql(f"UPDATE saga_deliveries SET queued_at = queued_at {ago}, at = at {ago}")


def queued_ids(broker_url: str, queue: str) -> list[str]:
    """Return the saga ids of the messages in a queue of the real broker."""
    client = redis.Redis.from_url(broker_url)
    messages = client.lrange(queue, 0, -1)
    client.close()
    return [json.loads(message)["headers"]["argsrepr"] for message in messages]


@pytest.mark.slow(7)
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
    assert dispatched == len(waiting)
    assert len(set(waiting)) == LIMIT
    assert len(waiting) <= LIMIT + 20, "a scan may probe one"
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
    assert {len(record.log) for record in records} == {4}, "three steps, and the holder that was lost"


@pytest.mark.slow(10)
def test_messages_that_wait_behind_a_long_step_do_not_multiply(
    celery: Start,
    environment: dict[str, str],
    engine: SagaEngine,
    broker_url: str,
    tmp_path: Path,
) -> None:
    # With a prefix, no question for the length of a queue gets the right answer.
    prefix = {"broker_transport_options": {"global_keyprefix": "shop-"}}
    environment |= {"SHOP_BROKER": broker_url, "SHOP_FOLDER": str(tmp_path), "SHOP_SETTINGS": json.dumps(prefix)}
    shop = make(broker_url, set_as_current=False, **prefix)
    engine.dispatcher = CeleryDispatcher(shop)
    application = "tests.integration.celery.shop"
    celery("worker", "-c1", "-Q", "sagas.run", application=application)
    gated = engine.start(ThreeSteps, Job(str(tmp_path), gate="second"))
    wait_until(lambda: marks(tmp_path, "second"), what="the second step")
    waiting = engine.start_many(ThreeSteps, [Job(str(tmp_path))] * 5)

    for _ in range(8):  # in all, 40 seconds of scans
        pass_time(engine, 5)
        engine.scan()

    sent = len(queued_ids(broker_url, "shop-sagas.run"))
    assert 5 <= sent <= 5 + 8, "a probe for each scan, at most"
    assert CeleryDispatcher(shop).length("sagas.run") == sent
    (tmp_path / "open").touch()
    records = [wait_finished(engine, saga_id) for saga_id in [gated, *waiting]]
    assert {(record.version, len(record.log)) for record in records} == {(1, 3)}
    shop.close()


def test_a_slow_broker_gets_no_more_messages_than_sagas_are_queued(
    engine: SagaEngine, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_behind(engine, STALE)
    direct, link = engine.dispatcher, Forwarding(parse_url(broker_url)["port"], delay_seconds=0.005)
    far = Celery("far", broker=f"redis://{link.host}:{link.port}/0", set_as_current=False)
    # One scanner has a slow link, and takes turns with another one. For what waits, time flies.
    for _ in range(3):
        monkeypatch.setattr(recovery, "_SENDING_SECONDS", 0.3)
        engine.dispatcher = CeleryDispatcher(far)
        slow = engine.scan()
        assert slow.unsent == LIMIT - len(slow.dispatched) > 0
        assert 0 < len(queued(engine)) == len(queued_ids(broker_url, "sagas.recover")) < LIMIT
        pass_time(engine, 2)
        monkeypatch.setattr(recovery, "_SENDING_SECONDS", 60.0)
        engine.dispatcher = direct
        engine.scan()
        messages = queued_ids(broker_url, "sagas.recover")
        assert {str(record.id) for record in queued(engine)} == set(messages)
        assert len(messages) == LIMIT
        redis.Redis.from_url(broker_url).flushdb()
        engine.storage.release_claims([Claim(record.id, record.version) for record in queued(engine)])
    far.close()
    link.close()


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


def test_some_lost_messages_among_many_are_found(engine: SagaEngine, broker_url: str, celery: Start) -> None:
    lost = engine.start_many(ThreeSteps, [Job()] * 5)
    redis.Redis.from_url(broker_url).flushdb()
    pass_time(engine, 6)
    arrived = engine.start_many(ThreeSteps, [Job()] * 15)
    worker = celery("worker")
    for saga_id in arrived:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    worker.stop()

    report = engine.scan()

    assert (set(report.dispatched), report.missing) == (set(lost), 5)
    assert sorted(queued_ids(broker_url, "sagas.run")) == sorted(map(str, lost))
    assert engine.scan().dispatched == ()


def test_scan_with_the_broker_down_leaves_all_due_and_says_so(
    engine: SagaEngine, app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    leave_behind(engine, 50)
    app.conf.broker_url = "redis://:secret@127.0.0.1:1/0"
    report = engine.scan()
    assert (report.dispatched, report.unsent) == ((), 50)
    assert "the broker at redis://" in caplog.text
    assert "secret" not in caplog.text
    assert len(engine.storage.get_sagas_for_recovery(100)) == 50


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
    (lease,) = held_sagas(engine, for_seconds=60)
    engine.storage.apply(lease, Progressed(events=(completed("first", Action.ACT),), status=SagaStatus.RUNNING))
    engine.storage.reclaim(lease.owner, max_recovery_attempts=5)
    celery("worker")
    celery("beat")
    record = wait_finished(engine, lease.saga_id)
    ended = [(entry.step, entry.version) for entry in record.log if entry.action is not Action.HOLDER]
    assert ended == [("first", 1), ("second", 2), ("third", 2)]


def test_saga_unknown_to_the_worker_waits_unspent_for_one_that_knows_it(engine: SagaEngine, celery: Start) -> None:
    celery("worker", SAGAS_MODULES="tests.faults.errands")
    saga_id = engine.start(ThreeSteps, Job())
    declined = wait_for_saga(engine, saga_id, lambda saga: saga.last_error is not None, "the refusal")
    assert declined.status is SagaStatus.PENDING
    assert declined.recovery_attempts == 0
    assert declined.last_error is not None
    assert declined.last_error.startswith("declined: no saga named 'three-steps' is known here")


def test_scans_do_not_pile_up_while_no_worker_runs_them(engine: SagaEngine, app: Celery, celery: Start) -> None:
    dispatcher = CeleryDispatcher(app)
    beats = [celery("beat", SAGAS_SCAN_INTERVAL_SECONDS="0.1"), celery("beat", SAGAS_SCAN_INTERVAL_SECONDS="0.1")]
    wait_until(lambda: dispatcher.length("sagas.scan") > 0, what="a scan")
    for log in [beat.log for beat in beats]:
        wait_until(lambda: log.read_text().count("Sending due task sagas.scan") >= 20, what="twenty scans' time")  # noqa: B023
    assert dispatcher.length("sagas.scan") <= len(beats)

    celery("worker")
    wait_until(lambda: dispatcher.length("sagas.scan") == 0, what="the scan")
