"""Signals on PostgreSQL: in the caller's transaction, from coroutines, and beside the worker that holds the saga."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from sagas import Wait
from sagas.errors import SagaNotFound, SignalRefused, TransactionRefused
from sagas.storage.records import SagaState
from tests.callers import Shop
from tests.samples import DEADLINE_SECONDS, Stage, Trip, saga_of


@dataclass
class Accepted:
    courier: str


class Courier(Wait[Accepted]):
    timeout = timedelta(days=2)

    def received(self, context: Trip, signal: Accepted) -> None:
        context.booked.append(signal.courier)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def waiting(shop: Shop, stage: Stage) -> UUID:
    """A saga that waits for a courier."""
    report = shop.engine.run(saga_of([stage.step("hotel"), Courier, stage.step("car")]), Trip(), idempotency_key="a")
    assert report.outcome == "waiting"
    return report.saga_id


def recovered(shop: Shop) -> str:
    """Run the saga that was sent last, and return what became of it."""
    claim = shop.dispatcher.sent.pop()
    return shop.engine.recover(claim.saga_id, version=claim.version).outcome


def test_a_signal_without_a_transaction_is_sent_at_once(shop: Shop, waiting: UUID) -> None:
    assert shop.engine.signal(("trip", "a"), "courier", Accepted("ann"), actor="portal", signal_id="evt-1")
    assert not shop.engine.signal(waiting, "courier", Accepted("bob"), signal_id="evt-1")

    assert shop.sent == [waiting]
    assert recovered(shop) == "completed"
    stored = shop.engine.stored()
    assert stored.context == '{"booked":["ann"],"note":null}'
    received = stored.log[2]
    assert (received.actor, received.signal and received.signal["signal_id"]) == ("portal", "evt-1")


@pytest.mark.parametrize("commits", [True, False])
def test_a_signal_in_a_session_exists_if_and_only_if_the_caller_commits(
    shop: Shop, waiting: UUID, commits: bool
) -> None:
    with Session(shop.database) as session:
        shop.engine.signal(waiting, "courier", Accepted("ann"), connection=session)
        assert shop.sent == []
        session.commit() if commits else session.rollback()

    assert shop.sent == [waiting] * commits
    assert len(shop.engine.storage.signals(waiting)) == commits
    assert shop.engine.stored().inbox == commits


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("library", ["psycopg", "sqlalchemy"])
def test_a_signal_on_a_connection_exists_if_and_only_if_the_caller_commits_and_send_sends_it(
    shop: Shop, waiting: UUID, library: str, commits: bool
) -> None:
    connect = shop.database.connect if library == "sqlalchemy" else psycopg.connect
    arguments = () if library == "sqlalchemy" else (shop.url.replace("+psycopg", ""),)
    with connect(*arguments) as connection:  # type: ignore[operator]
        shop.engine.signal(waiting, "courier", Accepted("ann"), connection=connection)
        connection.commit() if commits else connection.rollback()

    assert (shop.sent, shop.engine.stored().state) == ([], SagaState.WAITING)
    if commits:
        shop.engine.send(waiting)
        assert recovered(shop) == "completed"
    else:
        assert shop.engine.storage.signals(waiting) == []


def test_a_signal_that_nobody_sent_is_delivered_by_a_scan(shop: Shop, waiting: UUID) -> None:
    with shop.database.begin() as connection:
        shop.engine.signal(waiting, "courier", Accepted("ann"), connection=connection)
        connection.exec_driver_sql("UPDATE saga_signals SET sent_at = sent_at - interval '5 seconds'")

    assert shop.engine.scan().dispatched == ()  # it reports the sagas that were due
    assert shop.sent == [waiting]
    assert recovered(shop) == "completed"


def test_a_request_to_cancel_in_a_session_is_made_if_and_only_if_the_caller_commits(
    shop: Shop, stage: Stage, waiting: UUID
) -> None:
    with Session(shop.database) as session:
        shop.engine.cancel(waiting, "changed their mind", connection=session)
        session.rollback()
        assert shop.sent == []
        shop.engine.cancel(waiting, "out of stock", actor="ann", connection=session)
        session.commit()

    assert recovered(shop) == "compensated"
    assert stage.seen == ["act hotel", "compensate hotel"]
    assert [entry.reason for entry in shop.engine.stored().log if entry.step == "cancel"] == ["out of stock"]


def test_a_caller_that_takes_its_time_blocks_no_worker_and_no_other_sender(shop: Shop, waiting: UUID) -> None:
    with shop.database.connect() as slow:
        slow.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        shop.engine.signal(waiting, "courier", Accepted("bob"), connection=slow)

        shop.engine.signal(waiting, "courier", Accepted("ann"))
        assert recovered(shop) == "completed"
        slow.commit()

    assert shop.engine.stored().context == '{"booked":["ann"],"note":null}'


def test_a_signal_that_commits_while_the_saga_goes_to_wait_is_not_missed(shop: Shop, stage: Stage) -> None:
    """It is committed before the holder suspends, and delivered after that."""
    with shop.database.connect() as connection:
        step = stage.step("hotel", [lambda _, call: _signal(shop, call.saga_id, connection)])
        report = shop.engine.run(saga_of([step, Courier]), Trip())
        assert report.outcome == "waiting"
        connection.commit()
    shop.engine.send(report.saga_id)

    assert recovered(shop) == "completed"


def _signal(shop: Shop, saga_id: UUID, connection: sa.Connection) -> None:
    shop.engine.signal(saga_id, "courier", Accepted("ann"), connection=connection)


def test_many_senders_at_once_are_all_counted_and_one_of_each_id_is_new(shop: Shop, waiting: UUID) -> None:
    new: list[bool] = []

    def send(number: int) -> None:
        new.append(shop.engine.signal(waiting, "courier", Accepted("ann"), signal_id=f"evt-{number % 4}"))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert sorted(new) == [False] * 8 + [True] * 4
    assert shop.engine.stored().inbox == 4
    assert shop.sent == [waiting]


def test_refusals_store_nothing_and_leave_the_callers_transaction_usable(shop: Shop, waiting: UUID) -> None:
    with shop.database.begin() as connection:
        for name, payload in (("carrier", {"courier": "ann"}), ("courier", {"driver": "ann"})):
            with pytest.raises(SignalRefused):
                shop.engine.signal(waiting, name, payload, connection=connection)
        with pytest.raises(SagaNotFound):
            shop.engine.signal(("trip", "b"), "courier", Accepted("ann"), connection=connection)
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1

    assert shop.engine.storage.signals(waiting) == []


def test_a_connection_to_another_database_is_refused(shop: Shop, waiting: UUID) -> None:
    elsewhere = sa.create_engine(sa.make_url(shop.url).set(database="postgres"))
    with elsewhere.connect() as connection, pytest.raises(TransactionRefused):
        shop.engine.signal(waiting, "courier", Accepted("ann"), connection=connection)
    elsewhere.dispose()


def test_coroutines_send_in_the_transaction_of_their_session(shop: Shop, waiting: UUID) -> None:
    other = shop.engine.run(shop.engine.registry.get("trip"), Trip()).saga_id

    async def send() -> None:
        database = create_async_engine(shop.url)
        async with AsyncSession(database) as session:
            await shop.engine.signal_async(waiting, "courier", Accepted("bob"), connection=session)
            await session.rollback()
            await shop.engine.signal_async(waiting, "courier", Accepted("ann"), connection=session)
            await shop.engine.cancel_async(other, "changed their mind", connection=session)
            assert shop.sent == []
            await session.commit()
        await asyncio.to_thread(shop.wait_for_sent, waiting, other)
        await database.dispose()

    asyncio.run(send())

    assert [recovered(shop), recovered(shop)] == ["compensated", "completed"]
    assert shop.engine.storage.load(waiting).context == '{"booked":["ann"],"note":null}'


def test_async_runs_and_signals_without_a_transaction(shop: Shop, stage: Stage) -> None:
    async def outcome() -> str:
        report = await shop.engine.run_async(saga_of([stage.step("hotel"), Courier]), Trip())
        await shop.engine.signal_async(report.saga_id, "courier", Accepted("ann"))
        return (await shop.engine.recover_async(report.saga_id, by_hand=True)).outcome

    assert asyncio.run(outcome()) == "completed"


def test_a_start_for_later_a_deadline_and_a_timeout_are_by_the_databases_clock(shop: Shop, stage: Stage) -> None:
    saga = saga_of([stage.step("hotel"), Courier], deadline=timedelta(days=9))
    saga_id = shop.engine.start(saga, Trip(), at=timedelta(hours=3))
    stored = shop.engine.storage.load(saga_id)
    assert stored.available_at is not None
    assert stored.deadline_at is not None
    assert abs(stored.available_at - stored.created_at - timedelta(hours=3)) < timedelta(seconds=5)
    assert abs(stored.deadline_at - stored.available_at - timedelta(days=9)) < timedelta(seconds=1)
    assert (shop.sent, shop.engine.scan().dispatched) == ([], ())

    shop.engine.recover(saga_id, by_hand=True)
    stored = shop.engine.storage.load(saga_id)

    armed = stored.log[-1]
    assert armed.created_at is not None
    assert stored.available_at is not None
    assert abs(stored.available_at - armed.created_at - timedelta(days=2)) < timedelta(seconds=5)
    with shop.database.begin() as connection:
        for table, column in (("saga_logs", "created_at"), ("saga_executions", "available_at")):
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} - interval '2 days 1 minute'")
    assert shop.engine.scan().dispatched == (saga_id,)
    assert recovered(shop) == "compensated"


def test_pruning_deletes_the_signals_of_its_sagas(shop: Shop, waiting: UUID) -> None:
    shop.engine.signal(waiting, "courier", Accepted("ann"))
    assert recovered(shop) == "completed"

    assert shop.engine.storage.prune(older_than_seconds=0, limit=10) == 1

    assert shop.engine.storage.signals(waiting) == []
