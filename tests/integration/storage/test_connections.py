"""What is wrong with a database is told in a sentence, and what breaks is mended by the next call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

from sagas.errors import ConfigurationError, SchemaBehind, StorageUnavailable
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.postgres.pool import Connections
from sagas.storage.postgres.prepared import PreparedStatements
from sagas.storage.records import completed
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.schema import migrate
from sagas.storage.transitions import Progressed
from tests.calls import DEADLINE_SECONDS, acquire, backends, claim, cut_all, held_saga, new_saga, wait_until

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
        PostgresSagaStorage(url)
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
        PostgresSagaStorage(url)
    assert url.partition("://")[0] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_engine_of_another_dialect_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite\+pysqlite, and sagas need PostgreSQL"):
        PostgresSagaStorage(sa.create_engine("sqlite://"))


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
    storage = PostgresSagaStorage(url)

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
        PostgresSagaStorage(engine).check_schema()
    engine.dispose()


# -- a layout that is not the one needed ----------------------------------------------------------------------


def test_a_database_without_tables_is_behind(empty_database_url: str) -> None:
    storage = PostgresSagaStorage(empty_database_url)

    for operation in (storage.check_schema, lambda: storage.load(new_saga_id()), lambda: claim(storage)):
        with pytest.raises(SchemaBehind, match=r"no saga tables.*run `sagas migrate`"):
            operation()
    storage.close()


def test_a_database_that_is_behind_works_once_it_is_migrated(empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    storage = PostgresSagaStorage(engine)
    with engine.connect() as connection:
        migrate(connection, to="0001")
    with pytest.raises(SchemaBehind, match=r"is at version 0001.*needs 0007: run `sagas migrate`"):
        storage.find(SagaFilter())

    with engine.connect() as connection:
        migrate(connection)

    assert storage.find(SagaFilter()) == []
    engine.dispose()


def test_a_database_that_newer_code_migrated_is_accepted(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_schema SET version_num = '9999'")

    PostgresSagaStorage(engine).check_schema()
    engine.dispose()


def test_a_column_that_went_missing_is_told_as_a_layout_that_is_behind(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    storage = PostgresSagaStorage(engine)
    storage.check_schema()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE saga_executions DROP COLUMN suspect")

    with pytest.raises(SchemaBehind, match=r"suspect.*run `sagas migrate`"):
        storage.find(SagaFilter())
    engine.dispose()


def test_starting_in_a_transaction_of_the_callers_tells_of_missing_tables_too(empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    with engine.connect() as connection, pytest.raises(SchemaBehind, match="run `sagas migrate`"):
        PostgresSagaStorage(engine).create_sagas([new_saga()], connection=connection)
    engine.dispose()


# -- connections that break -----------------------------------------------------------------------------------


@pytest.mark.parametrize("database", [str, sa.create_engine], ids=["kept here", "of a pool of the caller's"])
@pytest.mark.parametrize(
    "operation",
    [
        lambda storage, lease: storage.load(lease.saga_id),
        lambda storage, lease: storage.apply(
            lease, Progressed(events=(completed("a", Action.ACT),), status=SagaStatus.RUNNING)
        ),
        lambda storage, _: claim(storage),
    ],
    ids=["load", "apply", "claim"],
)
def test_after_all_connections_were_cut_one_call_may_fail_and_no_more(
    database_url: str,
    engine: sa.Engine,
    operation: Callable[[PostgresSagaStorage, Lease], Any],
    database: Callable[[str], str | sa.Engine],
) -> None:
    storage = PostgresSagaStorage(database(database_url))
    lease = held_saga(storage)
    cursor = storage._connections.cursor
    with cursor(), cursor(), cursor():
        pass  # and all three are idle now
    assert cut_all(engine, database_url) == 3

    with suppress(StorageUnavailable):
        operation(storage, lease)
    operation(storage, lease)
    storage.close()


def test_a_connection_cut_in_the_middle_of_a_statement_is_unavailable_and_the_next_call_works(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    lease = held_saga(storage, for_seconds=0)
    with engine.connect() as rival, ThreadPoolExecutor(1) as pool:
        rival.exec_driver_sql("UPDATE saga_executions SET updated_at = clock_timestamp()")
        acquiring = pool.submit(acquire, storage, lease)
        wait_until(lambda: backends(engine, "wait_event_type = 'Lock'"))
        backends(engine, "wait_event_type = 'Lock'", "pg_terminate_backend(pid)")

        with pytest.raises(StorageUnavailable, match="terminating connection"):
            acquiring.result(timeout=DEADLINE_SECONDS)
        rival.rollback()

    assert isinstance(acquire(storage, lease), Acquired)


def test_statements_stay_usable_after_a_rollback_on_their_connection(database_url: str) -> None:
    with closing(PostgresSagaStorage(database_url, pool_size=1)) as storage:
        first = held_saga(storage).saga_id
        for _ in range(10):
            storage.load(first)  # after some times psycopg prepares it
        with suppress(ZeroDivisionError), storage.connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute("SELECT 1")
            raise ZeroDivisionError

        assert storage.load(held_saga(storage).saga_id).version == 1


def test_a_server_that_became_a_replica_is_unavailable_until_connections_find_the_primary(
    database_url: str, engine: sa.Engine
) -> None:
    storage = PostgresSagaStorage(database_url)
    lease = held_saga(storage)
    name = sa.make_url(database_url).database
    server = engine.execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    storage.close()
    with pytest.raises(StorageUnavailable, match="read-only"):
        storage.renew(lease, 60)
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")

    storage.renew(lease, 60)
    storage.close()


FORKING: Final = """
import json, os, sys
import sqlalchemy as sa
from uuid import UUID
from sagas.storage import PostgresSagaStorage

url, saga_id = sys.argv[1], UUID(sys.argv[2])
storage = PostgresSagaStorage(url if sys.argv[3] == "kept" else sa.create_engine(url, pool_size=1))

def backend():
    storage.increment_recovery_attempts(saga_id)
    with storage._connections.cursor() as cursor:
        return cursor.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]

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


@pytest.mark.parametrize("database", ["kept", "a pool of the caller's"])
def test_a_connection_is_not_shared_across_a_fork(database_url: str, database: str) -> None:
    storage = PostgresSagaStorage(database_url)
    lease = held_saga(storage)
    storage.close()

    run = subprocess.run(
        [sys.executable, "-c", FORKING, database_url, str(lease.saga_id), database],
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


# -- prepared statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "runs"), [({}, 5), ({"prepare_threshold": "0"}, 0), ({"prepare_threshold": "none"}, None)]
)
def test_statements_are_prepared_after_as_many_runs_as_the_url_says(
    engine: sa.Engine, query: dict[str, str], runs: int | None
) -> None:
    own = make_engine(engine.url.update_query_dict(query))
    with own.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == runs  # type: ignore[union-attr]
    own.dispose()


@pytest.mark.parametrize("threshold", ["", "often", "-1", "2.5"])
def test_a_threshold_that_is_no_number_is_refused_with_what_to_write(threshold: str) -> None:
    url = sa.make_url("postgresql+psycopg://user:secret@host/database").update_query_dict(
        {"prepare_threshold": threshold}
    )
    with pytest.raises(ConfigurationError, match=r"SAGAS_DATABASE_URL.*such as 5, or none") as caught:
        PostgresSagaStorage(url)
    assert "secret" not in str(caught.value)


# -- prepared statements --------------------------------------------------------------------------------------


def test_what_the_server_says_of_a_prepared_statement_is_raised_as_a_cursor_raises_it(database_url: str):
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        prepared = PreparedStatements(connection)
        halve = "SELECT 1 / CAST(%(by)s AS int)"

        with pytest.raises(psycopg.errors.DivisionByZero):
            prepared.execute(halve, {"by": 0})
        with pytest.raises(psycopg.errors.UndefinedTable):
            prepared.execute("DELETE FROM nowhere WHERE id = %(id)s", {"id": 1})

        assert prepared.execute(halve, {"by": 1}) == "1"
        assert connection.info.transaction_status == TransactionStatus.IDLE


def test_a_signal_interrupts_a_prepared_statement_and_its_connection_is_not_used_again(database_url: str):
    connections = Connections(make_engine(database_url), size=1)
    before_it = connections.write("SELECT pg_backend_pid() WHERE %(yes)s", {"yes": True})

    def raise_in_the_main_thread(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGUSR1, raise_in_the_main_thread)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(InterruptedError):
            connections.write("SELECT pg_sleep(CAST(%(seconds)s AS float8))", {"seconds": 60})
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)

    assert connections.write("SELECT pg_backend_pid() WHERE %(yes)s", {"yes": True}) not in (None, before_it)
    connections.close()


def test_nothing_is_prepared_on_a_connection_that_was_told_not_to(database_url: str):
    connections = Connections(make_engine(f"{database_url}?prepare_threshold=none"), size=1)
    connections.write("SELECT 1 WHERE CAST(%(yes)s AS boolean)", {"yes": True})

    with connections.cursor() as cursor:
        assert cursor.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
    connections.close()
