"""A caller that keeps its transaction open after `signal` delays nobody else: no worker, no sender, no scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage, SagaStatus, Wait
from sagas.execution import Outcome
from sagas.storage.records import SagaState
from tests.samples import FakeDispatcher, QuickEngine, Stage, Trip, saga_of

ResultT = TypeVar("ResultT")


class Courier(Wait[int]):
    timeout = timedelta(hours=1)

    def received(self, context: Trip, signal: int) -> None:
        context.note = signal


class Place:
    """A saga that waits between two steps, an engine, and a caller with an open transaction."""

    def __init__(self, database: sa.Engine, caller: sa.Connection, pool: ThreadPoolExecutor) -> None:
        self.stage = Stage()
        self.saga = saga_of([self.stage.step("hotel"), Courier, self.stage.step("car")])
        self.engine = QuickEngine(PostgresSagaStorage(database), sagas=[self.saga], dispatcher=FakeDispatcher())
        self.caller = caller
        #: How many sessions are known to wait for a lock.
        self.waiting = 0
        self._database = database
        self._pool = pool

    def start(self) -> UUID:
        saga_id = self.engine.start(self.saga, Trip())
        self.engine.storage.connect()
        return saga_id

    def signal_and_stay(self, saga_id: UUID, signal_id: str = "caller") -> None:
        """Signal the saga in the caller's transaction, and leave that open."""
        assert self.engine.signal(saga_id, "courier", 1, signal_id=signal_id, connection=self.caller)

    def unblocked(self, call: Callable[[], ResultT]) -> ResultT:
        """Make a call in another thread; it must end, and never wait for a lock, while the caller stays."""
        running = self._pool.submit(call)
        while (waits := self._waits(running)) is not None:
            assert not waits, "it waits for a lock"
        return running.result()

    def begin(self, call: Callable[[], ResultT]) -> Future[ResultT]:
        """Make a call in another thread, and return once it waits for a lock."""
        running = self._pool.submit(call)
        while not self._waits(running):
            assert not running.done(), "it did not wait"
        return running

    def _waits(self, running: Future[Any]) -> bool | None:
        """Return whether more sessions wait for locks than did before; None if the call has ended."""
        try:
            running.exception(0.005)
        except NotYet:
            with self._database.connect() as connection:
                waiting: int = connection.exec_driver_sql(_WAITING).scalar_one()
                return waiting > self.waiting
        return None


_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"""


@pytest.fixture
def place(database_url: str) -> Iterator[Place]:
    database = sa.create_engine(database_url)
    with ThreadPoolExecutor(4) as pool, database.connect() as caller:
        yield Place(database, caller, pool)
        caller.rollback()
    database.dispose()


def test_a_worker_runs_checkpoints_and_suspends_the_saga_while_the_caller_stays(place: Place) -> None:
    saga_id = place.start()
    place.signal_and_stay(saga_id)

    report = place.unblocked(lambda: place.engine.recover(saga_id))

    assert (report.outcome, place.stage.seen) == (Outcome.WAITING, ["act hotel"])
    assert place.engine.storage.load(saga_id).state is SagaState.WAITING
    place.caller.commit()
    place.engine.send(saga_id)
    assert place.engine.recover(saga_id).outcome is Outcome.COMPLETED
    assert place.engine.storage.load(saga_id).context == '{"booked":[],"note":1}'


def test_another_sender_wakes_the_saga_while_the_caller_stays(place: Place) -> None:
    saga_id = place.start()
    place.engine.recover(saga_id)
    place.signal_and_stay(saga_id)

    assert place.unblocked(lambda: place.engine.signal(saga_id, "courier", 2, signal_id="other"))
    report = place.unblocked(lambda: place.engine.recover(saga_id))

    assert report.outcome is Outcome.COMPLETED
    assert place.engine.storage.load(saga_id).context == '{"booked":[],"note":2}'


def test_a_scan_and_a_request_to_cancel_wait_for_no_caller(place: Place) -> None:
    saga_id = place.start()
    place.engine.recover(saga_id)
    place.signal_and_stay(saga_id)

    place.unblocked(place.engine.scan)
    place.unblocked(lambda: place.engine.cancel(saga_id, "why"))
    place.unblocked(lambda: place.engine.storage.prune(older_than_seconds=0, limit=10))
    report = place.unblocked(lambda: place.engine.recover(saga_id))

    assert report.status is SagaStatus.COMPENSATED


def test_two_callers_that_signal_two_sagas_in_opposite_orders_do_not_deadlock(place: Place, database_url: str) -> None:
    one, other = place.start(), place.start()
    database = sa.create_engine(database_url)
    with database.connect() as second:
        place.signal_and_stay(one, "first")
        place.engine.signal(other, "courier", 2, signal_id="second", connection=second)
        place.unblocked(lambda: place.signal_and_stay(other, "first"))
        place.unblocked(lambda: place.engine.signal(one, "courier", 2, signal_id="second", connection=second))
        second.commit()
        place.caller.commit()
    database.dispose()

    assert [len(place.engine.storage.signals(saga_id)) for saga_id in (one, other)] == [2, 2]


def test_a_sender_of_the_same_signal_waits_for_the_caller_and_holds_up_no_worker(place: Place) -> None:
    # Whether its signal is new is known once the caller commits. Until then it must not have the saga's row.
    saga_id = place.start()
    place.signal_and_stay(saga_id, "the same")

    repeated = place.begin(lambda: place.engine.signal(saga_id, "courier", 1, signal_id="the same"))
    place.waiting = 1
    report = place.unblocked(lambda: place.engine.recover(saga_id))

    assert report.outcome is Outcome.WAITING
    place.caller.commit()
    assert repeated.result() is False
    assert place.engine.recover(saga_id).outcome is Outcome.COMPLETED


def test_a_sender_whose_twin_rolls_back_sends_the_signal(place: Place) -> None:
    saga_id = place.start()
    place.engine.recover(saga_id)
    place.signal_and_stay(saga_id, "the same")

    repeated = place.begin(lambda: place.engine.signal(saga_id, "courier", 1, signal_id="the same"))
    place.caller.rollback()

    assert repeated.result() is True
    assert place.engine.storage.load(saga_id).inbox == 1
    assert place.engine.recover(saga_id).outcome is Outcome.COMPLETED
