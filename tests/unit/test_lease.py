"""Leases: renewed while a step works, lost when the database says so, and named after their holder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from queue import Queue
from time import monotonic
from uuid import UUID

import psutil
import pytest

from sagas import Call, MemorySagaStorage, PostgresSagaStorage, RetryPolicy
from sagas.errors import LeaseLost, StorageUnavailable
from sagas.lease import LeaseKeeper, default_node, owner_name
from sagas.storage.leases import Lease
from sagas.storage.saga_filter import SagaFilter
from tests.samples import DEADLINE_SECONDS, SETTINGS, QuickEngine, Stage, Trip

LEASE_SECONDS = 0.3


class Renewals(MemorySagaStorage):
    """Notes every renewal, and answers it as `answer` says."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: Queue[tuple[Lease, float]] = Queue()
        self.answer: Callable[[], None] = lambda: None

    def renew(self, lease: Lease, seconds: float) -> bool:
        self.renewed.put((lease, monotonic()))
        assert seconds == LEASE_SECONDS
        self.answer()
        return False

    def next(self) -> tuple[Lease, float]:
        return self.renewed.get(timeout=DEADLINE_SECONDS)


@pytest.fixture
def renewals() -> Renewals:
    return Renewals()


@pytest.fixture
def keeper(renewals: Renewals) -> LeaseKeeper:
    return LeaseKeeper(renewals, LEASE_SECONDS)


def a_lease(number: int = 1) -> Lease:
    return Lease(UUID(int=number), 1, "me", UUID(int=0))


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = monotonic() + DEADLINE_SECONDS
    while not condition():
        assert monotonic() < ends_at, "it did not happen in time"
        threading.Event().wait(0.005)


# -- renewing -----------------------------------------------------------------------------------------------------


def test_lease_is_renewed_every_third_of_it_while_it_is_kept(keeper: LeaseKeeper, renewals: Renewals) -> None:
    with keeper.keep(a_lease()) as kept:
        begun_at = kept.renewed_at
        seen = [renewals.next() for _ in range(3)]

    assert {lease for lease, _ in seen} == {a_lease()}
    moments = [begun_at, *(at for _, at in seen)]
    waits = [later - earlier for earlier, later in pairwise(moments)]
    assert LEASE_SECONDS / 3 <= min(waits) < LEASE_SECONDS
    assert not kept.lost


def test_lease_is_not_renewed_once_it_is_no_longer_kept(keeper: LeaseKeeper, renewals: Renewals) -> None:
    with keeper.keep(a_lease(1)):
        renewals.next()
    with keeper.keep(a_lease(2)):
        while renewals.next()[0] != a_lease(2):
            pass
        assert [renewals.next()[0] for _ in range(3)] == [a_lease(2)] * 3


def test_one_thread_renews_every_lease_of_the_process(keeper: LeaseKeeper, renewals: Renewals) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    with keeper.keep(a_lease(1)), keeper.keep(a_lease(2)):
        started = [thread for thread in threading.enumerate() if thread.ident not in before]
        wanted = {a_lease(1), a_lease(2)}
        while wanted:
            wanted -= {renewals.next()[0]}

    assert [thread.name for thread in started] == ["sagas-leases"]


def test_renewal_that_finds_another_holder_marks_the_lease_lost_and_ends(
    keeper: LeaseKeeper, renewals: Renewals
) -> None:
    def lost() -> None:
        raise LeaseLost("another worker has it")

    renewals.answer = lost
    with keeper.keep(a_lease(1)) as kept:
        wait_until(lambda: kept.lost)
        renewals.answer = lambda: None
        with keeper.keep(a_lease(2)):
            assert [renewals.next()[0] for _ in range(4)] == [a_lease(1), *[a_lease(2)] * 3]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StorageUnavailable("away"), "WARNING  sagas.lease:.* could not be renewed yet: away"),
        (ZeroDivisionError(), "ERROR    sagas.lease:.* renewing the lease failed\nTraceback"),
    ],
)
def test_renewal_that_failed_is_told_and_tried_again_and_the_lease_is_not_lost(
    keeper: LeaseKeeper, renewals: Renewals, error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    renewals.answer = fail
    with keeper.keep(a_lease()) as kept:
        kept_since = kept.renewed_at
        for _ in range(3):
            renewals.next()
        assert (kept.lost, kept.renewed_at) == (False, kept_since)
        renewals.answer = lambda: None
        wait_until(lambda: kept.renewed_at > kept_since)
    assert re.search(told, caplog.text)


def test_forked_child_renews_its_own_leases_and_not_its_parents(repository: Path) -> None:
    program = """
import os, queue, signal
from uuid import UUID
from sagas import MemorySagaStorage
from sagas.lease import LeaseKeeper
from sagas.storage.leases import Lease

class Renewals(MemorySagaStorage):
    renewed = queue.Queue()
    def renew(self, lease, seconds): self.renewed.put(lease.owner)

keeper = LeaseKeeper(Renewals(), 0.3)
def lease(owner): return Lease(UUID(int=1), 1, owner, UUID(int=0))

with keeper.keep(lease("parent")):
    assert Renewals.renewed.get(timeout=20) == "parent"
    if (child := os.fork()) == 0:
        Renewals.renewed = queue.Queue()
        with keeper.keep(lease("child")):
            seen = {Renewals.renewed.get(timeout=20) for _ in range(4)}
        os._exit(0 if seen == {"child"} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert Renewals.renewed.get(timeout=20) == "parent"
"""
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True, timeout=60)


# -- with an engine -----------------------------------------------------------------------------------------------


def test_step_that_takes_longer_than_its_lease_keeps_its_saga(storage: PostgresSagaStorage) -> None:
    settings = SETTINGS.model_copy(update={"lease_seconds": 1.5})
    stage = Stage()
    found: list[object] = []

    def slow(context: Trip, call: Call) -> None:
        ends_at = storage.load(call.saga_id).available_at
        assert ends_at
        # A renewal later than this comes after the lease as it was taken has run out.
        wait_until(lambda: storage.load(call.saga_id).updated_at > ends_at)
        found.extend(storage.get_sagas_for_recovery(10))
        found.extend(storage.claim_sagas(pending=False, limit=9, max_recovery_attempts=9).claims)

    report = QuickEngine(storage, settings=settings).run(stage.saga(stage.step("hotel", [slow]), "car"), Trip())

    assert report.outcome == "completed"
    assert found == []
    (record,) = storage.find(SagaFilter())
    assert record.version == 1


def test_lease_that_is_lost_while_the_run_waits_ends_it_before_its_next_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage, storage = Stage(), MemorySagaStorage()
    engine = QuickEngine(storage, settings=SETTINGS.model_copy(update={"lease_seconds": LEASE_SECONDS}))

    def lost() -> None:
        storage.reclaim(engine.runtime().owner, max_recovery_attempts=3)
        wait_until(lambda: "the lease was lost to another worker" in caplog.text)

    engine.on_sleep = lost
    policy = RetryPolicy(first_delay=1)

    report = engine.run(stage.saga(stage.step("hotel", [ConnectionError()], retry=policy)), Trip())

    assert report.outcome == "lost"
    assert stage.seen == ["act hotel"]
    assert len(engine.slept) == 1


# -- the holder's name --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the start time is read from /proc here")
def test_holder_is_named_after_node_pid_and_start_time() -> None:
    node, _, process = owner_name("celery@host", os.getpid()).partition("/")
    pid, _, started = process.partition(".")

    assert (node, pid) == ("celery@host", str(os.getpid()))
    assert started == Path(f"/proc/{os.getpid()}/stat").read_text().rsplit(") ", 1)[1].split()[19]


def test_holder_keeps_its_name_and_another_process_has_another() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        mine, other = owner_name("n", os.getpid()), owner_name("n", child.pid)
        assert owner_name("n", child.pid) == other
        assert mine.partition(".")[2] != other.partition(".")[2]
        child.communicate(b"\n", timeout=DEADLINE_SECONDS)


def test_process_that_is_gone_still_has_a_name() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(DEADLINE_SECONDS)
    assert not psutil.pid_exists(child.pid)

    assert owner_name("n", child.pid) == f"n/{child.pid}.0"


def test_name_of_the_holder_fits_its_column_however_long_the_nodes_is() -> None:
    assert len(owner_name("n" * 1000, 2**22)) <= 255


def test_host_names_a_process_that_is_no_worker() -> None:
    assert QuickEngine(MemorySagaStorage()).runtime().owner.startswith(f"{default_node()}/{os.getpid()}.")
