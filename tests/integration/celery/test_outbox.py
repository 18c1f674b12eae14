"""The outbox and transactional steps in real workers that are killed, or frozen and replaced."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from sagas import SagaEngine
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.outbox_samples import CountParcel, Parcel, SendParcel

SAMPLES = {"SAGAS_MODULES": "tests.integration.celery.outbox_samples"}


def mails(broker_url: str) -> list[dict[str, Any]]:
    """Return the messages that wait in the queue `mail`."""
    client = redis.Redis.from_url(broker_url)
    try:
        return [json.loads(message) for message in client.lrange("mail", 0, -1)]
    finally:
        client.close()


def waiting(database_url: str) -> int:
    """Return the number of tasks in the outbox."""
    engine = sa.create_engine(database_url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM saga_outbox")).scalar_one())
    finally:
        engine.dispose()


def test_task_is_sent_by_the_worker_right_after_the_checkpoint(
    celery: Start, engine: SagaEngine, broker_url: str, database_url: str
) -> None:
    celery("worker", **SAMPLES)

    saga_id = engine.start(SendParcel, Parcel(7))

    wait_finished(engine, saga_id)
    (mail,) = wait_until(lambda: mails(broker_url), what="the mail")
    assert (mail["headers"]["task"], mail["headers"]["argsrepr"], mail["content-type"]) == (
        "shop.mail",
        "[7]",
        "application/json",
    )
    assert waiting(database_url) == 0


@pytest.mark.timeout(120)
@pytest.mark.slow(11)
def test_task_of_a_worker_that_died_after_the_commit_is_sent_by_a_scan(
    celery: Start, engine: SagaEngine, broker_url: str, database_url: str
) -> None:
    celery("worker", **SAMPLES, DIE_BEFORE_SENDING="1")
    saga_id = engine.start(SendParcel, Parcel(7))
    wait_until(lambda: waiting(database_url) == 1, what="the checkpoint")
    assert mails(broker_url) == []

    celery("worker", **SAMPLES)
    celery("beat", **SAMPLES)

    # The first worker takes scans too, and dies in each: the other one sends.
    wait_finished(engine, saga_id)
    (mail,) = wait_until(lambda: mails(broker_url), timeout_seconds=60, what="the mail")
    assert mail["headers"]["task"] == "shop.mail"
    wait_until(lambda: waiting(database_url) == 0, what="the emptied outbox")


@pytest.mark.timeout(120)
def test_effect_of_a_worker_that_was_frozen_and_replaced_is_rolled_back(
    celery: Start, engine: SagaEngine, database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    database = sa.create_engine(database_url)
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE counters AS SELECT 0 AS value")
    frozen = celery("worker", "-c1", **SAMPLES)
    saga_id = engine.start(CountParcel, Parcel(7, str(folder)))
    mark = wait_until(lambda: next(folder.glob("wrote-*"), None), what="the write of the first worker")
    pid = int(mark.name.removeprefix("wrote-"))
    os.kill(pid, signal.SIGSTOP)
    try:
        celery("worker", "-c1", **SAMPLES)
        celery("beat", **SAMPLES)
        record = wait_finished(engine, saga_id)
    finally:
        (folder / "open").touch()
        os.kill(pid, signal.SIGCONT)

    frozen.wait_for_log("lost")
    with database.connect() as connection:
        assert connection.exec_driver_sql("SELECT value FROM counters").scalar() == 1
    database.dispose()
    assert [(entry.step, entry.status, entry.version) for entry in record.log] == [
        ("holder", "lost", 1),
        ("count", "completed", 2),
        ("pack", "completed", 2),
    ]
    assert wait_for_saga(engine, saga_id, lambda saga: saga.version == 2, "nobody else").recovery_attempts == 0
