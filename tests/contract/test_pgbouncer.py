"""Each method of the storage works through a PgBouncer in transaction mode with two connections to the server.

Twice: one that knows nothing of prepared statements, and one that keeps track of them, if it can (1.22 and newer).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas import SagaEngine, SagaStatus
from sagas.cli.migrate import migrate_database
from sagas.errors import StorageUnavailable
from sagas.storage import ISagaStorage, PostgresSagaStorage
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.schema import HEAD
from sagas.testing import StorageContract
from tests.calls import DEADLINE_SECONDS, backends, new_saga
from tests.contract import test_postgres
from tests.pgbouncer import PgBouncerServer, installed, version
from tests.samples import Stage, Trip

PGBOUNCER: Final = installed()
if PGBOUNCER is None:
    pytest.skip("pgbouncer is not installed (Debian, Ubuntu: apt install pgbouncer)", allow_module_level=True)
VERSION: Final = version(PGBOUNCER)
TRACKS: Final = VERSION >= (1, 22)
THREADS: Final = 8
#: More often than psycopg runs a statement before it prepares it.
ROUNDS: Final = 20


@pytest.fixture(scope="module", params=[False, True] if TRACKS else [False], ids=lambda tracks: f"tracking={tracks}")
def tracking(request: pytest.FixtureRequest) -> bool:
    """Whether the pooler keeps track of prepared statements, and the URL says so."""
    return bool(request.param)


@pytest.fixture(scope="module")
def pooler(server_url: sa.URL, server_directory: Path, tracking: bool) -> Iterator[PgBouncerServer]:
    """A PgBouncer in front of the suite's server, with two connections to it for each database."""
    # The setting is unknown to older ones, which behave as with 0.
    tracked = (200 if tracking else 0) if VERSION >= (1, 21) else None
    directory = server_directory / f"pgbouncer-{tracking}"
    with PgBouncerServer(
        directory, program=PGBOUNCER, server=server_url, pool_size=2, max_prepared_statements=tracked
    ) as server:
        yield server


def _url(pooler: PgBouncerServer, database_url: str | sa.URL, tracking: bool) -> sa.URL:
    """The URL that a user sets; with tracking, every statement is prepared at its first run."""
    url = pooler.url(sa.make_url(database_url).database)
    return url.update_query_dict({"prepare_threshold": "0"}) if tracking else url


@pytest.fixture
def pooled_url(pooler: PgBouncerServer, engine: sa.Engine, tracking: bool) -> sa.URL:
    """The URL of the module's database, emptied, through the pooler."""
    return _url(pooler, engine.url, tracking)


@pytest.fixture
def storage(pooled_url: sa.URL) -> Iterator[PostgresSagaStorage]:
    """A storage behind the pooler."""
    storage = PostgresSagaStorage(pooled_url)
    yield storage
    storage.close()


def _left_out() -> set[str]:
    """The contract's tests but those that call from many threads, and one for each method of a storage.

    A pooler changes how statements are prepared and which session runs a transaction, and nothing of what they say.
    """
    tests = [test for part in StorageContract.__mro__ for name, test in vars(part).items() if name.startswith("test_")]
    sources = {test.__name__: inspect.getsource(test) for test in tests if "refused" not in test.__name__}

    def first_that_calls(method: str) -> str:
        calls = (f"storage.{method}(", f"self.{method}(")
        return next(name for name, source in sources.items() if any(call in source for call in calls))

    from_threads = {name for name, source in sources.items() if "all_at_once(" in source}
    kept = from_threads | {first_that_calls(method) for method in ISagaStorage.__abstractmethods__}
    return {test.__name__ for test in tests} - kept


#: On the `storage` above; time is passed directly.
TestStorageBehindPgBouncer = type(
    "TestStorageBehindPgBouncer",
    (test_postgres.TestPostgresSagaStorage,),
    {"__module__": __name__, **dict.fromkeys(_left_out())},
)


# -- many at once -----------------------------------------------------------------------------------------------------


def _all_at_once(work: Callable[[int], Any]) -> list[Any]:
    """What each thread's work returned, all begun at the same moment."""
    barrier = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        barrier.wait(DEADLINE_SECONDS)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS), timeout=DEADLINE_SECONDS))


def _of_sessions(engine: sa.Engine, pooled_url: sa.URL, query: str) -> list[Any]:
    """What a query answers in each of the pooler's sessions, which are idle now."""
    plain = sa.create_engine(pooled_url.set(query={}), connect_args={"prepare_threshold": None})
    with plain.connect() as one, plain.connect() as other:
        answers = {
            connection.exec_driver_sql("SELECT pg_backend_pid()").scalar(): connection.exec_driver_sql(query).scalar()
            for connection in (one, other)
        }
    plain.dispose()
    pids = backends(engine, "application_name <> 'psycopg'")
    assert set(answers) <= set(pids)
    assert len(answers) == 2
    return list(answers.values())


def test_threads_run_sagas_at_once_through_two_connections(
    storage: PostgresSagaStorage, engine: sa.Engine, pooled_url: sa.URL
) -> None:
    trip = Stage().saga("flight", "hotel", "car")
    runner = SagaEngine(storage, sagas=[trip])

    reports = _all_at_once(lambda _: [runner.run(trip, Trip()) for _ in range(ROUNDS)])

    ids = [report.saga_id for done in reports for report in done]
    assert len(set(ids)) == THREADS * ROUNDS
    for saga in map(storage.load, ids):
        assert saga.status is SagaStatus.COMPLETED
        assert [entry.step for entry in saga.log] == ["flight", "hotel", "car"]


def test_scans_at_once_claim_each_saga_once_and_leave_no_setting_behind(
    storage: PostgresSagaStorage, engine: sa.Engine, pooled_url: sa.URL
) -> None:
    due = [new_saga() for _ in range(THREADS * 10)]
    storage.create_sagas(due)

    def scan(_: int) -> list[Any]:
        scanned = storage.claim_sagas(pending=True, limit=len(due), max_recovery_attempts=5)
        return [claim.saga_id for claim in scanned.claims]

    claimed = [saga_id for ids in _all_at_once(scan) for saga_id in ids]

    assert sorted(claimed) == sorted(saga.id for saga in due)
    assert _of_sessions(engine, pooled_url, "SHOW lock_timeout") == ["0", "0"]
    assert _of_sessions(engine, pooled_url, "SHOW idle_in_transaction_session_timeout") == ["0", "0"]
    assert _of_sessions(engine, pooled_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [0, 0]


# -- what else talks to the database ----------------------------------------------------------------------------------


def test_migrations_at_once_take_turns(pooler: PgBouncerServer, empty_database_url: str, tracking: bool) -> None:
    url = _url(pooler, empty_database_url, tracking).render_as_string(hide_password=False)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(migrate_database, [url, url]))

    assert all(HEAD in sentence for sentence in said), said
    storage = PostgresSagaStorage(url)
    storage.check_schema()
    storage.close()


def test_a_saga_started_in_the_callers_transaction_exists_if_and_only_if_it_commits(
    storage: PostgresSagaStorage, pooled_url: sa.URL
) -> None:
    kept, undone = new_saga("kept"), new_saga("undone")
    own = sa.create_engine(pooled_url.set(query={}), connect_args={"prepare_threshold": None})
    with Session(own) as session:
        storage.create_sagas([kept], queued=True, connection=session)
        session.commit()
        storage.create_sagas([undone], queued=True, connection=session)
        session.rollback()
    own.dispose()

    assert [saga.id for saga in storage.find(SagaFilter())] == [kept.id]


# -- outages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["the server", "the pooler"])
def test_after_an_outage_one_call_may_fail_and_no_more(
    storage: PostgresSagaStorage, pooler: PgBouncerServer, engine: sa.Engine, broken: str
) -> None:
    storage.find(SagaFilter())
    if broken == "the pooler":
        pooler.restart("immediate")
    else:
        assert all(backends(engine, "TRUE", "pg_terminate_backend(pid, 5000)"))

    with suppress(StorageUnavailable):
        storage.find(SagaFilter())
    assert storage.find(SagaFilter()) == []


# -- prepared statements ----------------------------------------------------------------------------------------------


def _threshold(url: str | sa.URL) -> int | None:
    engine = make_engine(url)
    with engine.connect() as connection:
        threshold: int | None = connection.connection.driver_connection.prepare_threshold  # type: ignore[union-attr]
    engine.dispose()
    return threshold


def test_statements_are_not_prepared_behind_a_pooler_unless_the_url_says_so(
    pooler: PgBouncerServer, engine: sa.Engine
) -> None:
    url = pooler.url(engine.url.database)
    assert _threshold(url) is None
    assert _threshold(url.update_query_dict({"prepare_threshold": "7"})) == 7


def test_no_client_runs_the_statement_of_another(pooled_url: sa.URL) -> None:
    engines = make_engine(pooled_url), make_engine(pooled_url)
    with engines[0].connect() as one, engines[1].connect() as other:
        for _ in range(ROUNDS):
            # In transactions at once, so in two sessions; which of them has whom changes with each round.
            answers = [one.exec_driver_sql("SELECT 1 + %s::int", (1,)).scalar()]
            answers.append(other.exec_driver_sql("SELECT 100 + %s::int", (1,)).scalar())
            one.commit()
            other.commit()
            assert answers == [2, 101]
    for engine in engines:
        engine.dispose()


@pytest.mark.skipif(not TRACKS, reason="this pgbouncer cannot keep track of prepared statements: 1.22 or newer can")
@pytest.mark.parametrize("tracking", [True], indirect=True)
def test_a_pooler_that_keeps_track_is_given_statements_to_prepare(
    storage: PostgresSagaStorage, engine: sa.Engine, pooled_url: sa.URL
) -> None:
    _all_at_once(lambda _: [storage.find(SagaFilter()) for _ in range(ROUNDS)])

    assert all(_of_sessions(engine, pooled_url, "SELECT count(*) FROM pg_prepared_statements"))
