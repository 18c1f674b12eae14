"""The examples run as they stand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage, SagaStatus
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import Progressed
from sagas.testing.processes import wait_until
from tests.forking import run_python

Leave = Callable[..., Lease]

DEADLINE_SECONDS = 30
#: A saga that notes each effect in its context, so that the database alone tells what was done.
MODULE = """
from sagas import Saga, Step

class Charge(Step[dict[str, list[str]]]):
    def act(self, context, call):
        context["did"].append("charge")

class Ship(Step[dict[str, list[str]]]):
    def act(self, context, call):
        context["did"].append("ship")

class PlaceOrder(Saga[dict[str, list[str]]]):
    steps = [Charge, Ship]
"""


@pytest.fixture
def scheduler(repository: Path) -> Path:
    return repository / "examples" / "saga_recovery_scheduler.py"


@pytest.fixture
def environment(tmp_path: Path, database_url: str) -> dict[str, str]:
    """What a user sets: the database, and where the sagas are."""
    (tmp_path / "orders.py").write_text(textwrap.dedent(MODULE))
    return {
        **_without_settings(),
        "PYTHONPATH": str(tmp_path),
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_MODULES": "orders",
        "SAGAS_SCAN_INTERVAL_SECONDS": "0.1",
    }


@pytest.fixture
def leave(storage: PostgresSagaStorage, database_url: str) -> Iterator[Leave]:
    """Store a saga that charged and was then left by its worker; return the lease that the worker had."""
    engine = sa.create_engine(database_url)

    def leave(*, minutes_ago: int, lease_seconds: float = 0) -> Lease:
        saga = NewSaga(id=new_saga_id(), name="place-order", context='{"did": []}')
        request = LeaseRequest(owner="a-worker-that-died", seconds=lease_seconds)
        lease = Lease(saga.id, 1, request.owner, request.token)
        storage.create_sagas([saga], lease=request)
        charged = completed("charge", Action.ACT)
        storage.apply(lease, Progressed(events=(charged,), status=SagaStatus.RUNNING, context='{"did": ["charge"]}'))
        with engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE saga_executions SET updated_at = now() - make_interval(mins => :ago) WHERE id = :id"),
                {"ago": minutes_ago, "id": saga.id},
            )
        return lease

    yield leave
    engine.dispose()


def test_scheduler_recovers_in_memory_out_of_the_box(scheduler: Path, tmp_path: Path) -> None:
    done = _run([scheduler], _without_settings(), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    outcomes = [line.split(": ", 1)[1].split(".")[0] for line in lines if ". the saga is " in line]
    assert outcomes == ["completed", "completed", "compensated"]
    # What was charged before the worker died is not charged again; what cannot be shipped is refunded.
    assert [line.split(",")[0] for line in lines if ". the saga is " not in line] == [
        "charge for tea",
        "ship tea",
        "ship coffee",
        "refund cocoa",
    ]


def test_orders_wait_for_their_courier_are_undone_in_time_and_can_be_cancelled(
    repository: Path, tmp_path: Path
) -> None:
    done = _run([repository / "examples" / "order_with_courier.py"], _without_settings(), cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    told = [line.strip().partition(",")[0].partition(":")[0] for line in done.stdout.splitlines()]
    assert told == [
        *("order of lamp", "charge 2990 for lamp", "RUNNING", "RUNNING", "ann ships lamp", "COMPLETED"),
        *("order of desk", "charge 2990 for desk", "RUNNING", "refund 2990", "COMPENSATED"),
        *("order of sofa", "charge 2990 for sofa", "RUNNING", "refund 2990", "COMPENSATED"),
    ]


def test_scheduler_does_not_count_attempts_by_itself(scheduler: Path) -> None:
    assert "increment_recovery_attempts" not in scheduler.read_text()


def test_scheduler_is_short(scheduler: Path) -> None:
    assert len(scheduler.read_text().splitlines()) < 100


def test_scheduler_recovers_from_postgresql_once(
    scheduler: Path, environment: dict[str, str], storage: PostgresSagaStorage, leave: Leave
) -> None:
    interrupted = leave(minutes_ago=2)
    alive = leave(minutes_ago=2, lease_seconds=300)

    done = _run([scheduler, "--once"], environment)

    assert done.returncode == 0, done.stderr
    assert storage.load(interrupted.saga_id).status is SagaStatus.COMPLETED
    assert storage.load(interrupted.saga_id).context == '{"did":["charge","ship"]}'
    assert storage.load(alive.saga_id).lease_owner == alive.owner
    assert str(alive.saga_id) not in done.stdout


def test_scheduler_leaves_alone_what_was_touched_a_moment_ago(
    scheduler: Path, environment: dict[str, str], storage: PostgresSagaStorage, leave: Leave
) -> None:
    fresh = leave(minutes_ago=0)

    done = _run([scheduler, "--once"], environment)

    assert (done.returncode, done.stdout) == (0, "")
    assert storage.load(fresh.saga_id).status is SagaStatus.RUNNING


def test_scheduler_loops_on_postgresql_until_it_is_told_to_stop(
    scheduler: Path, environment: dict[str, str], storage: PostgresSagaStorage, leave: Leave, tmp_path: Path
) -> None:
    first = leave(minutes_ago=2)
    with _started(scheduler, environment, tmp_path / "log") as process:
        _wait_until_completed(storage, first)
        second = leave(minutes_ago=2)
        _wait_until_completed(storage, second)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0, (tmp_path / "log").read_text()


def test_scheduler_fails_once_when_the_database_is_away(scheduler: Path, environment: dict[str, str]) -> None:
    away = environment | {"SAGAS_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none"}

    done = _run([scheduler, "--once"], away)

    assert done.returncode == 1
    assert "StorageUnavailable" in done.stderr


def _wait_until_completed(storage: PostgresSagaStorage, lease: Lease) -> None:
    wait_until(
        lambda: storage.load(lease.saga_id).status is SagaStatus.COMPLETED,
        timeout_seconds=DEADLINE_SECONDS,
        what=f"the recovery of {lease.saga_id}",
    )


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SAGAS_")}


def _run(
    command: list[Path | str], environment: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return run_python(
        *map(str, command), environment=environment, directory=cwd or Path.cwd(), timeout=DEADLINE_SECONDS
    )


@contextmanager
def _started(script: Path, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
