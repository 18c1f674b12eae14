"""`sagas stats`: what is counted, for readers and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sagas import PostgresSagaStorage, SagaEngine
from tests.integration.cli.conftest import Command, labels, wait_for_courier
from tests.integration.cli.shop import Order, PlaceOrder

DEADLINE_SECONDS = 60


def test_sagas_are_counted_by_name_and_status_with_what_the_last_hour_brought(
    sagas: Command, new: Callable[..., UUID], engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    for item in ("tea", "tea", "unpaid", "stuck"):
        engine.run(PlaceOrder, Order(item))
    new(), new("w/1"), new(queued=True), new(name="parcel")
    storage.pause("parcel", actor="ann@ops", reason="a strike")
    wait_for_courier(engine)

    result = sagas("stats")
    data = json.loads(sagas("stats", "--json").stdout)

    assert [" ".join(line.split()) for line in result.stdout.splitlines()[:11]] == [
        "now",
        "NAME PENDING RUNNING COMPENSATING FAILED DEAD QUEUED WAITING PAUSED",
        "parcel 1 0 0 0 0 0 0 1",
        "place-order 2 2 0 1 1 1 1 0",
        "all 3 2 0 1 1 1 1 1",
        "",
        "within the last hour",
        "NAME COMPLETED COMPENSATED RECOVERED FAILED DIED",
        "parcel 0 0 0 0 0",
        "place-order 2 1 0 0 1",
        "all 2 1 0 0 1",
    ]
    assert data["sagas"][1] == {
        "name": "place-order",
        "unfinished": {"PENDING": 2, "RUNNING": 2, "COMPENSATING": 0, "FAILED": 1},
        "dead": 1,
        "queued": 1,
        "waiting": 1,
        "paused": 0,
        "last_hour": {"completed": 2, "compensated": 1, "recovered": 0, "failed": 0, "died": 1},
    }
    assert data["total"]["paused"] == 1
    assert labels(result.stdout)["paused"].startswith("parcel, by ann@ops since ")
    assert [(p["name"], p["by"], p["because"]) for p in data["paused"]] == [("parcel", "ann@ops", "a strike")]


def test_the_longest_due_the_queue_and_the_last_scan_are_told_with_their_ages(
    sagas: Command, new: Callable[..., UUID], storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    quiet = labels(sagas("stats").stdout)
    assert (quiet["oldest due"], quiet["queue"], quiet["last scan"]) == ("-", "empty", "never")

    storage.claim_sagas(pending=True, limit=1, max_recovery_attempts=5)
    new(queued=True)
    sql(
        "UPDATE saga_executions SET updated_at = now() - interval '5 minutes 5 seconds', "
        "available_at = now() - interval '5 minutes'"
    )
    sql("UPDATE saga_scans SET at = now() - interval '3 minutes 5 seconds'")
    due = new("w/1", -430)
    told, data = labels(sagas("stats").stdout), json.loads(sagas("stats", "--json").stdout)

    assert told["oldest due"].startswith(f"{due}, place-order, since ")
    assert told["oldest due"].endswith(" (7 min ago)")
    assert told["queue"].startswith("1, the first since ")
    assert told["queue"].endswith(" (5 min ago)")
    assert "(3 min ago) on " in told["last scan"]
    assert data["oldest_recoverable"]["id"] == str(due)
    assert 430 <= data["oldest_recoverable"]["age_seconds"] < 430 + DEADLINE_SECONDS
    assert 305 <= data["queue"]["age_seconds"] < 305 + DEADLINE_SECONDS
    assert 185 <= data["last_scan"]["age_seconds"] < 185 + DEADLINE_SECONDS


def test_finished_sagas_are_counted_in_total_only_if_asked_for(
    sagas: Command, engine: SagaEngine, sql: Callable[..., Any]
) -> None:
    engine.run(PlaceOrder, Order("tea"))
    sql("UPDATE saga_executions SET finished_at = now() - interval '2 hours'")

    assert "in total" not in labels(sagas("stats").stdout)
    assert json.loads(sagas("stats", "--json").stdout)["finished_in_total"] is None
    assert sagas("stats").stdout.startswith("no unfinished saga, and none that ended within the last hour\n")
    assert labels(sagas("stats", "--all").stdout)["in total"] == "1 COMPLETED, 0 COMPENSATED"
    counted = json.loads(sagas("stats", "--all", "--json").stdout)["finished_in_total"]
    assert counted == {"COMPLETED": 1, "COMPENSATED": 0}
