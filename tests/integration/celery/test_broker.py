"""The broker may go: starting still succeeds, and what was started runs once it is back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import Celery
from kombu.utils.url import parse_url

from sagas import SagaEngine, SagaStatus
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.installation import add_sagas
from tests.faults.network import Forwarding
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps
from tests.servers import Server, broker

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


@pytest.mark.slow(6)
def test_starting_in_an_application_does_not_hang_on_a_link_that_drops_packets(
    engine: SagaEngine, broker_url: str
) -> None:
    link = Forwarding(parse_url(broker_url)["port"])
    # With Celery's defaults, which bound no link to Redis.
    shop = Celery("shop", broker=f"redis://{link.host}:{link.port}/0", set_as_current=False)
    add_sagas(shop)
    engine.dispatcher = CeleryDispatcher(shop)
    with ThreadPoolExecutor(1) as pool:
        try:
            engine.start(ThreeSteps, Job())
            link.cut()
            saga_id = pool.submit(engine.start, ThreeSteps, Job()).result(timeout=60)
        finally:
            link.heal()
            link.close()
    assert engine.storage.load(saga_id).status is SagaStatus.PENDING


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
