"""`sagas stats`, `sagas workers` and `sagas scan`: what is told, for readers and for programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sagas.storage.XXX import QUEUE

from sagas import PostgresSagaStorage, SagaEngine
from sagas.ids import new_saga_id
from sagas.storage.operator_answers import ScanVerdict
from sagas.storage.records import NewSaga
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

DEADLINE_SECONDS = 60


@pytest.fixture
def database_url(emptied_url: str) -> Iterator[str]:
    """The module's database: these tests look at it as a whole."""
    yield emptied_url
    engine = sa.create_engine(emptied_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_pauses; DELETE FROM saga_scans")
    engine.dispose()


@pytest.fixture
def new(storage: PostgresSagaStorage) -> Callable[..., UUID]:
    """Stores a saga that this owner has, or had, for so many seconds."""

    def new(owner: str | None = None, for_seconds: float = 600.0, name: str = "place-order") -> UUID:
        saga = NewSaga(id=new_saga_id(), name=name, context='{"item": "tea"}')
        storage.create_sagas([saga], owner=owner, for_seconds=for_seconds if owner else 0.0)
        return saga.id

    return new


def labels(output: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in output.rpartition("\n\n")[2].splitlines()}


# -- stats ----------------------------------------------------------------------------------------------------


def test_sagas_are_counted_by_name_and_status_with_what_the_last_hour_brought(
    sagas: Command, new: Callable[..., UUID], engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    for item in ("tea", "tea", "unpaid", "stuck"):
        engine.run(PlaceOrder, Order(item))
    new(), new("w/1"), new(QUEUE), new(name="parcel")
    storage.pause("parcel", by="ann@ops", because="a strike")

    result = sagas("stats")
    data = json.loads(sagas("stats", "--json").stdout)

    assert [" ".join(line.split()) for line in result.stdout.splitlines()[:11]] == [
        "now",
        "NAME PENDING RUNNING COMPENSATING FAILED DEAD QUEUED PARKED",
        "parcel 1 0 0 0 0 0 1",
        "place-order 2 1 0 1 1 1 0",
        "all 3 1 0 1 1 1 1",
        "",
        "within the last hour",
        "NAME COMPLETED COMPENSATED RECOVERED FAILED DIED",
        "parcel 0 0 0 0 0",
        "place-order 2 1 0 0 1",
        "all 2 1 0 0 1",
    ]
    assert data["sagas"][1] == {
        "name": "place-order",
        "unfinished": {"PENDING": 2, "RUNNING": 1, "COMPENSATING": 0, "FAILED": 1},
        "dead": 1,
        "queued": 1,
        "parked": 0,
        "last_hour": {"completed": 2, "compensated": 1, "recovered": 0, "failed": 0, "died": 1},
    }
    assert data["total"]["parked"] == 1
    assert labels(result.stdout)["paused"].startswith("parcel, by ann@ops since ")
    assert [(p["name"], p["by"], p["because"]) for p in data["paused"]] == [("parcel", "ann@ops", "a strike")]


def test_the_longest_due_the_queue_and_the_last_scan_are_told_with_their_ages(
    sagas: Command, new: Callable[..., UUID], storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    quiet = labels(sagas("stats").stdout)
    assert (quiet["oldest due"], quiet["queue"], quiet["last scan"]) == ("-", "empty", "never")

    new(QUEUE)
    sql("UPDATE saga_executions SET updated_at = now() - interval '5 minutes 5 seconds'")
    storage.claim_sagas(pending=True, limit=1, max_recovery_attempts=5, mark_seconds=4, messages_waiting=9)
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


# -- workers --------------------------------------------------------------------------------------------------


def test_each_owner_is_told_with_what_it_holds_and_when_it_was_heard_of(
    sagas: Command, new: Callable[..., UUID], storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    first = new("w/1.5")
    new("w/1.5", name="parcel"), new("w/2.5", -5), new(QUEUE, -1), new(name="parked")
    sql("UPDATE saga_executions SET updated_at = now() - interval '5 minutes 5 seconds' WHERE id = :id", id=first)
    storage.pause("parked", by="ann@ops", because="a strike")

    result, data = sagas("workers"), json.loads(sagas("workers", "--json").stdout)

    one, two = (line.split() for line in result.stdout.splitlines()[1:3])
    assert (one[:3], one[-2:]) == (["w/1.5", "2", "0"], ["parcel,", "place-order"])
    assert one[-5:-2] == ["5", "min", "ago"]
    assert (two[:3], two[-1]) == (["w/2.5", "1", "1"], "place-order")
    told = labels(result.stdout)
    assert told["queue"].startswith("1 that never ran, the first since ")
    assert told["queue"].endswith("; 1 for longer than a scan leaves them unquestioned")
    assert told["paused"].startswith("parked, 1 parked, by ann@ops since ")
    assert [(w["owner"], w["sagas"], w["expired"]) for w in data["workers"]] == [("w/1.5", 2, 0), ("w/2.5", 1, 1)]
    ages = [datetime.fromisoformat(data["workers"][0][name]) for name in ("quietest_since", "heard_at")]
    assert ages[0] < ages[1] < datetime.fromisoformat(data["workers"][0]["first_lease_ends"])
    assert [(q["pending"], q["sagas"], q["overdue"]) for q in data["queue"]] == [(True, 1, 1)]
    assert [(p["name"], p["parked"]) for p in data["paused"]] == [("parked", 1)]


def test_nobody_holding_anything_is_said(sagas: Command) -> None:
    result = sagas("workers")

    assert result.stdout == "no worker holds a saga\n\nqueue       empty\n"
    assert json.loads(sagas("workers", "--json").stdout)["workers"] == []


# -- scan -----------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_of_each_saga_what_a_scan_would_do_or_why_not(
    sagas: Command, new: Callable[..., UUID], engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    dead = engine.run(PlaceOrder, Order("stuck")).saga_id
    late, due, held = new("w/1.5", -60), new(), new("w/2.5")
    storage.pause("parcel", by="ann@ops", because="a strike")
    before = [storage.load(saga_id) for saga_id in (dead, late, due, held)]

    result = sagas("scan", "--dry-run")
    data = json.loads(sagas("scan", "--dry-run", "--json").stdout)

    sections = {part.partition(":")[0]: part.splitlines()[1:] for part in result.stdout.split("\n\n")}
    assert set(sections) == {"dispatched", "held", "dead"}
    first, second = sections["dispatched"]
    assert first.startswith(f"  {late}  place-order  RUNNING  lease of w/1.5 ran out at ")
    assert second.startswith(f"  {due}  place-order  PENDING  due since ")
    assert sections["held"][0].startswith(f"  {held}  place-order  RUNNING  by w/2.5 until ")
    assert sections["dead"][0].endswith("reserve, compensate, attempt 1: RuntimeError: the shelf "
                                        "[bold]jammed[/bold] and smokes")  # fmt: skip
    assert list(data["verdicts"]) == [verdict.value.replace(" ", "_") for verdict in ScanVerdict]
    assert [saga["id"] for saga in data["verdicts"]["dispatched"]["first"]] == [str(late), str(due)]
    assert data["verdicts"]["beyond_the_limit"] == {"sagas": 0, "first": []}
    assert [storage.load(record.id) for record in before] == before


def test_a_dry_run_keeps_to_the_limit_of_scans_and_shows_as_many_as_asked_for(
    sagas: Command, new: Callable[..., UUID]
) -> None:
    for _ in range(5):
        new()

    result = sagas("scan", "--dry-run", "--limit", "1", SAGAS_SCAN_LIMIT="3")

    told = [line for line in result.stdout.splitlines() if not line.startswith("  0")]
    assert told == [
        "dispatched: 3  (sent to a worker, in this order)",
        "  and 2 more",
        "",
        "beyond the limit: 2  (due, and left to a later scan (SAGAS_SCAN_LIMIT))",
        "  and 1 more",
    ]


def test_a_limit_of_what_is_shown_is_for_dry_runs(sagas: Command) -> None:
    result = sagas("scan", "--limit", "5")

    assert "a scan is limited by SAGAS_SCAN_LIMIT" in " ".join(result.stderr.split())
    assert result.exit_code == 2


def test_a_dry_run_of_nothing_says_so(sagas: Command) -> None:
    assert sagas("scan", "--dry-run").stdout == "no saga is unfinished: a scan would find nothing to do\n"


def test_a_real_scan_sends_what_is_due_through_the_broker_and_tells_it(
    spawn: Callable[..., subprocess.Popen[bytes]],
    new: Callable[..., UUID],
    storage: PostgresSagaStorage,
    broker_url: str,
) -> None:
    pending, late = new(), new("w/1.5", -60)

    process = spawn("scan", "--json", SAGAS_BROKER_URL=broker_url)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert (err, process.returncode) == (b"", 0)
    assert json.loads(out) == {"dispatched": [str(late), str(pending)], "died": [], "missing": 0, "unsent": 0}
    assert {storage.load(saga_id).lease_owner for saga_id in (pending, late)} == {QUEUE}


def test_a_real_scan_needs_the_broker_and_says_so(
    spawn: Callable[..., subprocess.Popen[bytes]], new: Callable[..., UUID], storage: PostgresSagaStorage
) -> None:
    due = new()

    process = spawn("scan")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    (sentence,) = err.decode().splitlines()
    assert sentence.startswith("error: the broker at redis://")
    assert (out, process.returncode) == (b"", 1)
    assert storage.load(due).lease_owner is None
