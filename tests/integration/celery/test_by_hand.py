"""Tasks invoked by a person: through Celery, and through a real Flower's HTTP API."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import Celery

from sagas import SagaEngine, SagaStatus
from sagas.errors import ConfigurationError, InvalidSagaId, SagaNotFound
from sagas.progress import Action
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import completed
from sagas.storage.transitions import FailedAttempt, GaveBack, Progressed
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, held_sagas, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps

DEADLINE = 30


def result_of(app: Celery, task: str, *args: Any, **kwargs: Any) -> Any:
    queue = "sagas.scan" if task in ("sagas.scan", "sagas.prune") else "sagas.recover"
    return app.send_task(task, args=args, kwargs=kwargs, queue=queue).get(timeout=DEADLINE)


def held_saga(engine: SagaEngine) -> Lease:
    (lease,) = held_sagas(engine, owner="somebody/1.1", for_seconds=600)
    return lease


def fail(engine: SagaEngine, lease: Lease, *, of: int = 9) -> None:
    """Fail one attempt of so many; the next one would be in an hour."""
    failed = FailedAttempt(events=(), after_seconds=3600, max_recovery_attempts=of, last_error="no luck")
    engine.storage.apply(lease, failed)


def test_answers_to_calls_by_hand(engine: SagaEngine, app: Celery, celery: Start) -> None:
    celery("worker")

    # A saga that backs off runs at once when a person asks.
    backing_off = held_saga(engine)
    fail(engine, backing_off)
    saga_id = backing_off.saga_id
    assert result_of(app, "sagas.recover_saga", str(saga_id)) == {
        "saga_id": str(saga_id),
        "name": "three-steps",
        "status": "COMPLETED",
        "outcome": "completed",
        "events": ["first: acted", "second: acted", "third: acted"],
        "message": "the saga is COMPLETED.",
    }

    # A finished one is left alone, and the answer says so.
    again = result_of(app, "sagas.recover_saga", str(saga_id))
    assert (again["outcome"], again["events"]) == ("skipped", [])
    assert again["message"] == "nothing to do: the saga is COMPLETED already."

    # A dead one is revived.
    dead = held_saga(engine)
    fail(engine, dead, of=1)
    assert engine.storage.load(dead.saga_id).dead
    assert result_of(app, "sagas.recover_saga", str(dead.saga_id))["outcome"] == "completed"

    # Never while somebody else holds it.
    held = held_saga(engine)
    refused = result_of(app, "sagas.recover_saga", str(held.saga_id))
    assert refused["outcome"] == "skipped"
    assert refused["message"].startswith("somebody/1.1 holds the lease until ")
    first = completed("first", Action.ACT)
    engine.storage.apply(held, Progressed(events=(first,), status=SagaStatus.RUNNING))

    # Unknown and malformed ids: one clear sentence.
    unknown = uuid4()
    with pytest.raises(SagaNotFound, match=f"no saga has the id {unknown}: check it"):
        result_of(app, "sagas.recover_saga", str(unknown))
    with pytest.raises(InvalidSagaId, match="'order-66' is not a saga's id, which is a UUID"):
        result_of(app, "sagas.recover_saga", "order-66")
    with pytest.raises(InvalidSagaId):
        result_of(app, "sagas.recover_saga", None)

    scanned = {"dispatched": 0, "died": [], "missing": 0, "unsent": 0, "scheduled": 0, "schedules_failed": []}
    assert result_of(app, "sagas.scan") == scanned

    # Pruning wants to know how old, and takes only what is finished and old enough.
    with pytest.raises(ConfigurationError, match="Pass older_than_days, or set SAGAS_RETENTION_DAYS"):
        result_of(app, "sagas.prune")
    with pytest.raises(ValueError, match="older_than_days is -1: give a number above 0"):
        result_of(app, "sagas.prune", older_than_days=-1)
    assert result_of(app, "sagas.prune", older_than_days=1)["pruned"] == 0
    assert result_of(app, "sagas.prune", older_than_days=1e-9)["pruned"] == 2
    assert engine.storage.load(held.saga_id).status is SagaStatus.RUNNING


def test_call_by_hand_counts_the_crash_it_finds_and_does_not_run_a_saga_that_it_made_dead(
    engine: SagaEngine, app: Celery, celery: Start
) -> None:
    lease = held_saga(engine)
    engine.storage.apply(lease, GaveBack(status=SagaStatus.RUNNING))
    gone = LeaseRequest(owner="gone/2.2", seconds=-1)
    assert isinstance(engine.storage.acquire(lease.saga_id, gone, max_recovery_attempts=2), Acquired)
    celery("worker", SAGAS_MAX_RECOVERY_ATTEMPTS="1")
    answer = result_of(app, "sagas.recover_saga", str(lease.saga_id))
    assert (answer["outcome"], answer["status"]) == ("skipped", "FAILED")
    assert "its worker died, which was failed attempt 1, so it is dead now" in answer["message"]
    assert engine.storage.load(lease.saga_id).dead
    assert result_of(app, "sagas.recover_saga", str(lease.saga_id))["outcome"] == "completed"


@pytest.fixture
def flower(celery: Start) -> Iterator[httpx.Client]:
    """A client of a real Flower server that asks for a password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = celery(
        *("flower", "--address=127.0.0.1", f"--port={port}", "--basic-auth=ops:a-password"),
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("ops", "a-password"), timeout=DEADLINE) as client:

        def answers() -> bool:
            assert server.exit_code is None, server.log.read_text()
            try:
                return client.get("/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, what="Flower")
        yield client


def test_saga_is_recovered_by_hand_through_flower_and_the_result_reads_well(
    engine: SagaEngine, celery: Start, flower: httpx.Client
) -> None:
    celery("worker")
    lease = held_saga(engine)
    fail(engine, lease, of=1)

    assert flower.post("/api/task/apply/sagas.recover_saga", auth=("ops", "wrong")).status_code == 401
    answer = flower.post("/api/task/apply/sagas.recover_saga", json={"args": [str(lease.saga_id)]})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["state"] == "SUCCESS"
    assert shown["result"] == {
        "saga_id": str(lease.saga_id),
        "name": "three-steps",
        "status": "COMPLETED",
        "outcome": "completed",
        "events": ["first: acted", "second: acted", "third: acted"],
        "message": "the saga is COMPLETED.",
    }
    assert wait_finished(engine, lease.saga_id).version == 2

    unknown = str(uuid4())
    refused = flower.post("/api/task/apply/sagas.recover_saga", json={"args": [unknown]}).json()
    assert refused["state"] == "FAILURE"
    assert f"no saga has the id {unknown}: check it, or see whether the saga was pruned." in str(refused["result"])

    def listed() -> list[dict[str, Any]]:
        tasks = flower.get("/api/tasks").json().values()
        return [t for t in tasks if t["name"] == "sagas.recover_saga" and t["state"] == "SUCCESS"]

    (seen,) = wait_until(listed, what="Flower's list of the task")
    assert str(lease.saga_id) in seen["args"]
    assert "'outcome': 'completed'" in seen["result"]

    # One that was sent by a program: the id and the version alone, and the result begins with what a reader wants.
    saga_id = engine.start(ThreeSteps, Job())
    wait_finished(engine, saga_id)

    def run() -> list[dict[str, Any]]:
        tasks = flower.get("/api/tasks").json().values()
        return [t for t in tasks if t["name"] == "sagas.run_saga" and t["state"] == "SUCCESS"]

    (seen,) = wait_until(run, what="Flower's list of the run")
    assert (seen["args"], seen["kwargs"]) == (str(saga_id), "version 0")
    assert seen["result"].startswith("{'name': 'three-steps', 'outcome': 'completed', 'message': ")
