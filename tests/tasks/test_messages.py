"""No message ends a worker: each that cannot be understood is logged once, dropped and counted."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from sagas import SagaEngine, SagaStatus
from tests.tasks.conftest import Start, wait_finished
from tests.tasks.samples import Job, ThreeSteps
from tests.tasks.test_metrics import port, scraped  # noqa: F401 (a fixture)

QUEUE = "sagas.run"
DROPPED = "dropped a message of the queue"
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(body: Any, *, encoded: bool = False, without: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """A message as Celery's, around this body; `headers__task` and the like change parts of its parts."""
    text = body if encoded else json.dumps(body)
    made: dict[str, Any] = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "sagas.run_saga", "id": str(uuid.uuid4()), "argsrepr": "", "kwargsrepr": ""},
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        part = made
        for parent in parents:
            part = part[parent]
        part[last.replace("_", "-") if last.startswith("content") else last] = value
    for name in without:
        *parents, last = name.split("__")
        part = made
        for parent in parents:
            part = part[parent]
        del part[last]
    return made


GOOD = [[str(uuid.uuid4())], {"version": 0}, EMBED]

ENVELOPES: dict[str, dict[str, Any]] = {
    "a body null": envelope(None),
    "a body []": envelope([]),
    "a body [[1]]": envelope([[1]]),
    "a body of four": envelope([[], {}, {}, 1]),
    "a body that is a number": envelope(5),
    "a body that is text": envelope("text"),
    "an empty body": envelope("", encoded=True),
    "a body that is no JSON": envelope("{not json", encoded=True),
    "a body nested too deeply": envelope("[" * 100_000, encoded=True),
    "a body that is no base64": envelope(GOOD) | {"body": "!"},
    "a body of no text": envelope(GOOD) | {"body": 5},
    "no body": envelope(GOOD, without=("body",)),
    "bytes that are no text": envelope(GOOD) | {"body": base64.b64encode(b"\xff\xfe\xfd").decode()},
    "an encoding of the body that nobody knows": envelope(GOOD, properties__body_encoding="rot13"),
    "a content type that is not accepted": envelope(GOOD, content_type="application/x-python-serialize"),
    "a content type that nobody knows": envelope(GOOD, content_type="application/x-nothing"),
    "a content type that is no text": envelope(GOOD, content_type=[1]),
    "a compression that nobody knows": envelope(GOOD, headers__compression="application/x-nothing"),
    "no headers": envelope(GOOD, without=("headers",)),
    "headers that are a list": envelope(GOOD, headers=[1]),
    "no task": envelope(GOOD, without=("headers__task",)),
    "no id": envelope(GOOD, without=("headers__id",)),
    "an id that is a list": envelope(GOOD, headers__id=[1]),
    "a task that is a list": envelope(GOOD, headers__task=[1]),
    "an unknown task": envelope(GOOD, headers__task="shop.charge\n2031-01-01 FORGED \u202e"),
    "an unknown task without id": envelope(GOOD, headers__task="shop.charge", without=("headers__id",)),
    "time limits that are text": envelope(GOOD, headers__timelimit="xy"),
    "time limits of three": envelope(GOOD, headers__timelimit=[1, 2, 3]),
    "an eta that is no time": envelope(GOOD, headers__eta="tomorrow"),
    "an expiry that is no time": envelope(GOOD, headers__expires={"a": 1}),
    "properties that are text": envelope(GOOD) | {"properties": "p"},
    "no properties": envelope(GOOD, without=("properties",)),
    "no delivery information": envelope(GOOD, without=("properties__delivery_info",)),
    "a delivery tag that is a list": envelope(GOOD, properties__delivery_tag=[1]),
    "no delivery tag": envelope(GOOD, properties__delivery_tag=None),
    "the protocol before, of an unknown task": envelope(
        {"task": "shop.charge", "id": "1", "args": [], "kwargs": {}}, headers={}
    ),
    "the protocol before, without id": envelope({"task": "sagas.run_saga", "args": [], "kwargs": {}}, headers={}),
    "the protocol before, with arguments that are none": envelope(
        {"task": "sagas.run_saga", "id": "1", "args": 1, "kwargs": 1}, headers={}
    ),
    "a huge one": envelope(["x" * 20_000_000]),
}
ELEMENTS = {
    "no JSON": b"not json",
    "no text": b"\xff\xfe",
    "nothing": b"",
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a text": b'"text"',
    "half of a message": json.dumps(envelope(GOOD)).encode()[:200],
}


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


@pytest.mark.parametrize("pool", ["prefork", "solo"])
@pytest.mark.parametrize(
    ("kind", "command"),
    [("string", ("SET", QUEUE, "x")), ("hash", ("HSET", QUEUE, "a", "b")), ("zset", ("ZADD", QUEUE, 1, "a"))],
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
