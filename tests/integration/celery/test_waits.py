"""Sagas that wait, through real workers: a signal wakes one by its own message, and a sleep ends by a scan."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sagas import SagaEngine, SagaStatus
from sagas.progress import EntryStatus
from sagas.storage.records import LogEntry, SagaState
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job
from tests.integration.celery.waiting_samples import Ask

SAMPLES = {"SAGAS_MODULES": Ask.__module__}


def row(engine: SagaEngine, saga_id: UUID, step: str, status: EntryStatus) -> LogEntry:
    (found,) = [e for e in engine.storage.load(saga_id).log if (e.step, e.status) == (step, status)]
    return found


def seconds_to_wake(engine: SagaEngine, saga_id: UUID) -> float:
    """Return how long after the signal was stored its saga had received it, by the database's clock."""
    received = row(engine, saga_id, "answer", EntryStatus.COMPLETED)
    (sent,) = engine.storage.signals(saga_id)
    assert received.created_at is not None
    assert sent.sent_at is not None
    return (received.created_at - sent.sent_at).total_seconds()


def test_a_saga_waits_and_a_signal_wakes_it_without_a_scan(
    celery: Start, engine: SagaEngine, record_property: Callable[[str, object], None]
) -> None:
    celery("worker", **SAMPLES)
    saga_id = engine.start(Ask, Job())
    waits = wait_for_saga(engine, saga_id, lambda saga: saga.state is SagaState.WAITING, "the wait")
    assert (waits.status, waits.lease_owner) == (SagaStatus.RUNNING, None)

    engine.signal(saga_id, "answer", "yes", actor="test")

    sleeps = wait_for_saga(engine, saga_id, lambda saga: saga.log[-1].step == "nap", "the sleep")
    assert sleeps.version == 2
    record_property("figure", f"a signal was received after {seconds_to_wake(engine, saga_id) * 1000:.0f} ms")
    # No beat runs, so nothing but the signal's own message can have woken it. A scan would take longer on average.
    assert seconds_to_wake(engine, saga_id) < 1


def test_a_sleep_ends_and_the_saga_goes_on_to_its_end(celery: Start, engine: SagaEngine) -> None:
    celery("worker", **SAMPLES)
    celery("beat", **SAMPLES)
    saga_id = engine.start(Ask, Job())
    engine.signal(saga_id, "answer", "yes")  # early: it is kept

    record = wait_finished(engine, saga_id)

    assert record.status is SagaStatus.COMPLETED
    assert [(entry.step, str(entry.status)) for entry in record.log] == [
        ("first", "completed"),
        ("answer", "completed"),
        ("nap", "armed"),
        ("nap", "completed"),
        ("third", "completed"),
    ]
    began, ended = (row(engine, saga_id, "nap", s).created_at for s in (EntryStatus.ARMED, EntryStatus.COMPLETED))
    assert began is not None
    assert ended is not None
    assert (ended - began).total_seconds() >= 1
    assert '"gate":"yes"' in record.context


def test_a_saga_is_cancelled_while_it_waits(celery: Start, engine: SagaEngine) -> None:
    celery("worker", **SAMPLES)
    saga_id = engine.start(Ask, Job())
    wait_for_saga(engine, saga_id, lambda saga: saga.state is SagaState.WAITING, "the wait")

    engine.cancel(saga_id, "changed their mind", actor="test")

    assert wait_finished(engine, saga_id).status is SagaStatus.COMPENSATED
