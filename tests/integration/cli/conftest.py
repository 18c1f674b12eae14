"""The command, in this process or as one of its own, on an empty database and with its broker down."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result
from typing_extensions import TypedDict

from sagas import PostgresSagaStorage, Saga, SagaEngine, Settings, Wait
from sagas.cli.app import app
from sagas.ids import new_saga_id
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga
from tests.forking import ForkedCommand
from tests.integration.cli.shop import Order, Pay, PlaceOrder, Reserve

#: What SAGAS_MODULES names.
SHOP = "tests.integration.cli.shop"


class Command(Protocol):
    """Runs `sagas` with these arguments."""

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Result: ...


@pytest.fixture
def database_url(emptied_url: str) -> str:
    """The module's database, which holds no saga."""
    return emptied_url


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    """What an operator's shell has set; the port of the broker is closed."""
    return {
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_BROKER_URL": "redis://127.0.0.1:1/0",
        "SAGAS_MODULES": SHOP,
    }


@pytest.fixture
def sagas(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process, with no dispatcher installed: Celery's would keep this environment for good."""
    monkeypatch.setattr("sagas.plugins.entry_points", lambda group: ())

    def run(*arguments: str, stdin: bytes = b"", **changed: str) -> Result:
        env = {**environment, **changed}
        return CliRunner().invoke(app, arguments, input=stdin, env=env, catch_exceptions=False, prog_name="sagas")

    return run


@pytest.fixture
def spawn(environment: Mapping[str, str], repository: Path) -> Callable[..., subprocess.Popen[bytes] | ForkedCommand]:
    """The command as an operator runs it, with whatever dispatcher is installed."""

    def start(
        *arguments: str | bytes, stdout: int = subprocess.PIPE, **changed: str
    ) -> subprocess.Popen[bytes] | ForkedCommand:
        # As the installed script: it finds the user's modules in the working directory only if it looks there.
        found = {"PYTHONPATH": str(repository), "PYTHONSAFEPATH": "1", "SAGAS_MODULES": "shop"}
        variables, directory = {**os.environ, **environment, **found, **changed}, Path(__file__).parent
        # Only an interpreter that starts reads variables of Python.
        if stdout == subprocess.PIPE and not any(name.startswith("PYTHON") for name in changed):
            return ForkedCommand(arguments, environment=variables, directory=directory)
        return subprocess.Popen(
            [sys.executable, "-m", "sagas.cli", *arguments],
            env=variables,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture
def engine(storage: PostgresSagaStorage) -> SagaEngine:
    """What prepares sagas for the command to find; one failed attempt and they are dead."""
    return SagaEngine(storage, settings=Settings(max_recovery_attempts=1), sagas=[PlaceOrder], node="worker-1")


@pytest.fixture
def ordered(engine: SagaEngine) -> Callable[[str], UUID]:
    """Runs a saga for an item and returns its id."""
    return lambda item: engine.run(PlaceOrder, Order(item)).saga_id


@pytest.fixture
def sql(storage: PostgresSagaStorage, database_url: str) -> Callable[..., Any]:
    """Executes a statement in the database."""
    database = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")

    def execute(statement: str, **parameters: Any) -> None:
        with database.connect() as connection:
            connection.execute(sa.text(statement), parameters)

    return execute


@pytest.fixture
def new(storage: PostgresSagaStorage) -> Callable[..., UUID]:
    """Stores a saga that is queued, or that this owner has, or had, for so many seconds."""

    def new(
        owner: str | None = None, for_seconds: float = 600.0, name: str = "place-order", *, queued: bool = False
    ) -> UUID:
        saga = NewSaga(id=new_saga_id(), name=name, context='{"item": "tea"}')
        lease = LeaseRequest(owner=owner, seconds=for_seconds) if owner else None
        storage.create_sagas([saga], queued=queued, lease=lease)
        return saga.id

    return new


class Accepted(TypedDict):
    courier: str


class CourierAccepts(Wait[Accepted]):
    timeout = timedelta(days=2)

    def received(self, context: Order, signal: Accepted) -> None:
        context.item += f" by {signal['courier']}"


class Deliver(Saga[Order]):
    """A saga whose code the command does not have, unless `tests.integration.cli.conftest` is among its modules."""

    steps = [Reserve, CourierAccepts, Pay]


def wait_for_courier(engine: SagaEngine, saga: type[Saga[Order]] | None = None, key: str | None = None) -> UUID:
    """Run a saga until it waits for a courier, and return its id."""
    if saga is None:
        # Under the name of the other saga, to be counted with it.
        saga = types.new_class("PlaceOrder", (Saga[Order],), {}, lambda names: names.update(steps=[CourierAccepts]))
        engine = SagaEngine(engine.storage)
    report = engine.run(saga, Order("tea"), idempotency_key=key)
    assert report.outcome == "waiting"
    return report.saga_id


def labels(output: str) -> dict[str, str]:
    """Return the facts below a table, by their labels."""
    return {line[:12].strip(): line[12:] for line in output.rpartition("\n\n")[2].splitlines()}
