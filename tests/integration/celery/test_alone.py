"""Workers with many sagas in one process: their crash spends no attempt, and what they held then runs alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sagas import SagaEngine, SagaStatus
from sagas.progress import EntryStatus
from sagas.storage.records import SagaRecord, SagaState
from sagas.testing.processes import CeleryProcess, wait_until
from tests.integration.celery.conftest import Start, held_sagas, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps, marks
from tests.integration.celery.test_host import EVERYTHING
from tests.integration.celery.test_metrics import SAGA, port, wait_for_samples
from tests.integration.celery.test_worker import holder_pid

__all__ = ["port"]

SHOP = "tests.integration.celery.shop"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(environment: dict[str, str], broker_url: str, folder: Path) -> dict[str, str]:
    more = {"SHOP_BROKER": broker_url, "SHOP_FOLDER": str(folder)}
    return environment | more


def start_worker(celery: Start, pool: str, application: str, **variables: str) -> CeleryProcess:
    queues = ("-Q", EVERYTHING) if application == SHOP else ()
    return celery("worker", "-P", pool, "-c", "8", *queues, application=application, **variables)


def losses(record: SagaRecord) -> list[str]:
    """Who held the saga when it was lost."""
    return [str(entry.worker) for entry in record.log if entry.status is EntryStatus.LOST]


@pytest.mark.slow(15)
@pytest.mark.parametrize(("pool", "application", "attempts"), [("threads", "sagas", 2), ("gevent", SHOP, 1)])
def test_a_saga_that_crashes_its_worker_ends_dead_and_its_neighbours_spend_no_attempt(
    pool: str, application: str, attempts: int, celery: Start, engine: SagaEngine, folder: Path, port: int
) -> None:
    if pool == "gevent":
        pytest.importorskip("gevent")
    limit = {"SAGAS_MAX_RECOVERY_ATTEMPTS": str(attempts)}
    crashing = start_worker(celery, pool, application, **limit)
    neighbours = engine.start_many(ThreeSteps, [Job(str(folder), gate="second")] * attempts)
    wait_until(lambda: len(marks(folder, "second")) == attempts, what="the second steps")
    poison = engine.start(ThreeSteps, Job(str(folder), kill="second"))
    wait_until(lambda: crashing.exit_code is not None, what="the crash of the worker")

    def suspects() -> list[SagaRecord]:
        engine.scan()
        found = [engine.storage.load(saga_id) for saga_id in [poison, *neighbours]]
        return found if all(record.suspect for record in found) else []

    unspent = wait_until(suspects, what="the end of the leases")
    assert {(record.state, record.recovery_attempts) for record in unspent} == {(SagaState.QUEUED, 0)}

    worker = start_worker(celery, pool, application, SAGAS_METRICS_PORT=str(port), **limit)
    celery("beat")
    dead = wait_for_saga(engine, poison, lambda saga: saga.dead, "its death")
    assert (dead.recovery_attempts, len(losses(dead))) == (attempts, 1 + attempts)
    held = [wait_for_saga(engine, each, lambda saga: saga.state is SagaState.RUNNING, "a child") for each in neighbours]
    assert len({holder_pid(record.lease_owner) for record in held} - {worker.pid}) == attempts
    (folder / "open").touch()
    for saga_id in neighbours:
        record = wait_finished(engine, saga_id)
        assert (record.status, record.version, len(losses(record))) == (SagaStatus.COMPLETED, 2, 1)
        assert not record.suspect
    assert worker.exit_code is None
    # What the children counted is the worker's.
    wait_for_samples(port, lambda samples: samples.get(("sagas_runs_total", "completed", SAGA)) == attempts, "the runs")


@pytest.mark.slow(7)
def test_a_child_that_is_killed_counts_and_one_whose_worker_stops_hands_its_saga_on(
    celery: Start, engine: SagaEngine, folder: Path
) -> None:
    (lease,) = held_sagas(engine, owner="gone/1.1/shared", for_seconds=-1, job=Job(str(folder), gate="first"))
    worker = start_worker(celery, "threads", SHOP)
    engine.scan()
    wait_until(lambda: marks(folder, "first"), what="the first step")
    os.kill(holder_pid(engine.storage.load(lease.saga_id).lease_owner), signal.SIGKILL)
    wait_until(lambda: len(marks(folder, "first")) == 2, what="the first step in another child")
    assert engine.storage.load(lease.saga_id).recovery_attempts == 1

    worker.send(signal.SIGTERM)
    worker.wait_for_log("which runs a saga alone, was told to stop after its step")
    (folder / "open").touch()
    wait_until(lambda: worker.exit_code is not None, what="the worker's end")
    handed_over = engine.storage.load(lease.saga_id)
    assert (worker.exit_code, handed_over.state, handed_over.suspect) == (0, SagaState.QUEUED, False)
    assert [e.step for e in handed_over.log if e.status is EntryStatus.COMPLETED] == ["first"]

    start_worker(celery, "threads", SHOP)
    assert wait_finished(engine, lease.saga_id).status is SagaStatus.COMPLETED
    assert [len(marks(folder, step)) for step in ("first", "second", "third")] == [2, 1, 1]
