"""No message ends a worker: each that cannot be understood is logged once, dropped and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from sagas import SagaEngine, SagaStatus
from tests.forking import start_celery
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.nonsense import ELEMENTS, ENVELOPES
from tests.integration.celery.samples import Job, ThreeSteps
from tests.integration.celery.test_metrics import port, scraped  # noqa: F401 (a fixture)

QUEUE = "sagas.run"
DROPPED = "dropped a message of the queue"


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(broker_url)
    yield client
    client.close()


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_messages_that_cannot_be_understood_are_dropped_and_end_no_worker(
    pool: str,
    celery: Start,
    engine: SagaEngine,
    client: redis.Redis,
    port: int,  # noqa: F811
) -> None:
    worker = celery("worker", "-P", pool, SAGAS_METRICS_PORT=str(port))
    bad = [json.dumps(message).encode() for message in ENVELOPES.values()] + list(ELEMENTS.values())
    for element in bad:
        client.lpush(QUEUE, element)

    # Behind all of them in the queue, so that its end is theirs.
    last = engine.start(ThreeSteps, Job())

    assert wait_finished(engine, last).status is SagaStatus.COMPLETED
    log = worker.log.read_text()
    assert worker.exit_code is None, log[-3000:]
    assert "Traceback" not in log
    assert log.count(DROPPED) == len(bad)
    assert "\nFORGED" not in log
    assert "\u202e" not in log
    assert len(max(log.splitlines(), key=len)) < 1_000
    counted = sum(value for name, value in scraped(port).items() if name[0] == "sagas_messages_dropped_total")
    assert counted == len(bad)
    assert client.hlen("unacked") == 0, "nothing is delivered again"


def test_messages_of_the_application_are_left_to_celery(
    environment: dict[str, str], broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "import os\n"
        "from celery import Celery\n"
        "from sagas.celery import install\n"
        "app = Celery('shop', broker=os.environ['SAGAS_BROKER_URL'])\n"
        "install(app)\n"
        "@app.task\n"
        "def add(x): return f'added {x}'\n"
    )
    arguments = ["worker", "-P", "solo", "-Q", "celery,sagas.run", "-l", "INFO"]
    with start_celery(
        arguments, application="shop", environment=environment, log=tmp_path / "log", directory=tmp_path
    ) as worker:
        shop = Celery("shop", broker=broker_url, set_as_current=False)
        shop.send_task("shop.add", (1,), task_id=uuid4())
        shop.send_task("shop.add", (2,), time_limit=Decimal(60))
        worker.wait_for_log("added 1")
        worker.wait_for_log("added 2")
        assert DROPPED not in worker.log.read_text()
        worker.kill()
        shop.close()


@pytest.mark.parametrize(
    ("pool", "kind", "command"),
    [
        ("prefork", "string", ("SET", QUEUE, "x")),
        ("solo", "hash", ("HSET", QUEUE, "a", "b")),
        ("threads", "zset", ("ZADD", QUEUE, 1, "a")),
    ],
)
def test_key_of_a_queue_that_is_no_queue_is_set_aside(
    pool: str, kind: str, command: tuple[Any, ...], celery: Start, engine: SagaEngine, client: redis.Redis
) -> None:
    worker = celery("worker", "-P", pool)
    client.execute_command(*command)

    worker.wait_for_log(f"a {kind} has its key, and is now named {QUEUE}.not-a-queue")
    assert wait_finished(engine, engine.start(ThreeSteps, Job())).status is SagaStatus.COMPLETED
    assert client.type(f"{QUEUE}.not-a-queue") == kind.encode()
    assert worker.exit_code is None
    assert "Traceback" not in worker.log.read_text()
