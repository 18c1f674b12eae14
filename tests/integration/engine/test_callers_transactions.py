"""Which connections and sessions of which libraries sagas can be started on, and which are refused by name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row, namedtuple_row, scalar_row, tuple_row
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

from sagas import PostgresSagaStorage, SagaStatus
from sagas.errors import AlreadyStarted, HiddenRow, SagaNotFound, StorageUnavailable, TransactionRefused
from sagas.storage.records import SagaState
from sagas.storage.transactions import CallersTransaction
from tests.callers import Shop
from tests.databases import database
from tests.samples import Trip


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


@pytest.fixture
def elsewhere(server_url: sa.URL, template: str) -> Iterator[sa.Engine]:
    """Another database with saga tables, a copy of the same one."""
    with database(server_url, f"TEMPLATE {template}") as engine:
        yield engine


@pytest.fixture
def unrelated(server_url: sa.URL) -> Iterator[sa.Engine]:
    """Another database without saga tables."""
    with database(server_url) as engine:
        yield engine


def stored_in(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM saga_executions").scalar_one()


# -- sessions that are not plain ones -------------------------------------------------------------------------


def test_scoped_session_sends_on_commit(shop: Shop) -> None:
    session = scoped_session(sessionmaker(shop.database))
    shop.start(session)
    session.rollback()
    saga_id = shop.start(session)
    assert shop.sent == []
    session.commit()

    assert shop.sent == [saga_id]
    session.remove()


def test_session_of_flask_sqlalchemy_sends_on_commit(shop: Shop) -> None:
    flask, flask_sqlalchemy = pytest.importorskip("flask"), pytest.importorskip("flask_sqlalchemy")
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = shop.url
    app.config["SQLALCHEMY_BINDS"] = {"other": "sqlite://"}
    db = flask_sqlalchemy.SQLAlchemy(app)
    with app.app_context():
        lost = shop.start(db.session)
        db.session.rollback()
        saga_id = shop.start(db.session)
        db.session.commit()
        db.session.remove()
        db.engine.dispose()

    assert (shop.stored, shop.sent) == ({saga_id}, [saga_id])
    assert lost not in shop.stored


class Base(DeclarativeBase):
    """Of a session that is bound by class."""


class OtherBase(DeclarativeBase):
    """Of another database."""


def test_session_bound_by_class_sends_on_commit(shop: Shop) -> None:
    with Session(binds={Base: shop.database}) as session:
        saga_id = shop.start(session)
        session.commit()

    assert shop.sent == [saga_id]


def test_session_of_several_databases_uses_the_one_that_keeps_the_sagas(shop: Shop, elsewhere: sa.Engine) -> None:
    with Session(binds={OtherBase: elsewhere, Base: shop.database}) as session:
        first = shop.start(session)
        session.commit()
    with Session(elsewhere, binds={Base: shop.database}) as session:
        second = shop.start(session)
        session.commit()

    assert shop.sent == [first, second]
    assert stored_in(elsewhere) == 0


def test_session_of_several_databases_of_which_none_is_known_is_refused_by_name(shop: Shop, server_url: sa.URL) -> None:
    binds = {Base: sa.create_engine(server_url.set(database="a")), OtherBase: sa.create_engine("sqlite:///b")}
    with Session(binds=binds) as session, pytest.raises(TransactionRefused, match=r"/a, .*/b.*cannot be told"):
        shop.start(session)


def test_session_without_a_bind_is_refused(shop: Shop) -> None:
    with Session() as session, pytest.raises(TransactionRefused, match=r"bound to \(none\)"):
        shop.start(session)


def test_session_joined_to_a_connections_transaction_sends_nothing_after_rollback(shop: Shop) -> None:
    for mode in ("create_savepoint", "rollback_only", "conditional_savepoint"):
        with shop.database.connect() as connection:
            transaction = connection.begin()
            with Session(connection, join_transaction_mode=mode) as session:  # type: ignore[arg-type]
                shop.start(session)
                session.commit()
            transaction.rollback()

    assert (shop.stored, shop.sent) == (set(), [])


def test_session_that_commits_the_transaction_of_its_connection_sends(shop: Shop) -> None:
    with shop.database.connect() as connection:
        connection.begin()
        with Session(connection, join_transaction_mode="control_fully") as session:
            saga_id = shop.start(session)
            session.commit()

    assert (shop.stored, shop.sent) == ({saga_id}, [saga_id])


def test_two_phase_commit_sends_once_both_phases_are_done(shop: Shop) -> None:
    with shop.database.connect() as connection:
        if connection.exec_driver_sql("SHOW max_prepared_transactions").scalar_one() == "0":
            pytest.skip("the server allows no prepared transactions (max_prepared_transactions)")
    with Session(shop.database, twophase=True) as session:
        saga_id = shop.start(session)
        session.prepare()
        assert shop.sent == []
        session.commit()

    assert (shop.stored, shop.sent) == ({saga_id}, [saga_id])


def test_autocommit_is_refused_as_nothing_would_be_joined(shop: Shop) -> None:
    autocommit = shop.database.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(TransactionRefused, match="in autocommit"):
        shop.start(connection)
    with Session(autocommit) as session, pytest.raises(TransactionRefused, match="in autocommit"):
        shop.start(session)
    with psycopg.connect(libpq(shop.url), autocommit=True) as plain:
        with pytest.raises(TransactionRefused, match=r"in autocommit.*connection\.transaction\(\)"):
            shop.start(plain)
        with plain.pipeline():
            plain.execute("SELECT 1")
            with pytest.raises(TransactionRefused, match="in autocommit"):
                shop.start(plain)

    assert shop.stored == set()


# -- psycopg --------------------------------------------------------------------------------------------------


@contextmanager
def plain(shop: Shop, **options: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(libpq(shop.url), **options) as connection:
        yield connection


FACTORIES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "dicts": {"row_factory": dict_row},
    "named tuples": {"row_factory": namedtuple_row},
    "scalars": {"row_factory": scalar_row},
    "nothing": {"row_factory": lambda cursor: lambda values: None},
    "raw cursors": {"cursor_factory": psycopg.RawCursor},
    "client cursors": {"cursor_factory": psycopg.ClientCursor},
    "always prepared": {"prepare_threshold": 0},
    "never prepared": {"prepare_threshold": None},
}


@pytest.mark.parametrize("options", FACTORIES.values(), ids=FACTORIES)
def test_saga_started_on_a_psycopg_connection_exists_if_and_only_if_it_commits(
    shop: Shop, options: dict[str, Any]
) -> None:
    with plain(shop, **options) as connection:
        shop.start(connection, idempotency_key="a")
        connection.rollback()
        assert shop.stored == set()
        saga_id = shop.start(connection, idempotency_key="a")
        assert shop.start(connection, idempotency_key="a") == saga_id
        assert shop.stored == set()
        connection.commit()
        factories = (connection.row_factory, connection.cursor_factory, connection.prepare_threshold)

    assert factories == tuple(
        options.get(name, default)
        for name, default in (
            ("row_factory", tuple_row),
            ("cursor_factory", psycopg.Cursor),
            ("prepare_threshold", 5),
        )
    )
    assert shop.stored == {saga_id}
    assert shop.sent == []


def test_psycopg_connection_in_autocommit_has_its_transactions(shop: Shop) -> None:
    with plain(shop, autocommit=True) as connection:
        with connection.transaction():
            saga_id = shop.start(connection)
            with connection.transaction() as savepoint:
                shop.start(connection)
                raise psycopg.Rollback(savepoint)
            assert shop.stored == set()
        assert connection.autocommit

    assert shop.stored == {saga_id}


def test_pipeline_of_a_psycopg_connection_goes_on(shop: Shop) -> None:
    for autocommit in (False, True):
        with plain(shop, autocommit=autocommit) as connection, connection.pipeline(), connection.transaction():
            before = connection.execute("SELECT 1")
            shop.start(connection)
            after = connection.execute("SELECT 2")
            assert (before.fetchone(), after.fetchone()) == ((1,), (2,))

    assert len(shop.stored) == 2


def test_two_phase_commit_of_a_psycopg_connection_is_joined(shop: Shop) -> None:
    with plain(shop) as connection:
        connection.tpc_begin(connection.xid(1, uuid4().hex, ""))
        shop.start(connection)
        connection.tpc_rollback()

    assert shop.stored == set()


def test_errors_that_callers_retry_reach_them_as_they_are(shop: Shop) -> None:
    with plain(shop) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        shop.engine.start(shop.saga, Trip(), idempotency_key="a")
        with pytest.raises(psycopg.errors.SerializationFailure):
            shop.start(connection, idempotency_key="a")


def test_connection_that_is_lost_is_a_database_that_does_not_answer(shop: Shop) -> None:
    with plain(shop) as connection, shop.database.connect() as other:
        connection.execute("SELECT 1")
        other.exec_driver_sql(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(StorageUnavailable, match="did not answer"):
            shop.start(connection)


# -- sending after the commit ---------------------------------------------------------------------------------


def test_send_after_a_commit_sends_at_once_and_only_once(shop: Shop) -> None:
    with plain(shop) as connection:
        one, two = shop.start(connection), shop.start(connection)
        connection.commit()

    shop.engine.send(one, str(two))
    shop.engine.send(one, two)
    assert shop.sent == [one, two]
    assert {shop.engine.storage.load(saga_id).state for saga_id in (one, two)} == {SagaState.QUEUED}
    assert shop.engine.scan().dispatched == ()


def test_send_before_the_commit_or_after_a_rollback_says_that_there_is_no_such_saga(shop: Shop) -> None:
    with plain(shop) as connection:
        saga_id = shop.start(connection)
        with pytest.raises(SagaNotFound, match=str(saga_id)):
            shop.engine.send(saga_id)
        connection.rollback()
    with pytest.raises(SagaNotFound, match=str(saga_id)):
        shop.engine.send(saga_id)

    assert shop.sent == []


def test_send_leaves_alone_what_runs_or_has_ended(shop: Shop) -> None:
    report = shop.engine.run(shop.saga, Trip())
    shop.engine.send(report.saga_id)

    assert shop.sent == []
    assert shop.engine.stored().status is SagaStatus.COMPLETED


def test_what_a_broken_broker_did_not_take_is_sent_by_the_next_scan(shop: Shop) -> None:
    with plain(shop) as connection:
        saga_id = shop.start(connection)
        connection.commit()
    shop.dispatcher.capacity = 0
    shop.engine.send(saga_id)
    shop.dispatcher.capacity = None

    assert shop.engine.scan().dispatched == (saga_id,)


def test_send_of_an_engine_without_dispatcher_leaves_the_saga_free(shop: Shop) -> None:
    shop.engine.dispatcher = None
    with plain(shop) as connection:
        saga_id = shop.start(connection)
        connection.commit()
    shop.engine.send(saga_id)

    assert shop.engine.stored().state is SagaState.READY


# -- async ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run() -> Callable[[Any], Any]:
    pytest.importorskip("greenlet")
    return asyncio.run


def test_async_scoped_session_sends_on_commit(shop: Shop, run: Callable[[Any], Any]) -> None:
    async def main() -> UUID:
        from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

        database = create_async_engine(shop.url)
        session = async_scoped_session(async_sessionmaker(database), scopefunc=asyncio.current_task)
        await shop.engine.start_async(shop.saga, Trip(), connection=session)
        await session.rollback()
        saga_id = await shop.engine.start_async(shop.saga, Trip(), connection=session)
        assert shop.sent == []
        await session.commit()
        await session.remove()
        await database.dispose()
        return saga_id

    saga_id = run(main())
    shop.wait_for_sent(saga_id)
    assert shop.stored == {saga_id}


def test_async_session_bound_by_class_sends_on_commit(shop: Shop, run: Callable[[Any], Any]) -> None:
    async def main() -> UUID:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        database = create_async_engine(shop.url)
        async with AsyncSession(binds={Base: database}) as session:
            saga_id = await shop.engine.start_async(shop.saga, Trip(), connection=session)
            await session.commit()
        await database.dispose()
        return saga_id

    shop.wait_for_sent(run(main()))


def test_driver_of_the_callers_may_be_another_one(shop: Shop, run: Callable[[Any], Any]) -> None:
    pytest.importorskip("asyncpg")

    async def main() -> list[UUID]:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        database = create_async_engine(shop.url.replace("+psycopg", "+asyncpg"))
        async with AsyncSession(database) as session:
            options: dict[str, Any] = {"idempotency_keys": ["a", "b"], "connection": session}
            ids = await shop.engine.start_many_async(shop.saga, [Trip(), Trip()], **options)
            assert await shop.engine.start_many_async(shop.saga, [Trip(), Trip()], **options) == ids
            assert shop.stored == set()
            await session.commit()
        await database.dispose()
        return ids

    ids = run(main())
    shop.wait_for_sent(*ids)
    assert shop.stored == set(ids)


@pytest.mark.parametrize(
    "options",
    [{}, {"row_factory": dict_row}, {"cursor_factory": psycopg.AsyncRawCursor}],
    ids=["as it comes", "dicts", "raw cursors"],
)
def test_async_connection_of_psycopg_decides_whether_the_saga_exists(
    shop: Shop, run: Callable[[Any], Any], options: dict[str, Any]
) -> None:
    async def main() -> list[UUID]:
        async with await psycopg.AsyncConnection.connect(libpq(shop.url), **options) as connection:
            await shop.engine.start_async(shop.saga, Trip(), connection=connection)
            await connection.rollback()
            ids = [await shop.engine.start_async(shop.saga, Trip(), connection=connection)]
            await connection.commit()
            await connection.set_autocommit(True)
            with pytest.raises(TransactionRefused, match="in autocommit"):
                await shop.engine.start_async(shop.saga, Trip(), connection=connection)
            async with connection.pipeline(), connection.transaction():
                ids += [await shop.engine.start_async(shop.saga, Trip(), connection=connection)]
            await shop.engine.send_async(*ids)
            return ids

    ids = run(main())
    assert shop.stored == set(ids)
    assert sorted(shop.sent) == sorted(ids)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_autocommit_is_refused_on_an_event_loop_too(shop: Shop, run: Callable[[Any], Any], driver: str) -> None:
    pytest.importorskip(driver)

    async def main() -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        url = shop.url.replace("+psycopg", f"+{driver}")
        database = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with database.connect() as connection:
            with pytest.raises(TransactionRefused, match="in autocommit"):
                await shop.engine.start_async(shop.saga, Trip(), connection=connection)
        await database.dispose()

    run(main())
    assert shop.stored == set()


def test_coroutine_that_is_cancelled_leaves_no_statement_behind(shop: Shop, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with (
            await psycopg.AsyncConnection.connect(libpq(shop.url)) as blocker,
            await psycopg.AsyncConnection.connect(libpq(shop.url)) as connection,
        ):
            await blocker.execute("LOCK TABLE saga_executions")
            starting = asyncio.create_task(shop.engine.start_async(shop.saga, Trip(), connection=connection))
            waiting = "SELECT FROM pg_locks WHERE NOT granted AND pid = %s"
            while not (await blocker.execute(waiting, (connection.info.backend_pid,))).rowcount:
                await asyncio.sleep(0.005)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await blocker.rollback()
            await connection.rollback()

    shop.engine.storage.connect()
    run(main())
    assert shop.stored == set()


def test_commits_on_an_event_loop_never_wait_for_the_broker(shop: Shop, run: Callable[[Any], Any]) -> None:
    answers, asked_by = threading.Event(), []
    send = shop.dispatcher.send

    def hang(claims: Any) -> int:
        asked_by.append(threading.current_thread())
        if asked_by[-1] is not threading.main_thread():
            assert answers.wait(timeout=60)
        return send(claims)

    shop.dispatcher.send = hang  # type: ignore[method-assign]

    async def main() -> list[UUID]:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        database = create_async_engine(shop.url)
        ids = []
        async with AsyncSession(database) as session:
            for _ in range(5):
                ids.append(await shop.engine.start_async(shop.saga, Trip(), connection=session))
                await session.commit()
        await database.dispose()
        answers.set()  # nothing above has waited for it
        return ids

    shop.wait_for_sent(*run(main()))
    assert threading.main_thread() not in asked_by


# -- what is refused by name ----------------------------------------------------------------------------------


def connections(url: str) -> Iterator[tuple[Any, Callable[[], Any]]]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        yield connection, connection.commit
    with Session(engine) as session:
        yield session, session.commit
    with psycopg.connect(libpq(url)) as plain:
        yield plain, plain.commit
    engine.dispose()


def test_connection_to_another_database_is_refused_by_name_and_stores_nothing(shop: Shop, elsewhere: sa.Engine) -> None:
    name = f"/{elsewhere.url.database}.*/{sa.make_url(shop.url).database}"
    for connection, commit in connections(elsewhere.url.render_as_string(hide_password=False)):
        for key in (None, "a"):
            with pytest.raises(TransactionRefused, match=name) as caught:
                shop.start(connection, idempotency_key=key)
            assert elsewhere.url.password is None or str(elsewhere.url.password) not in str(caught.value)
            commit()

    assert (stored_in(elsewhere), shop.stored, shop.sent) == (0, set(), [])


def test_connection_to_a_database_without_saga_tables_is_refused_by_name(shop: Shop, unrelated: sa.Engine) -> None:
    for connection, _ in connections(unrelated.url.render_as_string(hide_password=False)):
        with pytest.raises(TransactionRefused, match=f"/{unrelated.url.database}"):
            shop.start(connection)


def test_other_saga_tables_of_the_same_database_are_refused(shop: Shop) -> None:
    with shop.database.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA tenant")
        connection.exec_driver_sql("CREATE TABLE tenant.saga_executions (LIKE public.saga_executions INCLUDING ALL)")
        connection.exec_driver_sql("SET LOCAL search_path = tenant")
        with pytest.raises(TransactionRefused, match="another schema"):
            shop.start(connection)
        connection.exec_driver_sql("SET LOCAL search_path = nowhere")
        with pytest.raises(TransactionRefused, match="another schema"):
            shop.start(connection)


def test_restart_of_the_server_is_no_other_database(shop: Shop) -> None:
    shop.engine.storage._here = "what it was before"  # type: ignore[attr-defined]
    with Session(shop.database) as session:
        saga_id = shop.start(session)
        session.commit()

    assert shop.sent == [saga_id]


@pytest.mark.parametrize("connection", [object(), "postgresql://", 1], ids=["object", "URL", "number"])
def test_what_is_no_connection_is_refused_with_what_is(shop: Shop, connection: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be started on .*a Connection, Session or scoped_session"):
        shop.start(connection)
    with pytest.raises(TypeError, match=r"start_async\(\) cannot use .*AsyncSession"):
        asyncio.run(shop.engine.start_async(shop.saga, Trip(), connection=connection))


def test_async_and_sync_are_not_mixed_up(shop: Shop, run: Callable[[Any], Any]) -> None:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

    for session in (AsyncSession(), async_scoped_session(AsyncSession, scopefunc=int)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"await start_async\("):
            shop.start(session)
    with Session(shop.database) as sync, pytest.raises(TypeError, match=r"use start\(\)"):
        run(shop.engine.start_async(shop.saga, Trip(), connection=sync))  # type: ignore[arg-type]


# -- an adapter of the program's own --------------------------------------------------------------------------


class OwnTransaction(CallersTransaction):
    """As one for Django's connections would be: SQL goes through a cursor of theirs, commits are told to callbacks."""

    address = "own"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.actions: list[Callable[[], None]] = []

    def execute(self, statement: str, parameters: Any) -> list[dict[str, Any]]:
        return self.connection.cursor(row_factory=dict_row).execute(statement, parameters).fetchall()

    def on_commit(self, action: Callable[[], None]) -> bool:
        self.actions.append(action)
        return True


def test_adapter_of_the_programs_own_is_welcome(shop: Shop) -> None:
    with plain(shop) as connection:
        own = OwnTransaction(connection)
        saga_id = shop.start(own)
        connection.commit()
        assert shop.sent == []
        for action in own.actions:
            action()

    assert shop.sent == [saga_id]


# -- keys that were used before -------------------------------------------------------------------------------


def test_conflict_names_the_saga_and_leaves_the_transaction_as_it_was(shop: Shop) -> None:
    known = shop.engine.start(shop.saga, Trip(), idempotency_key="a")
    shop.dispatcher.sent.clear()
    with Session(shop.database) as session:
        mine = shop.start(session, idempotency_key="mine", on_conflict="raise")
        with pytest.raises(AlreadyStarted, match=str(known)) as caught:
            shop.start(session, idempotency_key="a", on_conflict="raise")
        with pytest.raises(AlreadyStarted):
            shop.engine.start_many(
                shop.saga,
                [Trip(), Trip(), Trip()],
                idempotency_keys=["b", "a", "c"],
                on_conflict="raise",
                connection=session,
            )
        session.commit()

    error = caught.value
    assert (error.saga_id, error.saga_name, error.idempotency_key) == (known, shop.saga.name, "a")
    assert (shop.stored, shop.sent) == ({known, mine}, [mine])


def test_conflict_in_a_batch_starts_none_of_it(shop: Shop) -> None:
    known = shop.engine.start(shop.saga, Trip(), idempotency_key="a")
    shop.dispatcher.sent.clear()
    with pytest.raises(AlreadyStarted, match=str(known)):
        shop.engine.start_many(shop.saga, [Trip(), Trip()], idempotency_keys=["b", "a"], on_conflict="raise")
    with pytest.raises(AlreadyStarted, match=str(known)):
        asyncio.run(shop.engine.start_async(shop.saga, Trip(), idempotency_key="a", on_conflict="raise"))

    assert (shop.stored, shop.sent) == ({known}, [])


def test_word_that_says_nothing_about_conflicts_is_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match="on_conflict is 'ignore'"):
        shop.engine.start(shop.saga, Trip(), on_conflict="ignore")  # type: ignore[arg-type]


def test_saga_that_a_policy_hides_ends_in_an_error_that_says_so(shop: Shop, server_url: sa.URL) -> None:
    shop.engine.start(shop.saga, Trip(), idempotency_key="a")
    role = f"tenant_{uuid4().hex}"
    with shop.database.begin() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'tenant'",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
            "ALTER TABLE saga_executions ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY writes ON saga_executions FOR INSERT WITH CHECK (true)",
            "CREATE POLICY reads ON saga_executions FOR SELECT USING (definition_version <> 'of another tenant')",
            "UPDATE saga_executions SET definition_version = 'of another tenant'",
        ):
            connection.exec_driver_sql(statement)
    url = sa.make_url(shop.url).set(username=role, password="tenant")
    storage = PostgresSagaStorage(url)
    shop.engine.storage = storage
    try:
        with pytest.raises(HiddenRow, match=r"'a' is taken, .* cannot be seen\. Look for a row-level"):
            shop.engine.start(shop.saga, Trip(), idempotency_key="a")
    finally:
        storage.close()
        with shop.database.begin() as connection:
            connection.exec_driver_sql("DROP POLICY writes ON saga_executions")
            connection.exec_driver_sql("DROP POLICY reads ON saga_executions")
            connection.exec_driver_sql("ALTER TABLE saga_executions DISABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
