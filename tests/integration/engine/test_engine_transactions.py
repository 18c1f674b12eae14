"""Starting sagas inside the caller's own transaction: they exist, and are sent, if and only if the caller commits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from sagas import MemorySagaStorage, SagaStatus
from sagas.storage.records import Claim, Definition, SagaState
from sagas.storage.transactions import _Outbox
from tests.callers import Shop
from tests.samples import QuickEngine, Trip

# -- connections --------------------------------------------------------------------------------------------------


def test_saga_started_on_a_connection_exists_once_it_is_committed_and_is_free(shop: Shop) -> None:
    with shop.database.connect() as connection:
        saga_id = shop.start(connection)
        assert shop.stored == set()
        connection.commit()

    assert shop.stored == {saga_id}
    assert shop.engine.stored().status is SagaStatus.PENDING
    assert shop.sent == []
    assert shop.engine.scan().dispatched == (saga_id,)


def test_saga_started_on_a_connection_that_rolls_back_never_existed(shop: Shop) -> None:
    with shop.database.connect() as connection:
        shop.start(connection)
        connection.rollback()

    assert shop.stored == set()


def test_start_that_rolls_back_leaves_the_definition_and_no_saga(shop: Shop) -> None:
    with shop.database.connect() as connection:
        shop.start(connection)
        assert _definitions(shop) == {shop.saga.graph.hash}  # which others see before the commit
        connection.rollback()

    assert (shop.stored, _definitions(shop)) == (set(), {shop.saga.graph.hash})
    assert shop.engine.start(shop.saga, Trip()) in shop.stored


def test_key_is_found_within_the_same_transaction(shop: Shop) -> None:
    with shop.database.begin() as connection:
        first = shop.start(connection, idempotency_key="a")
        assert shop.start(connection, idempotency_key="a") == first

    with shop.database.begin() as connection:
        assert shop.start(connection, idempotency_key="a") == first
    assert shop.stored == {first}


def test_memory_takes_part_in_no_transaction(shop: Shop) -> None:
    engine = QuickEngine(MemorySagaStorage())

    with shop.database.connect() as connection, pytest.raises(TypeError, match="has no transactions to join"):
        engine.start(shop.saga, Trip(), connection=connection)


# -- sessions -----------------------------------------------------------------------------------------------------


def test_saga_started_in_a_session_is_sent_after_the_commit_and_not_before(shop: Shop) -> None:
    with Session(shop.database) as session:
        saga_id = shop.start(session)
        assert (shop.stored, shop.sent) == (set(), [])
        session.commit()
        assert (shop.stored, shop.sent) == ({saga_id}, [saga_id])

    assert shop.dispatcher.sent == [Claim(saga_id, 0, pending=True)]
    assert shop.engine.stored().state is SagaState.QUEUED


def test_session_can_be_used_on_after_its_sagas_were_sent(shop: Shop) -> None:
    with Session(shop.database) as session:
        ids = []
        for _ in range(3):
            ids += [shop.start(session), shop.start(session)]
            session.commit()
            session.commit()

    assert shop.sent == ids


def test_listeners_of_the_callers_own_still_hear_of_every_commit(shop: Shop) -> None:
    heard: list[str] = []
    with Session(shop.database) as session:
        sa.event.listen(session, "after_commit", lambda _: heard.append("early"))
        shop.start(session)
        sa.event.listen(session, "after_commit", lambda _: heard.append("late"))
        session.commit()
        shop.start(session)
        session.commit()

    assert heard == ["early", "late"] * 2


def test_saga_started_in_a_session_that_rolls_back_is_never_sent(shop: Shop) -> None:
    with Session(shop.database) as session:
        shop.start(session)
        session.rollback()
        kept = shop.start(session)
        session.commit()

    assert shop.sent == [kept]
    assert shop.stored == {kept}


def test_session_that_is_closed_without_a_commit_sends_nothing(shop: Shop) -> None:
    session = Session(shop.database)
    shop.start(session)
    session.close()
    session.execute(sa.text("SELECT 1"))
    session.commit()

    assert (shop.sent, shop.stored) == ([], set())


def test_transaction_that_ends_in_an_error_sends_nothing(shop: Shop) -> None:
    def transaction() -> None:
        with sessionmaker(shop.database).begin() as session:
            shop.start(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transaction()

    assert (shop.sent, shop.stored) == ([], set())


def test_savepoint_that_commits_sends_nothing_until_the_whole_does(shop: Shop) -> None:
    with Session(shop.database) as session:
        with session.begin_nested():
            saga_id = shop.start(session)
        with session.begin_nested():
            session.execute(sa.text("SELECT 1"))
        assert shop.sent == []
        session.commit()

    assert shop.sent == [saga_id]


def test_savepoint_that_commits_sends_nothing_if_the_whole_rolls_back(shop: Shop) -> None:
    with Session(shop.database) as session:
        with session.begin_nested():
            shop.start(session)
        session.rollback()
        session.execute(sa.text("SELECT 1"))
        session.commit()

    assert (shop.sent, shop.stored) == ([], set())


def test_savepoint_that_rolls_back_takes_back_its_own_sagas_and_no_others(shop: Shop) -> None:
    with Session(shop.database) as session:
        before = shop.start(session)
        outer = session.begin_nested()
        inside = shop.start(session)
        inner = session.begin_nested()
        shop.start(session)
        inner.rollback()
        outer.commit()
        lost = session.begin_nested()
        with session.begin_nested():
            shop.start(session)
        lost.rollback()
        after = shop.start(session)
        session.commit()

    assert shop.sent == [before, inside, after]
    assert shop.stored == {before, inside, after}


def test_commit_with_a_savepoint_still_open_sends_what_was_started_in_it(shop: Shop) -> None:
    with Session(shop.database) as session:
        session.begin_nested()
        session.begin_nested()
        saga_id = shop.start(session)
        session.commit()

    assert shop.sent == [saga_id]


def test_session_keeps_nothing_of_transactions_that_are_over(shop: Shop) -> None:
    with Session(shop.database) as session:
        for end in (session.rollback, session.commit, session.close):
            with session.begin_nested():
                shop.start(session)
            shop.start(session)
            end()

        assert _Outbox.of(session) is _Outbox.of(session)
        assert _Outbox.of(session)._waiting == []
    assert len(shop.sent) == 2


def test_existing_saga_is_not_sent_again(shop: Shop) -> None:
    with Session(shop.database) as session:
        saga_id = shop.start(session, idempotency_key="a")
        session.commit()
        shop.start(session, idempotency_key="a")
        session.commit()

    assert shop.sent == [saga_id]


def test_commit_succeeds_with_the_broker_down_and_the_next_scan_sends_the_saga(shop: Shop) -> None:
    shop.dispatcher.capacity = 0
    with Session(shop.database) as session:
        saga_id = shop.start(session)
        session.commit()

    shop.dispatcher.capacity = None
    assert shop.engine.scan().dispatched == (saga_id,)


def test_session_of_an_engine_without_dispatcher_leaves_the_saga_free(shop: Shop) -> None:
    shop.engine.dispatcher = None
    with Session(shop.database) as session:
        saga_id = shop.start(session)
        session.commit()

    assert shop.engine.stored().state is SagaState.READY
    assert shop.stored == {saga_id}


# -- async sessions and connections -------------------------------------------------------------------------------


@asynccontextmanager
async def async_database(shop: Shop) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    database = create_async_engine(shop.url)
    try:
        yield database
    finally:
        await database.dispose()


@pytest.fixture
def run() -> Callable[[Any], Any]:
    pytest.importorskip("greenlet")
    return asyncio.run


def test_saga_started_in_an_async_session_is_sent_after_its_commit(shop: Shop, run: Callable[[Any], Any]) -> None:
    async def main() -> UUID:
        from sqlalchemy.ext.asyncio import AsyncSession

        async with async_database(shop) as database, AsyncSession(database) as session:
            await shop.engine.start_async(shop.saga, Trip(), connection=session)
            await session.rollback()
            saga_id = await shop.engine.start_async(shop.saga, Trip(), connection=session)
            assert (shop.stored, shop.sent) == (set(), [])
            await session.commit()
            return saga_id

    saga_id = run(main())
    shop.wait_for_sent(saga_id)
    assert (shop.stored, shop.sent) == ({saga_id}, [saga_id])


def test_sagas_started_on_an_async_connection_exist_if_and_only_if_it_commits(
    shop: Shop, run: Callable[[Any], Any]
) -> None:
    async def main() -> list[UUID]:
        async with async_database(shop) as database, database.connect() as connection:
            await shop.engine.start_async(shop.saga, Trip(), connection=connection)
            await connection.rollback()
            ids = await shop.engine.start_many_async(shop.saga, [Trip(), Trip()], connection=connection)
            assert shop.stored == set()
            await connection.commit()
            return ids

    ids = run(main())
    assert shop.stored == set(ids)
    assert shop.sent == []


def test_async_start_registers_the_definition_in_a_thread_outside_the_transaction(
    shop: Shop, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    register = shop.engine.storage.register_definition

    def noted(definition: Definition) -> None:
        threads.append(threading.get_ident())
        register(definition)

    monkeypatch.setattr(shop.engine.storage, "register_definition", noted)

    async def main() -> None:
        async with async_database(shop) as database, database.connect() as connection:
            for _ in range(2):
                await shop.engine.start_async(shop.saga, Trip(), connection=connection)
                await connection.rollback()

    run(main())

    assert len(threads) == 1
    assert threads[0] != threading.get_ident()  # that of the event loop
    assert (shop.stored, _definitions(shop)) == (set(), {shop.saga.graph.hash})


def _definitions(shop: Shop) -> set[str]:
    with sa.create_engine(shop.url, poolclass=sa.NullPool).connect() as connection:
        return set(connection.exec_driver_sql("SELECT hash FROM saga_definitions").scalars())
