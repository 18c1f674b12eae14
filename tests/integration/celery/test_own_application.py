"""The sagas' own application as `celery -A sagas` finds it: what it says, and what it refuses."""

from __future__ import annotations

import pytest

from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start


def test_worker_that_knows_no_saga_says_so(celery: Start) -> None:
    worker = celery("worker", SAGAS_MODULES="")
    assert "knows no saga, so it declines every one: name the modules that define them in SAGAS_MODULES" in (
        worker.log.read_text()
    )


def test_worker_whose_modules_hold_no_saga_refuses_to_start(celery: Start) -> None:
    worker = celery("worker", wait=False, SAGAS_MODULES="json")
    wait_until(lambda: worker.exit_code is not None, what="the worker's refusal")
    last = worker.log.read_text().strip().splitlines()[-1]
    assert last == "error: SAGAS_MODULES names 'json', which holds no Saga class: name the module that defines them."


def test_worker_that_takes_no_queue_of_sagas_refuses_to_start(celery: Start) -> None:
    worker = celery("worker", wait=False, CELERY_WORKER_QUEUES="celery,mail")
    wait_until(lambda: worker.exit_code is not None, what="the worker's refusal")
    assert worker.exit_code == 1
    assert (
        "error: this worker takes celery, mail, which is no queue of sagas: name some of sagas.scan, sagas.recover, "
        "sagas.run after -Q (or in CELERY_WORKER_QUEUES), or leave it out."
    ) in worker.log.read_text()


def test_commands_of_the_own_application_refuse_where_another_one_carries_sagas(celery: Start) -> None:
    for command in ("worker", "beat"):
        process = celery(command, wait=False, SAGAS_CELERY_APP="shop:app")
        wait_until(lambda process=process: process.exit_code is not None, what=f"the refusal of {command}")
        assert f"start it as `celery -A shop:app {command}`" in process.log.read_text()


def test_worker_without_a_database_says_so_at_any_log_level(celery: Start) -> None:
    url = "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop"
    worker = celery("worker", "-l", "WARNING", "-c", "1", wait=False, SAGAS_DATABASE_URL=url)
    worker.wait_for_log("starting all the same: the database at 127.0.0.1:1/shop did not answer")
    celery("beat", SAGAS_DATABASE_URL=url)
    worker.wait_for_log("no scan: the database at 127.0.0.1:1/shop did not answer")
    assert "s3cr3t" not in worker.log.read_text()


@pytest.mark.parametrize(
    "url", ["redis://:s3cr3t/x@h:2/0", "redis://:s3cr3t@h/0?x=1", "bogus://:s3cr3t@h", "rediss://h/0?ssl_cert_reqs=x"]
)
def test_every_command_of_celery_refuses_a_url_that_cannot_be_read(celery: Start, url: str) -> None:
    processes = [celery(*command.split(), wait=False, SAGAS_BROKER_URL=url) for command in ("worker", "beat", "flower")]
    for process in processes:
        wait_until(lambda process=process: process.exit_code is not None, what="the refusal")
        (sentence,) = process.log.read_text().strip().splitlines()
        assert sentence.startswith("error: SAGAS_BROKER_URL")
        assert "s3cr3t" not in sentence
        assert process.exit_code == 1
