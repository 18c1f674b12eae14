"""Real servers for the whole suite: embedded ones, or those in SAGAS_TEST_DATABASE_URL and SAGAS_TEST_BROKER_URL."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

from sagas.storage import PostgresSagaStorage
from sagas.storage.schema import migrate
from sagas.testing.servers import PostgresServer
from tests.callers import Shop
from tests.databases import database, empty
from tests.samples import Clock, Stage
from tests.servers import broker, empty_rabbit

# `nohup make test &` ignores SIGINT. Restore it, because child processes inherit it and tests interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on the machine and on what else it does.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

# Keep bytecode, also of tests: each process of the suite would otherwise compile the same modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """Exclude what was imported and collected from garbage collection: it lives until the end."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for the processes of xdist, each of which begins with an equal part of the list.

    Slow tests come first, the slowest before the others and for as long in each process, so that none of them is left
    alone at the end. The other tests stay together by module, because they share the module's fixtures. Unit tests come
    last: a process that has finished its part takes tests from the end of another's.
    """
    hands = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow: list[list[pytest.Item]] = [[] for _ in range(hands)]
    for item in sorted(filter(_seconds, items), key=_seconds, reverse=True):
        min(slow, key=lambda tests: sum(map(_seconds, tests))).append(item)
    others = [item for item in items if not _seconds(item)]
    last = deque(item for item in others if "unit" in item.path.parts)
    modules = [list(tests) for path, tests in groupby(others, key=lambda item: item.path) if "unit" not in path.parts]
    ordered: list[pytest.Item] = []
    for hand in range(hands):
        ordered += [*slow[hand], *chain.from_iterable(modules[hand::hands])]
        while last and len(ordered) < len(items) * (hand + 1) // hands:
            ordered.append(last.popleft())
    items[:] = [*ordered, *last]


def _seconds(item: pytest.Item) -> float:
    """Return how long a slow test takes; 0 for any other test."""
    marker = item.get_closest_marker("slow")
    return marker.args[0] if marker else 0.0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements of tests, from `record_property("figure", text)`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    figures = [text for report in reports for name, text in getattr(report, "user_properties", ()) if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory for servers that run as another user; pytest closes its own directory to other users."""
    # In memory if there is room: the suite makes and drops hundreds of databases.
    memory = Path("/dev/shm")
    home = memory if memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30 else None
    with tempfile.TemporaryDirectory(prefix="sagas-tests-", dir=home, ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture(scope="session")
def server_url(server_directory: Path) -> Iterator[sa.URL]:
    """A PostgreSQL server on which the suite may make databases."""
    if url := os.environ.get("SAGAS_TEST_DATABASE_URL"):
        yield sa.make_url(url)
        return
    with PostgresServer(server_directory / "postgres", settings={"max_prepared_transactions": "8"}) as server:
        url = sa.make_url(server.url)
        _make_password_cheap(url)
        yield url


@pytest.fixture(scope="session")
def template(server_url: sa.URL) -> Iterator[str]:
    """The name of a migrated database, which is cloned for each test."""
    name = f"sagas_template_{secrets.token_hex(4)}"
    _on_server(server_url, f"CREATE DATABASE {name}")
    engine = sa.create_engine(server_url.set(database=name))
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()
    yield name
    _on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(server_url: sa.URL, template: str) -> Iterator[str]:
    """The URL of the test's own migrated database."""
    yield from _database(server_url, f"TEMPLATE {template}")


@pytest.fixture
def empty_database_url(server_url: sa.URL) -> Iterator[str]:
    """The URL of the test's own empty database."""
    yield from _database(server_url, "")


@pytest.fixture
def storage(database_url: str) -> Iterator[PostgresSagaStorage]:
    """The test's own PostgreSQL storage."""
    storage = PostgresSagaStorage(database_url)
    yield storage
    storage.close()


@pytest.fixture(scope="session")
def broker_server(server_directory: Path) -> Iterator[str]:
    """The URL of the suite's broker, without a database number."""
    if url := os.environ.get("SAGAS_TEST_BROKER_URL"):
        yield url
        return
    with broker(server_directory / "broker") as server:
        yield server.url


@pytest.fixture
def broker_url(broker_server: str) -> str:
    """The URL of an empty broker."""
    if broker_server.startswith("amqp"):
        empty_rabbit(broker_server)
        return broker_server
    import redis

    client = redis.Redis.from_url(broker_server)
    client.flushdb()
    client.close()
    return broker_server


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parent.parent


@pytest.fixture
def stage() -> Stage:
    """Makes steps and sagas, and records every call of their actions."""
    return Stage()


@pytest.fixture
def clock() -> Clock:
    """A storage's clock, which a test advances."""
    return Clock()


@pytest.fixture(scope="module")
def module_database(server_url: sa.URL, template: str) -> Iterator[sa.Engine]:
    """The module's own migrated database."""
    with database(server_url, f"TEMPLATE {template}") as engine:
        yield engine


@pytest.fixture
def emptied_url(module_database: sa.Engine) -> str:
    """The URL of the module's database, which holds no saga."""
    with module_database.begin() as connection:
        empty(connection)
    return module_database.url.render_as_string(hide_password=False)


@pytest.fixture
def emptied_storage(emptied_url: str) -> Iterator[PostgresSagaStorage]:
    """A storage on the module's database, which holds no saga."""
    storage = PostgresSagaStorage(emptied_url)
    yield storage
    storage.close()


@pytest.fixture
def shop(emptied_storage: PostgresSagaStorage, emptied_url: str) -> Iterator[Shop]:
    """A caller on the module's database, which holds no saga."""
    shop = Shop(emptied_storage, emptied_url)
    yield shop
    shop.database.dispose()


def _database(server_url: sa.URL, clause: str) -> Iterator[str]:
    name = f"sagas_test_{secrets.token_hex(6)}"
    _on_server(server_url, f"CREATE DATABASE {name} {clause}")
    yield server_url.set(database=name).render_as_string(hide_password=False)
    _on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _make_password_cheap(server_url: sa.URL) -> None:
    """Let each of the suite's thousands of logins hash the password once instead of 4096 times."""
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET scram_iterations = 1")
        connection.exec_driver_sql(f"ALTER ROLE {server_url.username} PASSWORD '{server_url.password}'")


def _on_server(server_url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
