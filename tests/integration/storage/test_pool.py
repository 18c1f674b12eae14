"""The pool: as many connections as are used at once, bounded, checked after they were idle, none of the parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from sagas.errors import StorageUnavailable
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage
from sagas.storage.postgres import pool
from sagas.storage.saga_filter import SagaFilter
from tests.calls import DEADLINE_SECONDS, acquire, backends, claim, cut_all, held_saga, new_saga, wait_until

THREADS: Final = 12


@pytest.fixture
def database_url(module_engine: sa.Engine, engine: sa.Engine) -> str:
    """The URL of the module's database, emptied, whose other sessions are the test's."""
    module_engine.dispose()
    return module_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def storages() -> Iterator[Callable[..., PostgresSagaStorage]]:
    """Makes storages, and closes them."""
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> PostgresSagaStorage:
            storage = PostgresSagaStorage(*arguments, **options)
            stack.callback(storage.close)
            return storage

        yield make


Storages = Callable[..., PostgresSagaStorage]


def _session(storage: PostgresSagaStorage, barrier: threading.Barrier | None = None) -> int:
    with storage.connections.cursor() as cursor:
        if barrier is not None:
            barrier.wait(DEADLINE_SECONDS)
        row = cursor.execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row is not None
    return int(row["pid"])


def test_one_operation_after_another_uses_one_connection(storages: Storages, database_url: str) -> None:
    storage = storages(database_url)
    assert len({_session(storage) for _ in range(THREADS)}) == 1


def test_operations_at_once_share_as_many_connections_as_the_pool_has(storages: Storages, database_url: str) -> None:
    storage = storages(database_url, pool_size=3)
    begun = threading.Barrier(3)  # broken if fewer than three at once were given a connection
    with ThreadPoolExecutor(THREADS) as threads:
        sessions = list(threads.map(lambda _: _session(storage, begun), range(THREADS), timeout=DEADLINE_SECONDS))
    assert len(set(sessions)) == 3


def test_a_renewal_waits_for_no_other_operation(storages: Storages, database_url: str) -> None:
    storage = storages(database_url, pool_size=1)
    lease = held_saga(storage)
    with storage.connections.cursor():
        assert storage.renew(lease, 60) is False


def test_an_operation_for_which_no_connection_becomes_free_says_which_setting_is_too_low(
    storages: Storages, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storages(database_url, pool_size=1)
    storage.check_schema()
    monkeypatch.setattr(pool, "_WAIT_SECONDS", 0.01)
    with storage.connections.cursor(), pytest.raises(StorageUnavailable, match=r"all 1 .* SAGAS_DATABASE_POOL_SIZE"):
        storage.find(SagaFilter())
    assert storage.find(SagaFilter()) == []


def test_a_connection_that_another_takes_at_once_frees_its_place(
    storages: Storages, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storages(database_url, pool_size=1)
    connections = storage.connections
    keep = connections.keep

    def kept_and_taken(returned: pool.Checkout) -> None:
        keep(returned)
        assert connections.cursor(at_once=True) is returned  # a renewal, before the first is done with it

    storage.find(SagaFilter())
    monkeypatch.setattr(connections, "keep", kept_and_taken)
    storage.find(SagaFilter())
    monkeypatch.undo()
    monkeypatch.setattr(pool, "_WAIT_SECONDS", 5.0)
    storage.find(SagaFilter())  # its place is free


def test_an_operation_that_fails_gives_its_connection_back(
    storages: Storages, database_url: str, engine: sa.Engine
) -> None:
    storage = storages(database_url, pool_size=1)
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero), storage.connections.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        with pytest.raises(KeyboardInterrupt), storage.connections.cursor():
            raise KeyboardInterrupt
        with pytest.raises(StorageUnavailable), storage.connections.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert storage.find(SagaFilter()) == []


def test_a_connection_that_cannot_be_opened_is_not_missing_afterwards(
    storages: Storages, database_url: str, server_url: sa.URL
) -> None:
    storage = storages(database_url, pool_size=1)
    storage.find(SagaFilter())
    name = sa.make_url(database_url).database
    server = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        storage.close()
        for _ in range(3):
            with pytest.raises(StorageUnavailable, match="not currently accepting connections"):
                storage.find(SagaFilter())
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert storage.find(SagaFilter()) == []


def test_connections_that_nobody_needs_any_more_are_closed(
    storages: Storages, database_url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storages(database_url)
    with storage.connections.cursor(), storage.connections.cursor(), storage.connections.cursor():
        pass
    assert len(backends(engine, "state = 'idle'")) >= 3
    monkeypatch.setattr(pool, "_KEPT_SECONDS", 0)

    used = {_session(storage) for _ in range(5)}

    assert len(used) == 1
    wait_until(lambda: set(backends(engine, "application_name = ''")) == used)


# -- idle connections -------------------------------------------------------------------------------------------------


def test_a_server_that_closes_idle_sessions_is_not_noticed(
    storages: Storages, database_url: str, engine: sa.Engine
) -> None:
    name = sa.make_url(database_url).database
    server = engine.execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET idle_session_timeout = '2s'")
    storage = storages(database_url)
    lease = held_saga(storage)
    operations: list[Callable[[PostgresSagaStorage], Any]] = [
        lambda one: one.create_sagas([new_saga()]),
        lambda one: one.create_sagas([new_saga(), new_saga("o-1")]),
        lambda one: one.renew(lease, 60),
        lambda one: acquire(one, lease),
        claim,
        lambda one: one.pause("order", actor="me", reason="why"),
        lambda one: Inspector(one).statistics(),
    ]
    ready = [storages(database_url) for _ in operations]
    sessions = {_session(one) for one in ready}
    assert len(sessions) == len(operations)

    wait_until(lambda: not sessions & set(backends(engine, "TRUE")))
    for one, operation in zip(ready, operations, strict=True):
        operation(one)

    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET idle_session_timeout")


def test_after_a_restart_idle_connections_are_replaced(
    storages: Storages, database_url: str, server_url: sa.URL, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_TRUSTED_SECONDS", -1)  # as if a while had passed
    storage = storages(database_url)
    with storage.connections.cursor(), storage.connections.cursor(), storage.connections.cursor():
        pass
    engine.dispose()
    assert cut_all(sa.create_engine(server_url, poolclass=sa.NullPool), database_url) == 3

    assert storage.find(SagaFilter()) == []
    assert len(backends(engine, "application_name = ''")) == 1


# -- forks ------------------------------------------------------------------------------------------------------------

FORKING: Final = """
import os, sys
from sagas.storage import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter

storage = PostgresSagaStorage(sys.argv[1], pool_size=1)
with storage.connections.cursor() as cursor:
    if (child := os.fork()) == 0:
        storage.find(SagaFilter())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    cursor.execute("SELECT 1")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_does_not_wait_for_what_its_parent_uses(database_url: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORKING, database_url],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
