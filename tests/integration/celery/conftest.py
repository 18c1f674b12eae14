"""Real Celery processes on a database and a broker of the test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery

from sagas import PostgresSagaStorage, SagaEngine, Settings, api
from sagas.celery import install
from sagas.celery.application import SagaCelery
from sagas.celery.dispatch import CeleryDispatcher
from sagas.ids import new_saga_id
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, SagaRecord
from sagas.testing.processes import CeleryProcess, wait_until
from tests.forking import start_celery
from tests.integration.celery.samples import Job, ThreeSteps

Start = Callable[..., CeleryProcess]
#: Short, so that tests need not wait for what takes 30 s in production; not so short that a slow machine loses leases.
LEASE_SECONDS = 3.0


@pytest.fixture
def environment(database_url: str, broker_url: str, repository: Path) -> dict[str, str]:
    """The variables that every process of a test shares."""
    return {
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "tests.integration.celery.samples",
        "SAGAS_LEASE_SECONDS": str(LEASE_SECONDS),
        "SAGAS_SCAN_INTERVAL_SECONDS": "0.5",
        "SAGAS_BACKOFF_SECONDS": "0.2",
        "PYTHONPATH": str(repository),
    }


@pytest.fixture
def celery(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a `celery -A ...` process; a worker is waited for until it is ready."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(*arguments: str, wait: bool = True, application: str = "sagas", **variables: str) -> CeleryProcess:
            command = list(arguments)
            variables.setdefault("TMPDIR", str(tmp_path))  # where a killed worker leaves its pool's files
            number = next(numbers)
            if command[0] == "worker":
                command += ["-n", f"w{number}@test"]
                if not any(argument.startswith("-c") for argument in command):
                    command += ["-c", "2"]
            if command[0] in ("worker", "beat"):
                command += ["-l", "INFO"]
            log = tmp_path / f"{command[0]}-{number}.log"
            process = start_celery(
                command, environment=environment | variables, log=log, directory=tmp_path, application=application
            )
            stack.callback(process.kill)
            if wait and command[0] == "worker":
                process.wait_for_log(" ready.")
            if wait and command[0] == "beat":
                process.wait_for_log("beat: Starting")
            return process

        yield start
        for process in tmp_path.glob("*.log"):
            if os.environ.get("SAGAS_TEST_LOGS"):
                print(f"--- {process.name}\n{process.read_text(errors='replace')[-5000:]}")


@pytest.fixture
def app(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The sagas' own application, as a program with the test's variables would have it."""
    monkeypatch.setattr(api, "_defaults", {})
    app = SagaCelery(Settings.from_environment(environment))
    install(app)
    yield app
    app.close()


@pytest.fixture
def engine(environment: dict[str, str], app: Celery) -> Iterator[SagaEngine]:
    """An engine in the test's own process, as a web application would have one."""
    storage = PostgresSagaStorage(environment["SAGAS_DATABASE_URL"])
    settings = Settings.from_environment(environment)
    yield SagaEngine(storage, dispatcher=CeleryDispatcher(app), settings=settings, sagas=[ThreeSteps])
    storage.close()


def held_sagas(
    engine: SagaEngine, count: int = 1, *, owner: str = "gone/1.1", for_seconds: float, job: Job | None = None
) -> list[Lease]:
    """Store sagas that a worker holds; below 0 seconds, its lease has run out."""
    context, request = ThreeSteps.codec.dump(job or Job()), LeaseRequest(owner=owner, seconds=for_seconds)
    new = [NewSaga(id=new_saga_id(), name=ThreeSteps.name, context=context) for _ in range(count)]
    engine.storage.create_sagas(new, lease=request)
    return [Lease(saga.id, 1, request.owner, request.token) for saga in new]


def wait_for_saga(engine: SagaEngine, saga_id, condition: Callable[[SagaRecord], bool], what: str) -> SagaRecord:
    """Wait until the saga is as the condition says, and return it."""

    def look() -> SagaRecord | None:
        record = engine.storage.load(saga_id)
        return record if condition(record) else None

    return wait_until(look, timeout_seconds=60, what=f"{what} (saga {saga_id})")


def wait_finished(engine: SagaEngine, saga_id) -> SagaRecord:
    """Wait until the saga is finished, and return it."""
    return wait_for_saga(engine, saga_id, lambda record: record.status.finished, "the end")
