"""Messages that a worker of 0.1.0 left in the broker are understood by the workers that replace it."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis

from sagas import SagaEngine, SagaStatus
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import LogEntry, NewSaga
from sagas.storage.transitions import GaveBack
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps

pytestmark = pytest.mark.usefixtures("database_url")


def envelope(task: str, queue: str, saga_id: UUID, version: int) -> str:
    """A message as 0.1.0 put it into Redis."""
    task_id = str(uuid4())
    body = [[str(saga_id)], {"version": version}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]
    shown = {"argsrepr": str(saga_id), "kwargsrepr": f"version {version}"}
    headers: dict[str, Any] = {
        **dict.fromkeys(("shadow", "eta", "expires", "group", "group_index", "parent_id", "stamped_headers")),
        **shown,
        "lang": "py",
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "retries": 0,
        "timelimit": [None, None],
        "origin": "gen2642@host",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamps": {},
    }
    properties = {
        **shown,
        "correlation_id": task_id,
        "reply_to": str(uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


def test_messages_of_the_release_before_are_run(celery: Start, engine: SagaEngine, broker_url: str) -> None:
    started, interrupted = new_saga_id(), new_saga_id()
    context = ThreeSteps.codec.dump(Job())
    definition = engine.definitions.register(ThreeSteps.graph)
    request = LeaseRequest(owner="w1@old/1.1", seconds=600)
    for saga_id in (started, interrupted):
        new = NewSaga(id=saga_id, name=ThreeSteps.name, context=context, definition=definition)
        engine.storage.create_sagas([new], queued=saga_id == started, lease=None if saga_id == started else request)
    # The second was handed over after its first step, as a worker does that is asked to stop.
    first = LogEntry(step="first", action=Action.ACT, status=EntryStatus.COMPLETED)
    handed_over = GaveBack(status=SagaStatus.RUNNING, queued=True, events=(first,))
    engine.storage.apply(Lease(interrupted, 1, request.owner, request.token), handed_over)
    client = redis.Redis.from_url(broker_url)
    client.lpush("sagas.run", envelope("sagas.run_saga", "sagas.run", started, 0))
    client.lpush("sagas.recover", envelope("sagas.recover_saga", "sagas.recover", interrupted, 1))
    client.close()

    celery("worker", "-c", "1")

    for saga_id in (started, interrupted):
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
