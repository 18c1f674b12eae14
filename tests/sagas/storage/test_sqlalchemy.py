"""The PostgreSQL storage keeps the contract, and tells what is wrong with a database in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas.errors import ConfigurationError, SagaNotFound, SchemaBehind, StorageUnavailable
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage import ISagaStorage, SqlAlchemySagaStorage
from sagas.storage.base import QUEUE, Hold, NewSaga, SagaFilter, SagaRecord, Taken, completed
from sagas.storage.schema import migrate
from sagas.testing import StorageContract

DEADLINE_SECONDS: Final = 60


@pytest.fixture
def storage(engine: sa.Engine) -> SqlAlchemySagaStorage:
    return SqlAlchemySagaStorage(engine)


class TestSqlAlchemySagaStorage(StorageContract):
    a_while = 60.0

    @pytest.fixture(autouse=True)
    def _engine(self, engine: sa.Engine) -> None:
        self.engine = engine

    def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
        shift = """
            UPDATE saga_executions SET
                available_at = available_at - make_interval(secs => :seconds),
                created_at = created_at - make_interval(secs => :seconds),
                updated_at = updated_at - make_interval(secs => :seconds),
                finished_at = finished_at - make_interval(secs => :seconds)"""
        with self.engine.begin() as connection:
            connection.execute(sa.text(shift), {"seconds": seconds})


# -- a URL that cannot work -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "postgresql+psycopg://user:secret@host:port/database",
        "postgresql+psycopg://user:secret/with/slashes@[::1/database",
    ],
)
def test_an_unreadable_url_is_refused_with_a_pattern_to_follow(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read.*postgresql\+psycopg://user:password@") as caught:
        SqlAlchemySagaStorage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/database",
        "postgres://user:secret@host/database",
        "postgresql+asyncpg://user:secret@host/database",
        "mysql+pymysql://user:secret@host/database",
        "sqlite:///sagas.db",
    ],
)
def test_a_url_of_another_driver_is_refused_with_what_to_begin_it_with(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SAGAS_DATABASE_URL.*begin it postgresql\+psycopg://") as caught:
        SqlAlchemySagaStorage(url)
    assert url.partition("://")[0] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_engine_of_another_dialect_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite\+pysqlite, and sagas need PostgreSQL"):
        SqlAlchemySagaStorage(sa.create_engine("sqlite://"))


# -- a database that does not answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong-secret"}, "password authentication failed"),
        ({"port": 1}, "onnection refused"),
        ({"database": "missing"}, "does not exist"),
        ({"host": "no-such-host.invalid"}, "resolve host"),
    ],
    ids=["wrong password", "no server", "no database", "no host"],
)
def test_a_database_that_lets_nobody_in_is_unavailable_and_the_sentence_says_why(
    server_url: sa.URL, change: dict[str, Any], reason: str
) -> None:
    url = server_url.set(**change)
    storage = SqlAlchemySagaStorage(url)

    with pytest.raises(StorageUnavailable, match=reason) as caught:
        storage.load(new_saga_id())

    message = str(caught.value)
    assert f"{url.host}:{url.port}/{url.database}" in message
    assert message.endswith("(SAGAS_DATABASE_URL).")
    assert "\n" not in message
    assert "secret" not in message
    assert str(server_url.password) not in message


def test_a_pool_of_the_callers_that_is_used_up_is_unavailable(module_engine: sa.Engine) -> None:
    engine = sa.create_engine(module_engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(StorageUnavailable, match="QueuePool limit"):
        SqlAlchemySagaStorage(engine).check_schema()
    engine.dispose()


# -- a layout that is not the one needed ----------------------------------------------------------------------


def test_a_database_without_tables_is_behind(empty_database_url: str) -> None:
    storage = SqlAlchemySagaStorage(empty_database_url)

    for operation in (storage.check_schema, lambda: storage.load(new_saga_id()), lambda: _claim(storage)):
        with pytest.raises(SchemaBehind, match=r"no saga tables.*run `sagas migrate`"):
            operation()
    storage.close()


def test_a_database_that_is_behind_works_once_it_is_migrated(empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    storage = SqlAlchemySagaStorage(engine)
    with engine.connect() as connection:
        migrate(connection, to="0001")
    with pytest.raises(SchemaBehind, match=r"is at version 0001.*needs 0002: run `sagas migrate`"):
        storage.find(SagaFilter())

    with engine.connect() as connection:
        migrate(connection)

    assert storage.find(SagaFilter()) == []
    engine.dispose()


def test_a_database_that_newer_code_migrated_is_accepted(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sagas_alembic_version SET version_num = '9999'")

    SqlAlchemySagaStorage(engine).check_schema()
    engine.dispose()


def test_a_column_that_went_missing_is_told_as_a_layout_that_is_behind(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    storage = SqlAlchemySagaStorage(engine)
    storage.check_schema()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE saga_executions DROP COLUMN interrupted")

    with pytest.raises(SchemaBehind, match=r"interrupted.*run `sagas migrate`"):
        storage.find(SagaFilter())
    engine.dispose()


def test_starting_in_a_transaction_of_the_callers_tells_of_missing_tables_too(empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    with engine.connect() as connection, pytest.raises(SchemaBehind, match="run `sagas migrate`"):
        SqlAlchemySagaStorage(engine).create_sagas([_new()], owner=None, connection=connection)
    engine.dispose()


# -- the first call of a process ------------------------------------------------------------------------------


def _claim(storage: SqlAlchemySagaStorage) -> Any:
    return storage.claim_sagas(pending=False, limit=10, max_recovery_attempts=5, mark_seconds=60)


@pytest.mark.parametrize(
    "operation",
    [
        _claim,
        lambda storage: storage.find(SagaFilter()),
        lambda storage: storage.create_sagas([_new()], owner=None),
        lambda storage: storage.prune(older_than_seconds=1, limit=1),
    ],
    ids=["claim", "find", "create", "prune"],
)
def test_any_operation_may_be_the_first(
    storage: SqlAlchemySagaStorage, operation: Callable[[SqlAlchemySagaStorage], Any]
) -> None:
    operation(storage)


# -- a transaction of the caller's own ------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [sa.Connection, Session], ids=["connection", "session"])
def test_a_saga_started_in_the_callers_transaction_exists_if_and_only_if_it_commits(
    storage: SqlAlchemySagaStorage, engine: sa.Engine, begin: type[Any]
) -> None:
    kept, undone = _new(), _new()
    with begin(engine) as own:
        created = storage.create_sagas([kept], owner=QUEUE, for_seconds=60, connection=own)
        assert created == [(kept.id, True)]
        with pytest.raises(SagaNotFound):
            storage.load(kept.id)
        own.commit()
    with begin(engine) as own:
        storage.create_sagas([undone], owner=QUEUE, for_seconds=60, connection=own)
        own.rollback()

    saga = storage.load(kept.id)
    assert (saga.status, saga.lease_owner, json.loads(saga.context)) == (SagaStatus.PENDING, QUEUE, {"n": 1})
    with pytest.raises(SagaNotFound):
        storage.load(undone.id)


@pytest.mark.parametrize("begin", [sa.Connection, Session], ids=["connection", "session"])
def test_idempotency_keys_hold_within_the_callers_transaction(
    storage: SqlAlchemySagaStorage, engine: sa.Engine, begin: type[Any]
) -> None:
    committed, mine, again = _new("old"), _new("new"), _new("new")
    storage.create_sagas([committed], owner=None)

    with begin(engine) as own:
        created = storage.create_sagas([_new("old"), mine], owner=None, connection=own)
        assert created == [(committed.id, False), (mine.id, True)]
        assert storage.create_sagas([again], owner=None, connection=own) == [(mine.id, False)]


def test_a_savepoint_that_is_rolled_back_takes_its_saga_along(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    kept, undone = _new(), _new()
    with Session(engine) as session, session.begin():
        storage.create_sagas([kept], owner=None, connection=session)
        savepoint = session.begin_nested()
        storage.create_sagas([undone], owner=None, connection=session)
        savepoint.rollback()

    assert [saga.id for saga in storage.find(SagaFilter())] == [kept.id]


# -- taking while the holder writes ---------------------------------------------------------------------------


def test_whoever_waited_for_a_checkpoint_to_commit_sees_what_it_wrote(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    hold = _run(storage, for_seconds=0)
    with engine.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.exec_driver_sql("UPDATE saga_executions SET updated_at = clock_timestamp()")
        holder.exec_driver_sql(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, details)"
            """ SELECT id, 'charge', 'act', 'failed', '{"verdict": "turn back"}' FROM saga_executions"""
        )
        holder.exec_driver_sql("UPDATE saga_executions SET status = 'FAILED'")
        taking = pool.submit(_take, storage, hold)
        _wait_until(lambda: _backends(engine, "wait_event_type = 'Lock'"))
        holder.commit()

        taken = taking.result(timeout=DEADLINE_SECONDS)

    assert isinstance(taken, Taken)
    assert [entry.step for entry in taken.record.log] == ["charge"]
    # Its direction is read from the log, too.
    assert taken.record.status is SagaStatus.COMPENSATING


def test_whoever_waited_for_the_end_of_a_saga_finds_it_finished(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    hold = _run(storage, for_seconds=0)
    with engine.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.exec_driver_sql("UPDATE saga_executions SET status = 'COMPLETED', lease_owner = NULL")
        taking = pool.submit(_take, storage, hold)
        _wait_until(lambda: _backends(engine, "wait_event_type = 'Lock'"))
        holder.commit()

        assert taking.result(timeout=DEADLINE_SECONDS).why == "finished"


def test_a_scan_passes_over_a_saga_that_somebody_is_writing_to(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    in_hand, due = _new(), _new()
    storage.create_sagas([in_hand], owner=None)
    storage.create_sagas([due], owner=None)
    with _writing_to(engine, in_hand):
        scanned = storage.claim_sagas(pending=True, limit=1, max_recovery_attempts=5, mark_seconds=60)

    assert [claim.saga_id for claim in scanned.claims] == [due.id]


def test_pruning_passes_over_a_saga_that_somebody_is_writing_to(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    in_hand, other = _run(storage), _run(storage)
    for hold in (in_hand, other):
        storage.checkpoint(hold, None, status=SagaStatus.COMPLETED)
    with _writing_to(engine, storage.load(in_hand.saga_id)):
        assert storage.prune(older_than_seconds=0, limit=1) == 1

    assert [saga.id for saga in storage.find(SagaFilter())] == [in_hand.saga_id]


def test_unclaiming_waits_for_nobody_who_has_a_saga_in_hand(storage: SqlAlchemySagaStorage, engine: sa.Engine) -> None:
    new = [_new(), _new()]
    storage.create_sagas(new, owner=None)
    claims = storage.claim_sagas(pending=True, limit=9, max_recovery_attempts=5, mark_seconds=60).claims
    with _writing_to(engine, new[0]):
        storage.unclaim(claims)

    assert [storage.load(saga.id).lease_owner for saga in new] == [QUEUE, None]


# -- connections that break -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage, hold: storage.load(hold.saga_id),
        lambda storage, hold: storage.checkpoint(hold, completed("a", Action.ACT), status=SagaStatus.RUNNING),
        lambda storage, hold: _claim(storage),
    ],
    ids=["load", "checkpoint", "claim"],
)
def test_after_all_connections_were_cut_one_call_may_fail_and_no_more(
    database_url: str, engine: sa.Engine, operation: Callable[[SqlAlchemySagaStorage, Hold], Any]
) -> None:
    own = sa.create_engine(database_url)
    storage = SqlAlchemySagaStorage(own)
    hold = _run(storage)
    with own.connect(), own.connect(), own.connect():
        pass  # and all three are idle in the pool now
    assert _cut_all(engine, database_url) == 3

    with suppress(StorageUnavailable):
        operation(storage, hold)
    operation(storage, hold)
    storage.close()


def test_a_connection_cut_in_the_middle_of_a_statement_is_unavailable_and_the_next_call_works(
    storage: SqlAlchemySagaStorage, engine: sa.Engine
) -> None:
    hold = _run(storage, for_seconds=0)
    with engine.connect() as rival, ThreadPoolExecutor(1) as pool:
        rival.exec_driver_sql("UPDATE saga_executions SET updated_at = clock_timestamp()")
        taking = pool.submit(_take, storage, hold)
        _wait_until(lambda: _backends(engine, "wait_event_type = 'Lock'"))
        _backends(engine, "wait_event_type = 'Lock'", "pg_terminate_backend(pid)")

        with pytest.raises(StorageUnavailable, match="terminating connection"):
            taking.result(timeout=DEADLINE_SECONDS)
        rival.rollback()

    assert isinstance(_take(storage, hold), Taken)


def test_a_server_that_became_a_replica_is_unavailable_until_connections_find_the_primary(
    database_url: str, engine: sa.Engine
) -> None:
    storage = SqlAlchemySagaStorage(database_url)
    hold = _run(storage)
    name = sa.make_url(database_url).database
    server = engine.execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    storage.close()
    with pytest.raises(StorageUnavailable, match="read-only"):
        storage.renew(hold, 60)
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")

    storage.renew(hold, 60)
    storage.close()


FORKING: Final = """
import json, os, sys
import sqlalchemy as sa
from uuid import UUID
from sagas.storage import SqlAlchemySagaStorage

url, saga_id = sys.argv[1], UUID(sys.argv[2])
engine = sa.create_engine(url, pool_size=1)
storage = SqlAlchemySagaStorage(engine)

def backend():
    storage.increment_recovery_attempts(saga_id)
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()

def attempts():
    return storage.load(saga_id).recovery_attempts

before = backend()
read, write = os.pipe()
if child := os.fork():
    in_child = json.loads(os.read(read, 1000))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([before, in_child, backend(), status, attempts()]))
else:
    os.write(write, json.dumps(backend()).encode())
    # Ends as a program ends, with every connection it still knows of closed.
"""


def test_a_connection_is_not_shared_across_a_fork(database_url: str) -> None:
    storage = SqlAlchemySagaStorage(database_url)
    hold = _run(storage)
    storage.close()

    run = subprocess.run(
        [sys.executable, "-c", FORKING, database_url, str(hold.saga_id)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    before, in_child, after, child_status, attempts = json.loads(run.stdout)
    assert in_child != before, "the child used the parent's connection"
    assert after == before, "the parent's connection was harmed"
    assert (child_status, attempts) == (0, 3)


# -- what these tests stand on --------------------------------------------------------------------------------


def _new(key: str | None = None) -> NewSaga:
    return NewSaga(id=new_saga_id(), name="order", context='{"n": 1}', idempotency_key=key)


def _run(storage: SqlAlchemySagaStorage, *, for_seconds: float = 60.0) -> Hold:
    new = _new()
    storage.create_sagas([new], owner="worker-1", for_seconds=for_seconds)
    return Hold(new.id, 1, "worker-1")


@contextmanager
def _writing_to(engine: sa.Engine, saga: NewSaga | SagaRecord) -> Iterator[None]:
    """Hold the saga's row as a statement in progress does."""
    with engine.begin() as writer:
        writer.exec_driver_sql("UPDATE saga_executions SET version = version WHERE id = %s", (saga.id,))
        yield


def _take(storage: SqlAlchemySagaStorage, hold: Hold) -> Any:
    return storage.take(hold.saga_id, owner="worker-2", lease_seconds=60, max_recovery_attempts=5)


def _wait_until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def _backends(engine: sa.Engine, condition: str, what: str = "pid") -> list[Any]:
    """This database's other sessions for which the condition holds."""
    query = f"SELECT {what} FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(f"{query} AND pid <> pg_backend_pid()").scalars())


def _cut_all(engine: sa.Engine, database_url: str) -> int:
    """Terminate every session of another database, as a server that restarts does; return how many."""
    query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name"
    with engine.connect() as connection:
        cut = connection.execute(sa.text(query), {"name": sa.make_url(database_url).database}).scalars().all()
    assert all(cut)
    return len(cut)
