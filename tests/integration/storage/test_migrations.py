"""Migrations lead from nothing, and from the older layout with everything in it, to the layout the code knows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from threading import Barrier
from typing import Any, Final

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sagas import PostgresSagaStorage, SagaEngine
from sagas.errors import MigrationRefused
from sagas.storage.schema import HEAD, VERSION_TABLE, current_version, migrate
from sagas.storage.tables import metadata
from tests.calls import wait_until
from tests.databases import database
from tests.integration.storage.older import CASES, LAYOUTS, RESERVED, Older, OrderSaga, did


@pytest.fixture
def engine(server_url: sa.URL) -> Iterator[sa.Engine]:
    """A database of the test's own, with nothing in it."""
    with database(server_url) as engine:
        yield engine


@pytest.fixture(scope="module")
def older_by_layout(server_url: sa.URL) -> Iterator[Callable[[str], Older]]:
    """Return the module's migrated database that was full of sagas in every state, by its layout before."""
    with ExitStack() as stack:

        @cache
        def older(layout: str) -> Older:
            older = Older(stack.enter_context(database(server_url)), layout)
            older.fill()
            older.migrate()
            return older

        yield older


@pytest.fixture(params=LAYOUTS)
def older(older_by_layout: Callable[[str], Older], request: pytest.FixtureRequest) -> Older:
    """A migrated database that was full of sagas in every state."""
    return older_by_layout(request.param)


# -- what was there can be recovered --------------------------------------------------------------------------


#: Every case in the layout that has most to change; in the others, what differs there is how a status is written.
ENDS: Final = [("native enums", case) for case in CASES] + [
    (layout, case)
    for layout in LAYOUTS
    if layout != "native enums"
    for case in ("running, between steps", "completed", "compensating, half undone", "failed, nothing undone")
]


@pytest.mark.parametrize(("older", "case"), ENDS, indirect=["older"])
def test_a_saga_of_the_older_layout_is_brought_to_its_end(older: Older, case: str) -> None:
    storage = PostgresSagaStorage(older.engine)
    saga_id, expected = older.sagas[case], CASES[case]
    assert storage.load(saga_id).status.finished == expected.at_once
    did.clear()

    report = SagaEngine(storage, sagas=[OrderSaga]).recover(saga_id)

    assert (report.status, tuple(did)) == (expected.ends, expected.does), report
    saga = storage.load(saga_id)
    assert (saga.status, saga.available_at, saga.lease_owner) == (expected.ends, None, None)
    assert saga.finished_at is not None
    assert json.loads(saga.context) == {"order": "Zoë 1", "notes": []}


# -- everything that was there is still there -----------------------------------------------------------------


def test_migrating_keeps_every_row_of_both_tables(older: Older) -> None:
    sagas, log = older.before

    assert older.after[0] == sagas
    assert older.after[1][: len(log)] == log


def test_migrating_keeps_the_details_of_the_log(older: Older) -> None:
    saga = PostgresSagaStorage(older.engine).load(older.sagas["failed, first step failed"])

    (begun, ended) = saga.log
    assert (begun.message, begun.status) == (None, "started")
    assert (ended.message, ended.error_type) == ("told of Reserve act FAILED", "Error")
    assert (ended.verdict, ended.in_doubt) == ("abort", False)
    (_, done, *_) = PostgresSagaStorage(older.engine).load(older.sagas["completed"]).log
    assert (done.message, done.status) == ("told of Reserve act COMPLETED", "completed")


@pytest.fixture
def unmigrated(engine: sa.Engine) -> Older:
    """A database full of sagas in every state, not migrated yet."""
    older = Older(engine, "native enums")
    older.fill()
    return older


def test_every_unfinished_saga_is_due_and_every_finished_one_has_its_end(unmigrated: Older) -> None:
    unmigrated.migrate()

    storage = PostgresSagaStorage(unmigrated.engine)
    claims = {
        claim.saga_id
        for pending in (True, False)
        for claim in storage.claim_sagas(pending=pending, limit=100, max_recovery_attempts=5).claims
    }
    assert claims == {unmigrated.sagas[name] for name, case in CASES.items() if not case.at_once}
    finished = [storage.load(unmigrated.sagas[name]) for name, case in CASES.items() if case.at_once]
    assert all(saga.finished_at == saga.updated_at and saga.available_at is None for saga in finished)


def test_attempts_that_were_counted_are_kept(engine: sa.Engine) -> None:
    older = Older(engine, "by hand")
    counted, uncounted = older.add("RUNNING"), older.add("RUNNING")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET recovery_attempts = 3 WHERE id = %s", (counted,))

    older.migrate()

    storage = PostgresSagaStorage(engine)
    assert [storage.load(saga_id).recovery_attempts for saga_id in (counted, uncounted)] == [3, 0]


def test_an_enum_that_another_table_uses_is_left_there(engine: sa.Engine) -> None:
    older = Older(engine, "native enums")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE other (status sagastatus)")

    older.migrate()

    assert older.rows("(SELECT 1 AS id, count(*) AS rows FROM other) AS counted", "rows") == [(0,)]


# -- what cannot be carried over ------------------------------------------------------------------------------


def test_contexts_that_jsonb_cannot_hold_are_named_and_nothing_is_changed(engine: sa.Engine) -> None:
    older = Older(engine, "native enums")
    good = older.add("RUNNING", RESERVED)
    contexts = (r'{"note": "a\u0000b"}', r'{"note": "\\\u0000"}', r'{"note": "\ud83d and no more"}', r'{"\udc00": 1}')
    bad = [older.add("RUNNING", RESERVED, context=context) for context in contexts]
    before = (_layout(engine), older.rows("saga_executions", "*"), older.rows("saga_logs", "*"))

    with pytest.raises(MigrationRefused, match=r"run `sagas migrate` again; nothing was changed") as caught:
        older.migrate()

    assert all(str(saga_id) in str(caught.value) for saga_id in bad)
    assert str(good) not in str(caught.value)
    assert (_layout(engine), older.rows("saga_executions", "*"), older.rows("saga_logs", "*")) == before
    with engine.connect() as connection:
        assert current_version(connection) is None


def test_a_context_that_merely_looks_like_it_is_carried_over(engine: sa.Engine) -> None:
    older = Older(engine, "native enums")
    contexts = [r'{"note": "\\u0000"}', r'{"note": "\ud83d\ude9a"}', r'{"note": "ud800"}']
    sagas = [older.add("RUNNING", context=context) for context in contexts]

    older.migrate()

    storage = PostgresSagaStorage(engine)
    assert [json.loads(storage.load(saga_id).context) for saga_id in sagas] == [*map(json.loads, contexts)]


LEASE: Final = """
    INSERT INTO saga_executions (id, name, status, context, lease_owner, available_at)
    VALUES (gen_random_uuid(), 'order', 'RUNNING', '{}', %s, clock_timestamp() + make_interval(secs => %s))"""
SCAN: Final = """
    INSERT INTO saga_scans (worker, at) VALUES (%s, clock_timestamp() + make_interval(secs => %s))"""


@pytest.mark.parametrize(
    ("statement", "worker", "seconds", "refused"),
    [
        (LEASE, "web-1", 20, True),
        (LEASE, "web-1", -1, False),
        (LEASE, "queue", 4, False),
        (LEASE, "paused", 4, False),
        (LEASE, None, 300, False),
        (SCAN, "web-1", -5, True),
        (SCAN, "web-1", -31, False),
    ],
)
def test_workers_of_the_version_before_must_be_stopped(
    engine: sa.Engine, statement: str, worker: str | None, seconds: float, refused: bool
) -> None:
    with engine.connect() as connection:
        migrate(connection, to="0004")
        connection.exec_driver_sql(statement, (worker, seconds))
        connection.commit()
        if refused:
            with pytest.raises(MigrationRefused, match=r"web-1.*stop all workers and beat"):
                migrate(connection)
            connection.rollback()
        else:
            migrate(connection)

        assert current_version(connection) == ("0004" if refused else HEAD)


def test_sagas_of_the_version_before_keep_their_contexts(engine: sa.Engine) -> None:
    context = {"apple": {"z": [1, 2.5, None]}, "zebra": "Zoë \\u0000"}
    with engine.connect() as connection:
        migrate(connection, to="0004")
        statement = (
            "INSERT INTO saga_executions (id, name, context) VALUES (gen_random_uuid(), 'order', %s) RETURNING id"
        )
        saga_id = connection.exec_driver_sql(statement, (json.dumps(context),)).scalar_one()
        connection.commit()

        migrate(connection)

    assert json.loads(PostgresSagaStorage(engine).load(saga_id).context) == context


# -- running it -----------------------------------------------------------------------------------------------


def test_an_empty_database_is_brought_to_the_newest_layout(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        migrate(connection)

    PostgresSagaStorage(engine).check_schema()
    with engine.connect() as connection:
        assert current_version(connection) == HEAD


def test_a_connection_that_has_read_something_before_migrates_too(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert current_version(connection) is None
        migrate(connection)

    PostgresSagaStorage(engine).check_schema()


def test_a_transaction_of_the_callers_is_committed_by_the_migration(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)

    PostgresSagaStorage(engine).check_schema()


def test_migrating_twice_changes_nothing(unmigrated: Older) -> None:
    unmigrated.migrate()
    written = [unmigrated.rows(table, "id, xmin, ctid") for table in ("saga_executions", "saga_logs")]
    layout = _layout(unmigrated.engine)

    unmigrated.migrate()

    assert [unmigrated.rows(table, "id, xmin, ctid") for table in ("saga_executions", "saga_logs")] == written
    assert _layout(unmigrated.engine) == layout


def test_migrations_in_threads_at_once_take_turns(unmigrated: Older) -> None:
    ready = Barrier(4)

    def migrate_at_once(_: int) -> str | None:
        engine = sa.create_engine(unmigrated.engine.url)
        with engine.connect() as connection:
            ready.wait(timeout=60)
            migrate(connection)
            version = current_version(connection)
        engine.dispose()
        return version

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate_at_once, range(4))) == [HEAD] * 4

    assert _versions(unmigrated.engine) == [HEAD]


MIGRATING: Final = """
import sys
import sqlalchemy as sa
from alembic import command
from sagas.storage.schema import migrate

with sa.create_engine(sys.argv[1]).connect() as connection:
    print("ready", flush=True)
    sys.stdin.readline()
    migrate(connection)
"""


def test_migrations_in_processes_at_once_take_turns(engine: sa.Engine) -> None:
    Older(engine, "native enums").fill()
    command = [sys.executable, "-c", MIGRATING, engine.url.render_as_string(hide_password=False)]
    pods = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for pod in pods:
        assert pod.stdout is not None
        assert pod.stdout.readline() == "ready\n"
    with engine.begin() as connection:
        # All of them get to where they take turns before any can go on.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('sagas migrate'))")
        for pod in pods:
            assert pod.stdin is not None
            pod.stdin.write("\n")
            pod.stdin.close()
        wait_until(lambda: _waiting_for_their_turn(connection) == len(pods))
        assert [pod.poll() for pod in pods] == [None, None, None]

    assert [pod.wait(timeout=60) for pod in pods] == [0, 0, 0]
    assert _versions(engine) == [HEAD]
    PostgresSagaStorage(engine).check_schema()


def _waiting_for_their_turn(connection: sa.Connection) -> int:
    waiting: int = connection.exec_driver_sql("""
        SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()""").scalar_one()
    return waiting


def _versions(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalars())


# -- where it leads -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def declared(server_url: sa.URL) -> Iterator[dict[str, list[str]]]:
    """The layout that the tables of `sagas.storage.tables` have when SQLAlchemy creates them."""
    with database(server_url) as engine:
        metadata.create_all(engine)
        yield _layout(engine)


def test_the_newest_layout_is_what_the_tables_say(engine: sa.Engine, declared: dict[str, list[str]]) -> None:
    with engine.connect() as connection:
        migrate(connection)

    assert _differences(engine) == []
    assert _layout(engine) == declared


def test_the_older_layout_becomes_what_the_tables_say(older: Older, declared: dict[str, list[str]]) -> None:
    assert _differences(older.engine) == []
    assert _layout(older.engine) == declared


def _differences(engine: sa.Engine) -> list[Any]:
    """What `alembic check` would find."""
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


#: What PostgreSQL knows of the two tables: more than Alembic compares (checks, predicates, defaults, storage).
_CATALOG: Final = {
    "columns": """
        SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid IN ('saga_executions'::regclass, 'saga_logs'::regclass) AND attnum > 0 AND NOT attisdropped""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
        WHERE conrelid IN ('saga_executions'::regclass, 'saga_logs'::regclass)""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('saga_executions', 'saga_logs')",
    "storage": "SELECT relname, reloptions FROM pg_class WHERE relname IN ('saga_executions', 'saga_logs')",
    "types": "SELECT typname FROM pg_type WHERE typtype = 'e'",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'",
}


def _layout(engine: sa.Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        return {
            kind: sorted(str(tuple(row)) for row in connection.exec_driver_sql(query))
            for kind, query in _CATALOG.items()
        }
