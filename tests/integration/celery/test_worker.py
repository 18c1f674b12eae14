"""Sagas through real workers: every pool, and every way for a worker to go."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import UUID

import pytest

from sagas import SagaEngine, SagaStatus
from sagas.progress import Action, EntryStatus
from sagas.storage.records import SagaRecord, SagaState
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps, marks


def holder_pid(owner: str | None) -> int:
    assert owner is not None
    return int(owner.rpartition("/")[2].partition(".")[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def wait_inside_second(engine: SagaEngine, saga_id: UUID, folder: Path) -> SagaRecord:
    """Wait until the second step has begun: its row in the log comes only when it ends."""
    wait_until(lambda: marks(folder, "second"), what="the second step")
    return engine.storage.load(saga_id)


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_sagas_run_forward_and_backward_in_every_pool(
    pool: str, celery: Start, engine: SagaEngine, folder: Path
) -> None:
    celery("worker", "-P", pool)
    good = engine.start_many(ThreeSteps, [Job(str(folder))] * 10)
    bad = engine.start(ThreeSteps, Job(str(folder), fail="third"))

    for saga_id in good:
        record = wait_finished(engine, saga_id)
        assert record.status is SagaStatus.COMPLETED
        assert [entry.step for entry in record.log] == ["first", "second", "third"]
        assert {entry.version for entry in record.log} == {1}
    assert wait_finished(engine, bad).status is SagaStatus.COMPENSATED
    assert len(marks(folder, "first")) == 11
    assert marks(folder, "first", "compensate") == [f"{bad}:first:compensate"]


def test_saga_of_a_killed_child_is_taken_over_at_once(celery: Start, engine: SagaEngine, folder: Path) -> None:
    celery("worker", SAGAS_LEASE_SECONDS="600")  # only the parent can have noticed
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_inside_second(engine, saga_id, folder)

    os.kill(holder_pid(held.lease_owner), signal.SIGKILL)
    taken = wait_for_saga(engine, saga_id, lambda saga: saga.version == 2, "the takeover")
    assert taken.lease_owner != held.lease_owner
    assert [(e.action, e.status) for e in taken.log[1:]] == [(Action.HOLDER, EntryStatus.LOST)]
    assert taken.recovery_attempts == 0, "the first hold is not a recovery, so its crash is not a failed one"

    (folder / "open").touch()
    assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert len(marks(folder, "first")) == 1
    assert set(marks(folder, "second")) == {f"{saga_id}:second:act"}


def test_saga_that_kills_its_workers_is_dead_after_the_maximum_and_its_neighbours_are_unharmed(
    celery: Start, engine: SagaEngine, folder: Path
) -> None:
    celery("worker", SAGAS_MAX_RECOVERY_ATTEMPTS="3", SAGAS_LEASE_SECONDS="600")
    poison = engine.start(ThreeSteps, Job(str(folder), kill="second"))
    neighbours = engine.start_many(ThreeSteps, [Job()] * 10)

    record = wait_for_saga(engine, poison, lambda saga: saga.dead, "death")
    assert record.recovery_attempts == 3
    assert len(marks(folder, "second")) == 4, "the first run, and three recoveries"
    assert record.last_error is not None
    assert "died" in record.last_error
    assert all(wait_finished(engine, saga_id).status is SagaStatus.COMPLETED for saga_id in neighbours)


def test_saga_of_a_killed_host_is_taken_over_when_its_lease_runs_out(
    celery: Start, engine: SagaEngine, folder: Path
) -> None:
    victim = celery("worker")
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_inside_second(engine, saga_id, folder)
    celery("worker")
    celery("beat")

    victim.kill()
    taken = wait_for_saga(engine, saga_id, lambda saga: saga.version > held.version, "the takeover")
    assert taken.lease_owner is not None
    assert taken.lease_owner.startswith("w2@test/")
    (folder / "open").touch()
    assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert len(marks(folder, "first")) == 1


def test_step_longer_than_the_lease_keeps_its_saga(celery: Start, engine: SagaEngine, folder: Path) -> None:
    celery("worker", SAGAS_LEASE_SECONDS="1")
    celery("beat")
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_inside_second(engine, saga_id, folder)
    assert held.available_at is not None

    later = wait_for_saga(
        engine,
        saga_id,
        lambda saga: (saga.available_at - held.available_at).total_seconds() > 2,
        "renewals for two leases",
    )
    assert (later.version, later.lease_owner) == (1, held.lease_owner)
    (folder / "open").touch()
    assert wait_finished(engine, saga_id).version == 1


def test_frozen_worker_finds_its_saga_taken_over_and_writes_nothing(
    celery: Start, engine: SagaEngine, folder: Path
) -> None:
    frozen = celery("worker")
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_inside_second(engine, saga_id, folder)
    frozen.send_to_group(signal.SIGSTOP)
    celery("worker")
    celery("beat")
    wait_for_saga(engine, saga_id, lambda saga: saga.version == 2, "the takeover")
    (folder / "open").touch()
    record = wait_finished(engine, saga_id)

    frozen.send_to_group(signal.SIGCONT)
    frozen.wait_for_log(f"saga {saga_id} (three-steps): lost")
    after = engine.storage.load(saga_id)
    assert after == record
    assert [(entry.step, entry.version) for entry in after.log] == [
        *(("first", 1), ("holder", 1)),
        *(("second", 2), ("third", 2)),
    ]
    assert held.lease_owner not in {entry.worker for entry in after.log[2:]}


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_worker_told_to_stop_hands_its_saga_on_after_the_step(
    pool: str, celery: Start, engine: SagaEngine, folder: Path
) -> None:
    stopping = celery("worker", "-P", pool, SAGAS_LEASE_SECONDS="600")
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    wait_inside_second(engine, saga_id, folder)

    stopping.send(signal.SIGTERM)
    stopping.wait_for_log("Warm shutdown")
    (folder / "open").touch()
    wait_until(lambda: stopping.exit_code is not None, what="the worker's end")
    handed_over = engine.storage.load(saga_id)
    assert stopping.exit_code == 0
    assert [entry.step for entry in handed_over.log] == ["first", "second"]
    assert handed_over.state is SagaState.QUEUED, "its message is on its way"
    assert handed_over.recovery_attempts == 0

    celery("worker")
    assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert [len(marks(folder, step)) for step in ("first", "second", "third")] == [1, 1, 1]


@pytest.mark.slow(8)
def test_long_wait_before_a_retry_holds_no_worker(celery: Start, engine: SagaEngine, folder: Path) -> None:
    celery("worker")
    celery("beat")
    saga_id = engine.start(ThreeSteps, Job(str(folder), flaky=6.0))
    waiting = wait_for_saga(
        engine, saga_id, lambda saga: len(saga.log) == 2 and saga.state is SagaState.READY, "the durable wait"
    )
    assert waiting.status is SagaStatus.RUNNING
    record = wait_finished(engine, saga_id)
    assert record.status is SagaStatus.COMPLETED
    assert [(e.step, str(e.status), e.attempt) for e in record.log][1:3] == [
        ("second", "failed", 1),
        ("second", "completed", 2),
    ]


def test_worker_refuses_a_database_that_is_behind(empty_database_url: str, celery: Start) -> None:
    worker = celery("worker", wait=False, SAGAS_DATABASE_URL=empty_database_url)
    wait_until(lambda: worker.exit_code is not None, what="the worker's refusal")
    assert worker.exit_code == 1
    last = worker.log.read_text().strip().splitlines()[-1]
    assert last == (
        "error: the database has no saga tables of this version, and this code needs 0007: run `sagas migrate`."
    )


def test_worker_refuses_settings_that_cannot_work(celery: Start) -> None:
    worker = celery("worker", wait=False, SAGAS_LEASE_SECONDS="0", SAGAS_SCAN_LIMIT="-3")
    wait_until(lambda: worker.exit_code is not None, what="the worker's refusal")
    assert worker.exit_code == 1
    last = worker.log.read_text().strip().splitlines()[-1]
    assert last.startswith("error: SAGAS_LEASE_SECONDS (it is '0'): Input should be greater than 0.")
    assert "SAGAS_SCAN_LIMIT (it is '-3')" in last


def test_worker_refuses_modules_that_cannot_be_imported(celery: Start) -> None:
    worker = celery("worker", wait=False, SAGAS_MODULES="no_such_module")
    wait_until(lambda: worker.exit_code is not None, what="the worker's refusal")
    assert worker.exit_code == 1
    assert "error: SAGAS_MODULES names 'no_such_module', which cannot be imported" in worker.log.read_text()
