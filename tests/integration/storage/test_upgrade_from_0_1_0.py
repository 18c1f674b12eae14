"""A database of 0.1.0 is migrated: every saga ends as it would have, and the wrong order is refused on both sides."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa

from sagas.errors import MigrationRefused, SchemaAhead, SchemaBehind
from sagas.storage import PostgresSagaStorage, upgrade
from sagas.storage.records import SagaState
from sagas.storage.rules import check_legal
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.schema import HEAD, current_version, migrate
from tests.databases import database
from tests.integration.storage.released import (
    JOURNEYS,
    Version,
    engine_0_1_0,
    released,
    rows,
    template_0_1_0,
    this_version,
)

__all__ = ["engine_0_1_0", "released", "template_0_1_0", "this_version"]

#: Everything in the database that a migration touches, but what is random or the time of the migration.
_ROWS: Final = (
    "SELECT to_jsonb(e) - 'lease_token' - 'available_at' - 'updated_at' FROM saga_executions e ORDER BY id",
    "SELECT to_jsonb(l) - 'id' FROM saga_logs l ORDER BY saga_id, id",
    "SELECT to_jsonb(v) FROM saga_schema v",
)
_OBJECTS: Final = """
    SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT proname, 'function', NULL, NULL, NULL, NULL FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1, 2, 3"""
_NEWER: Final = "a newer release of celery-sagas has upgraded the saga tables, and this program is of an older one: "


def age_scans(engine: sa.Engine) -> None:
    """As if somebody had waited since the workers were stopped."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_scans SET at = at - interval '1 minute'")


def migrate_now(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        migrate(connection)


def state_of(engine: sa.Engine) -> list[Any]:
    """The tables, columns and functions, and every row of 0.1.0's tables."""
    tables = ("saga_executions", "saga_logs", "sagas_alembic_version", "saga_resumes")
    return [
        rows(engine, _OBJECTS),
        *(rows(engine, f"SELECT ctid, xmin, CAST(t AS text) FROM {table} t") for table in tables),
    ]


# -- sagas end as they would have -----------------------------------------------------------------------------


@pytest.mark.slow(18)
def test_sagas_end_with_the_same_status_effects_and_keys_as_under_0_1_0(
    released: Version, this_version: Version, server_url: sa.URL, engine_0_1_0: sa.Engine
) -> None:
    prepared = released.run(engine_0_1_0, str(JOURNEYS), "prepare")
    cases: dict[str, str] = json.loads(prepared)["cases"]
    age_scans(engine_0_1_0)
    engine_0_1_0.dispose()
    with database(server_url, f"TEMPLATE {engine_0_1_0.url.database}") as copy:
        unmigrated = released.popen(copy, str(JOURNEYS), "finish")
        migrate_now(engine_0_1_0)
        assert legal_states(engine_0_1_0) == {"ready", "queued", "running", "paused", "dead", "finished"}
        found = json.loads(this_version.run(engine_0_1_0, str(JOURNEYS), "finish", stdin=prepared))
        told, errors = unmigrated.communicate(prepared, timeout=120)
        assert unmigrated.returncode == 0, errors
    expected = json.loads(told)

    for stage in ("first", "resumed", "last"):
        ends = {case: found[stage][saga_id] for case, saga_id in cases.items()}
        assert ends == {case: expected[stage][saga_id] for case, saga_id in cases.items()}, stage
    assert {status for status, *_ in found["last"].values()} == {"COMPLETED", "COMPENSATED"}
    assert found["same saga"]


def legal_states(engine: sa.Engine) -> set[SagaState]:
    """The states of all sagas, each of which is a legal one."""
    storage = PostgresSagaStorage(engine)
    found = storage.find(SagaFilter(limit=10_000))
    for saga in found:
        check_legal(saga)
    return {saga.state for saga in found}


# -- the wrong order ------------------------------------------------------------------------------------------


def test_a_worker_of_0_1_0_is_named_while_it_holds_a_saga_and_holds_nothing_if_it_wakes_up_later(
    released: Version, engine_0_1_0: sa.Engine
) -> None:
    holder = released.popen(engine_0_1_0, str(JOURNEYS), "hold")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "waiting\n"
    before = rows(engine_0_1_0, _OBJECTS)
    ((owner,),) = rows(engine_0_1_0, "SELECT lease_owner FROM saga_executions")

    with pytest.raises(MigrationRefused, match=rf"{owner} holds 1 sagas .*stop all workers.*nothing was changed\.$"):
        migrate_now(engine_0_1_0)
    assert rows(engine_0_1_0, _OBJECTS) == before

    holder.send_signal(signal.SIGSTOP)
    with engine_0_1_0.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET available_at = clock_timestamp()")
    migrate_now(engine_0_1_0)
    migrated = rows(engine_0_1_0, "SELECT * FROM saga_executions")
    holder.send_signal(signal.SIGCONT)
    _, errors = holder.communicate("\n", timeout=60)

    assert holder.returncode != 0, errors
    assert rows(engine_0_1_0, "SELECT * FROM saga_executions") == migrated
    assert [what for (what,) in rows(engine_0_1_0, "SELECT what FROM effects ORDER BY id")] == [
        "book act",
        "charge act",
    ]


def test_a_recent_scan_of_0_1_0_is_named(released: Version, engine_0_1_0: sa.Engine) -> None:
    with engine_0_1_0.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO saga_scans (worker, at) VALUES ('web-1', now() + interval '30 seconds')"
        )
    before = state_of(engine_0_1_0)

    with pytest.raises(MigrationRefused, match=r"a worker on web-1 scanned -?[0-9]+ s ago.*wait 30 seconds"):
        migrate_now(engine_0_1_0)

    assert state_of(engine_0_1_0) == before
    age_scans(engine_0_1_0)
    migrate_now(engine_0_1_0)


def test_a_program_of_0_1_0_that_runs_on_neither_stores_nor_acquires_nor_runs(
    released: Version, engine_0_1_0: sa.Engine
) -> None:
    program = released.popen(engine_0_1_0, str(JOURNEYS), "live")
    assert program.stdout is not None
    program.stdout.readline()
    migrate_now(engine_0_1_0)
    before = [rows(engine_0_1_0, query) for query in _ROWS]

    told = program.communicate("\n", timeout=60)[0].splitlines()

    refused = dict(line.split(": ", 1) for line in told)
    for start in ("start", "start many", "start within", "run"):
        assert refused[start].startswith("SchemaBehind: ")
        assert _NEWER in refused[start]
    for other in ("recover", "recover by message", "scan"):
        assert refused[other].startswith("SchemaBehind: ")
        assert re.search(r"\(column .*interrupted.* does not exist\): run `sagas migrate`\.$", refused[other])
    assert [rows(engine_0_1_0, query) for query in _ROWS] == before
    assert rows(engine_0_1_0, "SELECT * FROM effects") == []


def test_commands_and_workers_of_0_1_0_refuse_a_newer_database_with_a_sentence(
    released: Version, engine_0_1_0: sa.Engine, tmp_path: Any
) -> None:
    migrate_now(engine_0_1_0)
    before = [rows(engine_0_1_0, query) for query in _ROWS]
    lines = tmp_path / "lines.json"
    lines.write_text('{"fails": ""}\n')
    commands = {
        "migrate": ("sagas.cli", "migrate"),
        "start": ("sagas.cli", "start", "journey", "--from", str(lines)),
        "worker": ("celery", "-A", "tasks", "worker", "-P", "solo"),
    }
    (tmp_path / "journeys_of_0_1_0.py").write_text(JOURNEYS.read_text())
    modules = {"SAGAS_MODULES": "journeys_of_0_1_0"}
    processes = {
        name: released.popen(engine_0_1_0, "-c", _MAIN, str(tmp_path), *command, **modules)
        for name, command in commands.items()
    }

    for name, process in processes.items():
        _, told = process.communicate(timeout=120)
        assert process.returncode == 1, (name, told)
        assert told.splitlines()[-1].startswith("error: "), told
        assert _NEWER in told.splitlines()[-1]
    assert [rows(engine_0_1_0, query) for query in _ROWS] == before


_MAIN: Final = """
import runpy
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


# -- what stands in the way -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named", "drop"),
    [
        (
            "CREATE VIEW by_order AS SELECT id, context->>'order' AS order_id FROM saga_executions",
            "view public.by_order uses context",
            "DROP VIEW by_order",
        ),
        (
            "CREATE MATERIALIZED VIEW doubtful AS SELECT id FROM saga_executions WHERE interrupted",
            "materialized view public.doubtful uses interrupted",
            "DROP MATERIALIZED VIEW doubtful",
        ),
        (
            "CREATE INDEX contexts ON saga_executions USING gin (context)",
            "index public.contexts uses context",
            "DROP INDEX contexts",
        ),
    ],
)
def test_what_depends_on_a_column_that_goes_is_named_with_a_cure(
    engine_0_1_0: sa.Engine, make: str, named: str, drop: str
) -> None:
    with engine_0_1_0.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW all_names AS SELECT name, status, lease_owner FROM saga_executions")
        connection.exec_driver_sql(make)
    before = state_of(engine_0_1_0)

    with pytest.raises(
        MigrationRefused, match=rf"{named}\. Drop it, and run .*nothing was changed\. Then make it anew"
    ):
        migrate_now(engine_0_1_0)

    assert state_of(engine_0_1_0) == before
    with engine_0_1_0.begin() as connection:
        connection.exec_driver_sql(drop)
    migrate_now(engine_0_1_0)
    assert rows(engine_0_1_0, "SELECT * FROM all_names") == []


def test_a_transaction_that_uses_the_sagas_is_not_waited_for_long(
    engine_0_1_0: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "_LOCK_SECONDS", 0.05)
    before = state_of(engine_0_1_0)
    with engine_0_1_0.connect() as user:
        user.exec_driver_sql("SELECT FROM saga_executions")
        with pytest.raises(MigrationRefused, match=r"was in use .* end it, and run .*nothing was changed\.$"):
            migrate_now(engine_0_1_0)

    assert state_of(engine_0_1_0) == before


# -- cut off --------------------------------------------------------------------------------------------------

#: Waits for a line after each report.
_MIGRATE: Final = """
import os
import sys
import sqlalchemy as sa
from sagas.storage.schema import migrate

def report(work, done, total):
    print(work, done, total, flush=True)
    sys.stdin.readline()

with sa.create_engine(os.environ["SAGAS_DATABASE_URL"]).connect() as connection:
    migrate(connection, report=report)
print("done", flush=True)
"""
_SAGAS: Final = 3000
#: Sagas in every state, some of them interrupted.
_FILL: Final = f"""
    INSERT INTO saga_executions
        (id, name, status, context, version, lease_owner, available_at, interrupted, finished_at)
    SELECT md5(n::text)::uuid, 'order', CASE n % 6 WHEN 0 THEN 'COMPLETED' WHEN 1 THEN 'PENDING' WHEN 2 THEN 'FAILED'
            WHEN 3 THEN 'COMPENSATING' ELSE 'RUNNING' END,
        jsonb_build_object('zebra', n, 'apple', repeat('x', 500)), 2,
        CASE n % 6 WHEN 3 THEN 'queue' WHEN 4 THEN 'paused' WHEN 5 THEN 'worker' END,
        CASE WHEN n % 6 IN (0, 2, 4) THEN 'infinity' ELSE now() - interval '1 hour' END::timestamptz,
        n % 5 = 0, CASE n % 6 WHEN 0 THEN now() END
    FROM generate_series(1, {_SAGAS}) n"""


@pytest.fixture(scope="module")
def full(server_url: sa.URL, template_0_1_0: str) -> Iterator[str]:
    """The name of a database of 0.1.0 with some thousand sagas, to be cloned."""
    with database(server_url, f"TEMPLATE {template_0_1_0}") as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql(_FILL.replace("%", "%%"))
        engine.dispose()
        yield str(engine.url.database)


@pytest.fixture(scope="module")
def undisturbed(full: str, server_url: sa.URL) -> list[Any]:
    """What a migration that nothing disturbs makes of it."""
    with database(server_url, f"TEMPLATE {full}") as engine:
        migrate_now(engine)
        assert legal_states(engine) == {"ready", "queued", "running", "paused", "dead", "finished"}
        return [rows(engine, _OBJECTS), *(rows(engine, query) for query in _ROWS)]


@pytest.mark.slow(9)
def test_a_migration_that_is_killed_changes_nothing_and_is_done_by_the_next(
    this_version: Version, server_url: sa.URL, full: str, undisturbed: list[Any]
) -> None:
    moments = (1, 2, 25, 57, 99, 100, 101)
    with database(server_url, f"TEMPLATE {full}") as engine:
        before = state_of(engine)
        process = this_version.popen(engine, "-c", _KILLED, *map(str, moments), "never")
        assert process.stdin is not None
        assert process.stdout is not None
        last = []
        for _ in moments:
            last.append(process.stdout.readline())
            _wait_for_its_session_to_end(engine)
            assert state_of(engine) == before, last[-1]
            process.stdin.write("\n")
            process.stdin.flush()
        assert last[3] == f"killed at rewriting saga_executions {_SAGAS * 57 // 100} {_SAGAS}\n"
        assert last[-1] == "killed at building indexes 0 0\n"

        assert process.communicate(timeout=60)[0] == "done\n"

        assert [rows(engine, _OBJECTS), *(rows(engine, query) for query in _ROWS)] == undisturbed


#: Migrates in one child after another; each is killed at a report, by its number, and the last is not.
_KILLED: Final = """
import os
import signal
import sys
import sqlalchemy as sa
from sagas.storage.schema import migrate

for moment in sys.argv[1:]:
    if not os.fork():
        reports = []
        def report(work, done, total):
            reports.append(work)
            if str(len(reports)) == moment:
                print("killed at", work, done, total, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        with sa.create_engine(os.environ["SAGAS_DATABASE_URL"]).connect() as connection:
            migrate(connection, report=report)
        print("done", flush=True)
        os._exit(0)
    os.wait()
    if moment != "never":
        sys.stdin.readline()
"""


def test_programs_are_told_that_a_migration_is_at_work_and_one_that_the_server_ends_changes_nothing(
    this_version: Version, server_url: sa.URL, full: str
) -> None:
    with database(server_url, f"TEMPLATE {full}") as engine:
        before = state_of(engine)
        process = this_version.popen(engine, "-c", _MIGRATE)
        for _ in range(10):
            _report(process)

        with pytest.raises(
            SchemaBehind, match=r"is at version 0004.*`sagas migrate` is at work: start this program again"
        ):
            PostgresSagaStorage(engine).check_schema()
        rows(engine, _END_MIGRATION)
        process.communicate("\n" * 200, timeout=60)

        assert process.returncode != 0
        assert state_of(engine) == before


_END_MIGRATION: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def _report(process: subprocess.Popen[str]) -> str:
    """The next report; the one before it is answered first."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def _wait_for_its_session_to_end(engine: sa.Engine) -> None:
    # As the next migration does, which takes turns with it.
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('sagas migrate'))")


# -- which code may use which tables --------------------------------------------------------------------------


def test_this_version_refuses_tables_of_0_1_0_with_the_command(engine_0_1_0: sa.Engine) -> None:
    with pytest.raises(SchemaBehind, match=rf"is at version 0004, and this code needs {HEAD}: run `sagas migrate`\.$"):
        PostgresSagaStorage(engine_0_1_0).check_schema()


@pytest.mark.parametrize(("oldest", "accepted"), [("0006", True), (HEAD, True), ("0098", False)])
def test_newer_tables_say_which_code_can_use_them(server_url: sa.URL, oldest: str, accepted: bool) -> None:
    with database(server_url) as engine:
        migrate_now(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE saga_schema SET version_num = '0099', oldest = %s", (oldest,))
        storage = PostgresSagaStorage(engine)
        if accepted:
            storage.check_schema()
            assert storage.find(SagaFilter()) == []
            return
        sentence = rf"is at version 0099, which code older than 0098 cannot use, and this code ends at {HEAD}: install"
        with pytest.raises(SchemaAhead, match=sentence):
            storage.check_schema()
        with pytest.raises(SchemaAhead, match=sentence):
            storage.find(SagaFilter())


def test_a_developers_database_with_json_contexts_migrates_too(engine_0_1_0: sa.Engine) -> None:
    context = '{"zebra": 1e16, "apple":  [1.0]}'
    with engine_0_1_0.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE saga_executions ALTER COLUMN context TYPE json USING context::json")
        connection.exec_driver_sql("UPDATE sagas_alembic_version SET version_num = '0005'")
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context) VALUES (gen_random_uuid(), 'order', %s)", (context,)
        )

    migrate_now(engine_0_1_0)

    assert PostgresSagaStorage(engine_0_1_0).find(SagaFilter())[0].context == context
    with engine_0_1_0.connect() as connection:
        assert current_version(connection) == HEAD
