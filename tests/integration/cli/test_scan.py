"""`sagas scan`: a real scan, and a dry run that explains each saga."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.inspection.models import ScanVerdict
from sagas.storage.records import SagaState
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder
from tests.samples import FakeDispatcher

DEADLINE_SECONDS = 60


def test_a_dry_run_tells_of_each_saga_what_a_scan_would_do_or_why_not(
    sagas: Command, new: Callable[..., UUID], engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    dead = engine.run(PlaceOrder, Order("stuck")).saga_id
    late, due, held = new("w/1.5", -60), new(), new("w/2.5")
    storage.pause("parcel", actor="ann@ops", reason="a strike")
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
    assert json.loads(out) == {
        **{"dispatched": [str(late), str(pending)], "died": [], "missing": 0, "unsent": 0},
        **{"scheduled": [], "schedules_failed": [], "tasks": 0},
    }
    assert {storage.load(saga_id).state for saga_id in (pending, late)} == {SagaState.QUEUED}


def test_a_real_scan_needs_the_broker_and_says_so(
    spawn: Callable[..., subprocess.Popen[bytes]], new: Callable[..., UUID], storage: PostgresSagaStorage
) -> None:
    due = new()

    process = spawn("scan")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert err.startswith(b"WARNING: the broker at redis://127.0.0.1:1/0 did not take message 1 of 1: ")
    assert (b"not sent as the broker failed 1." in out, process.returncode) == (True, 1)
    assert storage.load(due).lease_owner is None


def test_the_password_of_a_second_broker_is_not_shown_where_the_broker_is(
    spawn: Callable[..., subprocess.Popen[bytes]], new: Callable[..., UUID]
) -> None:
    new()
    broker = "redis://127.0.0.1:1/0;redis://:s3cr3t@127.0.0.1:1/0"

    process = spawn("scan", SAGAS_BROKER_URL=broker)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert err.startswith(b"WARNING: the broker at redis://127.0.0.1:1/0;redis://***@127.0.0.1:1/0 did not take ")
    assert (b"s3cr3t" in out + err, process.returncode) == (False, 1)


def test_a_schedule_that_fails_is_named_and_fails_the_command(
    sagas: Command, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas.engine.installed_dispatcher", FakeDispatcher)
    for name in ("nightly", "place-order"):
        sql("INSERT INTO saga_schedules VALUES (:name, now() - interval '7 days')", name=name)

    scanned = sagas("scan", SAGAS_MODULES="tests.integration.cli.scheduled_shop")

    first, started, failed = scanned.stdout.splitlines()
    assert first == "dispatched 1, died 0, messages missing 0, started by schedules 1."
    assert started.endswith("dispatched")
    assert failed == "    schedule nightly  failed; the log above says why"
    assert scanned.exit_code == 1
