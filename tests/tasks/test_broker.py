"""The broker may go: starting still succeeds, and what was started runs once it is back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from celery import Celery

from sagas import SagaEngine, SagaStatus
from tests.servers import Server, broker
from tests.tasks.conftest import Start, wait_finished
from tests.tasks.samples import Job, ThreeSteps

pytestmark = pytest.mark.skipif(
    "SAGAS_TEST_BROKER_URL" in os.environ, reason="these tests stop and start a broker of their own"
)


@pytest.fixture
def own_broker(server_directory: Path):
    with broker(server_directory / "own-broker") as server:
        yield server


def test_saga_started_while_the_broker_is_down_runs_once_it_is_back(
    engine: SagaEngine, app: Celery, celery: Start, own_broker: Server
) -> None:
    app.conf.broker_url = own_broker.url
    own_broker.stop()
    alone = engine.start(ThreeSteps, Job(), idempotency_key="order-1")
    many = engine.start_many(ThreeSteps, [Job()] * 5)
    assert engine.start(ThreeSteps, Job(), idempotency_key="order-1") == alone
    assert {engine.storage.load(saga_id).status for saga_id in [alone, *many]} == {SagaStatus.PENDING}

    # Workers and beat may be started, too, before their broker is there.
    celery("worker", wait=False, SAGAS_BROKER_URL=own_broker.url)
    celery("beat", SAGAS_BROKER_URL=own_broker.url)
    own_broker.start()
    for saga_id in [alone, *many]:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED


def test_workers_and_beat_come_back_when_the_broker_was_gone(
    engine: SagaEngine, app: Celery, celery: Start, own_broker: Server
) -> None:
    app.conf.broker_url = own_broker.url
    celery("worker", SAGAS_BROKER_URL=own_broker.url)
    celery("beat", SAGAS_BROKER_URL=own_broker.url)
    assert wait_finished(engine, engine.start(ThreeSteps, Job())).status is SagaStatus.COMPLETED

    own_broker.stop()
    saga_id = engine.start(ThreeSteps, Job())
    own_broker.start()
    assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
