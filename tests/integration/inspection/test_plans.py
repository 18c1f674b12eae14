"""By which plans the server answers: never from the table as a whole, and from no more of the history than is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from sagas.inspection.queries import query
from sagas.progress import SagaStatus
from sagas.storage.postgres.filtering import filter_row
from sagas.storage.postgres.queries import query as storage_query
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from tests.databases import database

DUE: Final = "now() - interval '1 minute'"
LATER: Final = "now() + interval '1 minute'"
NEVER: Final = "'infinity'"

UNSTARTED: Final = "saga_executions_unstarted"
STARTED: Final = "saga_executions_due"
QUEUED: Final = "saga_executions_queued"
STOPPED: Final = "saga_executions_stopped"
DEAD: Final = "saga_executions_dead"
FINISHED: Final = "saga_executions_finished"
IDS: Final = "saga_executions_pkey"
KEYS: Final = "saga_executions_idempotency"
TAGS: Final = "saga_executions_tags"
UNFINISHED: Final = {UNSTARTED, STARTED, QUEUED, STOPPED}


@pytest.fixture(scope="module")
def history(server_url: sa.URL, template: str) -> Iterator[psycopg.Connection[Any]]:
    """20,000 sagas that finished within the last two weeks, and 600 unfinished ones, started before them."""
    v7 = "CAST(rpad(lpad(to_hex(CAST(1000 * extract(epoch FROM {at}) AS bigint)), 12, '0'), 32, md5(n::text)) AS uuid)"
    # By the same clock as the filters: the suite may get here minutes after it was imported.
    started = f"CAST('{NOW.isoformat()}' AS timestamptz) - n * interval '1 minute'"
    with database(server_url, f"TEMPLATE {template}") as engine:
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            for status, state, owner, available_at, finished_at, first, last in (
                ("COMPLETED", "finished", "NULL", NEVER, started, 1, 20_000),
                ("RUNNING", "running", "'w/1'", LATER, "NULL", 20_001, 20_100),
                ("FAILED", "dead", "NULL", NEVER, "NULL", 20_101, 20_200),
                ("RUNNING", "waiting", "NULL", NEVER, "NULL", 20_501, 20_600),
                ("PENDING", "ready", "NULL", DUE, "NULL", 20_201, 20_300),
                ("RUNNING", "queued", "NULL", DUE, "NULL", 20_301, 20_400),
                ("RUNNING", "paused", "NULL", DUE, "NULL", 20_401, 20_500),
            ):
                connection.execute(f"""
                    INSERT INTO saga_executions (id, name, idempotency_key, status, state, context, version,
                        lease_owner, available_at, created_at, updated_at, finished_at, tags)
                    SELECT {v7.format(at=started)}, 'order' || n % 5, n, '{status}', '{state}', '{{}}', 1, {owner},
                        {available_at}, {started}, {started}, {finished_at},
                        jsonb_build_object('customer', 'c-' || n % 5000, 'shop', 'main')
                    FROM generate_series({first}, {last}) AS n""")
            connection.execute("VACUUM ANALYZE saga_executions")
            yield connection


def plan(connection: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of the plan that read sagas, or an index of them, with what they read."""
    statement = storage_query(name) if name == "find" else query(name)
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    ((explained,),) = connection.execute(explain, parameters, prepare=False).fetchall()
    read, left = [], [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        if "saga_executions" in (node.get("Relation Name") or node.get("Index Name", "")):
            read.append(node)
    return read


def page(leased_by: str | None = None, error: str | None = None, **wanted: Any) -> dict[str, Any]:
    return filter_row(SagaFilter(limit=51, **wanted), leased_by=leased_by, error=error)


NOW: Final = datetime.now(UTC)
LATEST: Final = UUID("f" * 32)
SCAN: Final = {"limit": 50, "max_attempts": 5, "shown": 10, "probe": 5.0, "overtaking": 5.0, "probes": 10}


@pytest.mark.parametrize(
    ("name", "parameters", "indexes", "most"),
    [
        ("find", page(), {IDS}, 51),
        ("find", page(after=LATEST), {IDS}, 51),
        ("find", page(created_after=NOW + timedelta(hours=2)), {IDS}, 0),
        ("find", page(created_before=NOW - timedelta(days=99)), {IDS}, 0),
        ("find", page(created_after=NOW - timedelta(minutes=30)), {IDS}, 100),
        ("find", page(created_after=NOW - timedelta(hours=3), created_before=NOW - timedelta(hours=2)), {IDS}, 181),
        ("find", page(updated_before=NOW - timedelta(days=99)), {IDS}, 0),
        ("find", page(updated_after=NOW - timedelta(minutes=30)), {FINISHED, *UNFINISHED}, 640),
        ("find", page(states=[SagaState.DEAD]), {DEAD}, 51),
        ("find", page(states=[SagaState.QUEUED]), {QUEUED}, 100),
        ("find", page(leased_by="w"), {STARTED}, 100),
        ("find", page(statuses=[SagaStatus.FAILED]), UNFINISHED, 600),
        ("find", page(error="bank"), UNFINISHED, 600),
        ("counts", {"most": 30}, UNFINISHED, 30),
        ("lately", {"seconds": 3600, "most": 20}, {FINISHED}, 20),
        ("floor", {"after": None, "last_id": None, "within": 100}, {IDS}, 101),
        ("floor", {"after": LATEST, "last_id": LATEST, "within": 100}, {IDS}, 101),
        ("find", page(name="order3", key="8"), {KEYS}, 1),
        ("find", page(key="8"), {KEYS, IDS}, 5),
        ("find", page(tags={"customer": "c-7"}), {TAGS}, 5),
        ("find", page(tags={"customer": "c-7"}, name="order2", after=LATEST), {TAGS}, 5),
        ("matching", {"key": None, "first": "0" * 32, "last": "0" * 32, "ends": "", "limit": 9}, {IDS, KEYS}, 5),
        ("matching", {"key": "17", "first": None, "last": None, "ends": "", "limit": 9}, {KEYS}, 5),
        ("same_millisecond", {"firsts": ["0" * 32], "lasts": ["0" * 32], "limit": 9}, {IDS}, 0),
        ("names", {}, {KEYS, *UNFINISHED}, 600),
        ("unfinished", {"late": 0, "lately": 3600, "probe": 5.0}, UNFINISHED, 600),
        ("ended", {"seconds": 3600}, {FINISHED}, 60),
        ("oldest_due", {}, {UNSTARTED, STARTED}, 1),
        ("holders", {}, {STARTED}, 100),
        ("queues", {"probe": 5.0}, {QUEUED}, 100),
        ("paused", {}, {STOPPED}, 100),
        ("dry_run", SCAN, UNFINISHED, 600),
        ("prunable", {"age": 1e6}, {FINISHED}, 4000),
    ],
)
def test_a_question_reads_the_index_that_is_there_for_it(
    history: psycopg.Connection[Any], name: str, parameters: dict[str, Any], indexes: set[str], most: int
) -> None:
    read = plan(history, name, parameters)

    assert {node["Index Name"] for node in read if "Index Name" in node} <= indexes, read
    assert not [node for node in read if node["Node Type"].endswith("Seq Scan")], read
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in read) <= most, read
