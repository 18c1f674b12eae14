"""A deployment on PostgreSQL: processes with differing code, of which the first dies in the middle of a step."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage, SagaStatus
from sagas.progress import Action
from sagas.storage.records import LogEntry, SagaRecord, SagaState
from sagas.storage.saga_filter import SagaFilter
from tests.forking import run_python

OLD = """
import os
from dataclasses import dataclass, field
from sagas import OutcomeUnknown, Saga, Step

@dataclass
class Order:
    charge: str = ""
    fails: bool = False

def service(call):
    with open("asked", "a") as asked:
        print(call.idempotency_key, file=asked)

class Reserve(Step[Order]):
    def act(self, order, call):
        service(call)
    def compensate(self, order, call):
        service(call)

class Charge(Step[Order]):
    def act(self, order, call):
        service(call)
        if DIES == "act":
            os._exit(9)
        if order.fails:
            raise OutcomeUnknown("the bank did not answer")
        order.charge = "ch_1"
    def compensate(self, order, call):
        service(call)
        if DIES == "compensate":
            os._exit(9)

class Ship(Step[Order]):
    def act(self, order, call):
        service(call)

class PlaceOrder(Saga[Order]):
    steps = [Reserve, Charge, Ship]
"""
RENAMED = OLD.replace("class Charge(Step[Order]):", "class TakePayment(Step[Order]):").replace(
    "Reserve, Charge,", "Reserve, TakePayment,"
)
ALIASED = RENAMED.replace(
    "class TakePayment(Step[Order]):", 'class TakePayment(Step[Order]):\n    aliases = ["charge"]'
)
REMOVED = OLD.replace("Reserve, Charge, Ship", "Reserve, Ship")
SIDE_BY_SIDE = OLD.replace("class PlaceOrder(", "class PlaceOrderV1(").replace(
    "steps = [Reserve, Charge, Ship]", 'name = "place-order"\n    steps = [Reserve, Charge, Ship]'
) + (
    """
class PlaceOrder(Saga[Order]):
    version = 2
    steps = [Reserve, Ship]
"""
)
INSERTED = OLD.replace("class Ship(", "class Wrap(Reserve): pass\n\nclass Ship(").replace(
    "Charge, Ship]", "Wrap, Charge, Ship]"
)

WORKER = """
import sys
sys.dont_write_bytecode = True
from sagas import SagaEngine, PostgresSagaStorage

engine = SagaEngine(PostgresSagaStorage(sys.argv[1]))
engine.registry.load(["shop"])
print(DO.outcome)
"""


@dataclass
class Deployment:
    """A database, and what processes with one code or another do in it."""

    storage: PostgresSagaStorage
    engine: sa.Engine
    url: str
    directory: Path

    def worker(self, code: str, do: str, *, dies: str = "") -> subprocess.CompletedProcess[str]:
        """One process that has this code and does this."""
        (self.directory / "shop.py").write_text(f"DIES = {dies!r}\n{code}")
        program = WORKER.replace("DO", do)
        return run_python("-c", program, self.url, environment=os.environ, directory=self.directory)

    def dies_in(self, dies: str) -> None:
        """Start a saga with the old code; its process dies in this action of charging; the lease expires."""
        fails = dies == "compensate"
        run = f"engine.run(__import__('shop').PlaceOrder, __import__('shop').Order(fails={fails}))"
        done = self.worker(OLD, run, dies=dies)
        assert done.returncode == 9, done.stderr
        self.pass_time()

    def recovers(self, code: str) -> str:
        """The outcome of a recovery by a process with this code, which is what a message of a scan does."""
        done = self.worker(code, f"engine.recover('{self.stored().id}')")
        assert done.returncode == 0, done.stderr
        self.pass_time()
        return done.stdout.strip()

    def pass_time(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE saga_executions SET available_at = available_at - interval '2 minutes'")

    def stored(self) -> SagaRecord:
        (record,) = self.storage.find(SagaFilter())
        return self.storage.load(record.id)

    def asked(self) -> list[str]:
        """The keys that the services saw, in order, without the saga's id, which is one and the same."""
        keys = [line.split(":", 1) for line in (self.directory / "asked").read_text().splitlines()]
        assert {UUID(saga_id) for saga_id, _ in keys} == {self.stored().id}
        return [key for _, key in keys]


@pytest.fixture
def deployment(
    emptied_storage: PostgresSagaStorage, module_database: sa.Engine, emptied_url: str, tmp_path: Path
) -> Deployment:
    return Deployment(emptied_storage, module_database, emptied_url, tmp_path)


def declines(deployment: Deployment, code: str, reason: str) -> None:
    before = deployment.stored()

    assert deployment.recovers(code) == "declined"

    after = deployment.stored()
    assert reason in (after.last_error or "")
    assert (after.recovery_attempts, after.state) == (0, SagaState.READY)
    assert (after.status, after.context, _of_steps(after)) == (before.status, before.context, _of_steps(before))
    assert [entry.status for entry in after.log if entry.action is Action.HOLDER] == ["lost", "declined"]


def _of_steps(record: SagaRecord) -> list[LogEntry]:
    return [entry for entry in record.log if entry.action is not Action.HOLDER]


def test_old_saga_is_declined_by_code_without_the_alias_and_ended_by_code_with_it(
    deployment: Deployment,
) -> None:
    deployment.dies_in("act")

    declines(
        deployment, RENAMED, "declined: step 'charge', which this saga was started with, is none of those of PlaceOrder"
    )
    assert deployment.recovers(ALIASED) == "completed"

    assert deployment.asked() == ["reserve:act", "charge:act", "charge:act", "ship:act"]
    assert [entry.step for entry in _of_steps(deployment.stored())] == ["reserve", "charge", "ship"]
    assert deployment.stored().status is SagaStatus.COMPLETED


def test_compensation_begun_by_old_code_is_ended_by_renamed_code_with_the_same_key(deployment: Deployment) -> None:
    deployment.dies_in("compensate")

    declines(deployment, RENAMED, "renamed without its former name in `aliases`")
    assert deployment.recovers(ALIASED) == "compensated"

    assert deployment.asked() == [
        "reserve:act",
        "charge:act",
        "charge:compensate",
        "charge:compensate",
        "reserve:compensate",
    ]


@pytest.mark.parametrize("fitting", [OLD, SIDE_BY_SIDE, INSERTED], ids=["old code", "side by side", "inserted step"])
def test_old_saga_is_declined_by_code_without_its_step_and_ended_by_code_that_fits(
    deployment: Deployment, fitting: str
) -> None:
    deployment.dies_in("act")

    declines(deployment, REMOVED, "step 'charge', which this saga was started with, is none of those of PlaceOrder")
    assert deployment.recovers(fitting) == "completed"

    assert deployment.asked() == ["reserve:act", "charge:act", "charge:act", "ship:act"]
