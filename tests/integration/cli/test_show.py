"""`sagas show`: how a saga stands, its context, and the timeline of its steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus
from sagas.cli.prompts import operator
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import Progressed
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


def header(output: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in output.partition("\n\n")[0].splitlines()}


def timeline(output: str) -> list[str]:
    return output.partition("\ntimeline\n")[2].splitlines()


def test_a_dead_saga_is_shown_with_its_last_error_and_the_command_that_revives_it(
    sagas: Command, ordered: Ordered
) -> None:
    saga_id = ordered("stuck")

    shown = header(sagas("show", str(saga_id), SAGAS_MAX_RECOVERY_ATTEMPTS="1").stdout)

    assert (shown["id"], shown["name"], shown["status"]) == (str(saga_id), "place-order", "FAILED")
    assert shown["attempts"] == "1 failed of 1"
    assert shown["next"] == f"dead: see to the cause, then `sagas recover {saga_id}` runs it once more"
    assert shown["last error"] == (
        "reserve, compensate, attempt 1: RuntimeError: the shelf [bold]jammed[/bold] and smokes"
    )
    assert (shown["key"], shown["finished"]) == ("-", "-")


def test_times_are_in_utc_with_their_age_and_the_key_is_shown(
    sagas: Command, engine: SagaEngine, sql: Callable[..., Any]
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"), idempotency_key="order-17")
    sql("UPDATE saga_executions SET created_at = '2001-02-03 05:05:06+01', updated_at = now() - interval '150 s'")

    shown = header(sagas("show", str(saga_id)).stdout)

    assert shown["created"].startswith("2001-02-03 04:05:06 (")
    assert shown["created"].endswith(" d ago)")
    assert shown["updated"].endswith(" (2 min ago)")
    assert shown["key"] == "order-17"


def test_the_timeline_has_a_row_for_each_step_with_verdict_worker_error_and_the_seconds_since_the_row_before(
    sagas: Command, ordered: Ordered, sql: Callable[..., Any]
) -> None:
    saga_id = ordered("stuck")
    sql("UPDATE saga_executions SET created_at = '2026-11-22 19:38:05Z'")
    for seconds, row in ((1, 1), (1.25, 2), (90, 3)):
        sql(
            "UPDATE saga_logs SET created_at = timestamptz '2026-11-22 19:38:05Z' + make_interval(secs => :seconds), "
            "worker = 'w', details = details || '{\"in_doubt\": true}' "
            "WHERE id = (SELECT min(id) - 1 + :row FROM saga_logs)",
            seconds=seconds,
            row=row,
        )

    head, *rows = timeline(sagas("show", str(saga_id)).stdout)

    assert head.split("  ")[0] == "TIME (UTC)"
    dead = rows.pop()
    assert [row.split(maxsplit=5) for row in rows] == [
        ["2026-11-22", "19:38:06", "+1.000", "reserve", "w", "act completed"],
        ["2026-11-22", "19:38:06", "+0.250", "pay", "w",
         "act failed, attempt 1, in doubt; the saga aborts: ValueError: card \\x1b[31mdeclined"],
        ["2026-11-22", "19:39:35", "+88.750", "reserve", "w",
         "compensate failed, attempt 1, in doubt; attempt 1 at the saga failed: "
         "RuntimeError: the shelf [bold]jammed[/bold] and smokes"],
    ]  # fmt: skip
    assert dead.endswith("dead, failed attempts: 1; it waits for an operator")


def test_rows_that_an_older_layout_wrote_when_a_step_began_say_so(
    sagas: Command, ordered: Ordered, sql: Callable[..., Any]
) -> None:
    saga_id = ordered("tea")
    sql("UPDATE saga_logs SET status = 'started' WHERE step_name = 'reserve'")

    _, reserve, pay = timeline(sagas("show", str(saga_id)).stdout)

    assert reserve.endswith("  act started (older layout)")
    assert pay.endswith("  act completed")


def test_a_saga_of_which_no_step_has_ended_says_so(sagas: Command, engine: SagaEngine) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    assert "timeline: no step has ended yet" in sagas("show", str(saga_id)).stdout


def test_a_long_context_is_cut_for_a_reader_and_whole_in_json(sagas: Command, ordered: Ordered) -> None:
    saga_id = ordered("ä" * 5000)

    shown = sagas("show", str(saga_id)).stdout
    data = json.loads(sagas("show", str(saga_id), "--json").stdout)

    assert 1900 < shown.count("ä") < 2000
    assert "… the first 2000 of 5" in shown
    assert data["context"] == {"item": "ä" * 5000, "price": "1", "paid": True}


def test_a_context_is_shown_indented_and_without_control_characters(sagas: Command, ordered: Ordered) -> None:
    saga_id = ordered("tea\x9b31m")

    assert '\n  "item": "tea\\x9b31m",\n' in sagas("show", str(saga_id)).stdout


def test_json_shows_the_whole_log(sagas: Command, ordered: Ordered) -> None:
    saga_id = ordered("unpaid")

    data = json.loads(sagas("show", str(saga_id), "--json").stdout)

    assert (data["id"], data["status"]) == (str(saga_id), "COMPENSATED")
    log = [(row["step_name"], row["action"], row["status"], row["verdict"]) for row in data["log"]]
    assert log == [
        ("reserve", "act", "completed", None),
        ("pay", "act", "failed", "abort"),
        ("reserve", "compensate", "completed", None),
    ]
    failed = data["log"][1]
    assert (failed["error_type"], failed["message"]) == ("ValueError", "card \x1b[31mdeclined")
    assert "Traceback" in failed["traceback"]
    assert failed.keys() >= {"id", "attempt", "in_doubt", "worker", "version", "created_at"}


def test_what_operators_did_is_in_the_timeline_with_who_and_why(
    sagas: Command, ordered: Ordered, sql: Callable[..., Any]
) -> None:
    saga_id = ordered("tea")
    for step, action, status in (("retry", "operator", "completed"), ("pay", "act", "skipped")):
        sql(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, details, worker) VALUES (:id, :step, :action, "
            ":status, jsonb_build_object('by', 'ann@ops', 'because', 'paid by hand'), 'ann@ops/1.2')",
            id=saga_id,
            step=step,
            action=action,
            status=status,
        )

    *_, retry, skip = timeline(sagas("show", str(saga_id)).stdout)
    log = json.loads(sagas("show", str(saga_id), "--json").stdout)["log"]

    assert retry.split(maxsplit=5)[3:] == ["-", "ann@ops/1.2", "operator: retry, by ann@ops: paid by hand"]
    assert skip.split(maxsplit=5)[3:] == ["pay", "ann@ops/1.2", "operator: act skipped, by ann@ops: paid by hand"]
    assert [(row["by"], row["because"]) for row in log[-2:]] == [("ann@ops", "paid by hand")] * 2
    assert (log[0]["by"], log[0]["because"]) == (None, None)


def test_json_tells_what_happens_next_and_the_seconds_between_rows(
    sagas: Command, ordered: Ordered, sql: Callable[..., Any]
) -> None:
    saga_id = ordered("stuck")
    sql("UPDATE saga_executions SET created_at = '2026-11-22 19:38:05Z'")
    sql("UPDATE saga_logs SET created_at = '2026-11-22 19:38:06.5Z'")

    data = json.loads(sagas("show", str(saga_id), "--json").stdout)

    assert data["state"] == "dead"
    assert data["next"] == f"dead: see to the cause, then `sagas recover {saga_id}` runs it once more"
    assert data["next_step"] == {
        "words": "compensate reserve, attempt 2",
        "step_name": "reserve",
        "action": "compensate",
        "attempt": 2,
    }
    assert [row["seconds"] for row in data["log"]] == [1.5, 0, 0]
    assert json.loads(sagas("show", str(ordered("tea")), "--json").stdout)["next_step"] is None


def test_a_paused_name_is_told_with_who_paused_it_and_why(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))
    storage.pause("place-order", actor="ann@ops", reason="a strike")

    shown = header(sagas("show", str(saga_id)).stdout)

    assert shown["next"].startswith("its name is paused: `sagas resume place-order` lets it go on, ")
    assert "; paused by ann@ops since " in shown["next"]
    assert shown["next"].endswith(": a strike")
    assert shown["next step"] == "act reserve, attempt 1"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit(3)", "names a module that ends the process when it is imported (exit code 3)"),
        ("raise ValueError('tea')", "cannot be imported (ValueError: tea)"),
    ],
)
def test_code_that_cannot_be_loaded_hides_the_next_step_and_nothing_else(
    sagas: Command, ordered: Ordered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    (tmp_path / "broken_shop.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    result = sagas("show", str(ordered("stuck")), SAGAS_MODULES="broken_shop")

    assert told in header(result.stdout)["next step"]
    assert len(timeline(result.stdout)) == 5
    assert (result.exit_code, result.stderr) == (0, "")


def test_what_a_module_prints_when_it_is_imported_is_not_among_the_results(
    sagas: Command, ordered: Ordered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chatty_shop.py").write_text("from tests.integration.cli.shop import PlaceOrder\nprint('welcome')\n")
    monkeypatch.syspath_prepend(tmp_path)

    result = sagas("show", str(ordered("stuck")), "--json", SAGAS_MODULES="chatty_shop")

    assert json.loads(result.stdout)["next_step"]["step_name"] == "reserve"
    assert result.stderr == "welcome\n"


@pytest.mark.parametrize("command", [("show",), ("recover", "--yes")], ids=lambda command: command[0])
def test_an_unknown_id_and_a_malformed_one_are_one_sentence_each(
    sagas: Command, storage: PostgresSagaStorage, command: tuple[str, ...]
) -> None:
    unknown = sagas(*command, "01890a5d-ac96-774b-bcce-b302099a8057")
    malformed = sagas(*command, "tea")

    assert unknown.stderr == (
        "error: no saga has the id 01890a5d-ac96-774b-bcce-b302099a8057: "
        "check it, or see whether the saga was pruned.\n"
    )
    assert malformed.stderr == (
        "error: no saga has the id or the idempotency key 'tea': copy an id from `sagas list`, as it is there or from "
        "its beginning, at least 8 characters.\n"
    )
    assert (unknown.exit_code, malformed.exit_code) == (1, 1)


def test_a_worker_that_was_killed_is_in_the_timeline_before_and_after_another_goes_on(
    sagas: Command, storage: PostgresSagaStorage, engine: SagaEngine
) -> None:
    new = NewSaga(
        id=new_saga_id(),
        name="place-order",
        context='{"item": "unpaid"}',
        definition=PlaceOrder.graph.hash,
    )
    request = LeaseRequest(owner="w@shop/1.2", seconds=0)
    storage.create_sagas([new], lease=request)
    reserved = Progressed(events=(completed("reserve", Action.ACT),), status=SagaStatus.RUNNING, in_flight=("pay",))
    storage.apply(Lease(new.id, 1, request.owner, request.token), reserved)

    def told() -> list[str]:
        return [row[30:] for row in timeline(sagas("show", str(new.id)).stdout)[1:]]

    lost = "its lease ran out: the holder was killed, froze or was cut off; in flight: pay"
    assert told() == ["reserve  w@shop/1.2  act completed", f"-        w@shop/1.2  {lost}"]

    storage.claim_sagas(pending=False, limit=1, max_recovery_attempts=5)
    assert told()[1] == ("-        w@shop/1.2  holder lost: it was killed, froze or was cut off; in flight: pay")

    engine.recover(new.id)
    _, _, pay, undone = (row.split(maxsplit=2) for row in told())
    assert (pay[0], pay[2].partition(":")[0]) == ("pay", "act failed, attempt 1; the saga aborts")
    assert (undone[0], undone[2]) == ("reserve", "compensate completed")


def test_that_another_worker_went_on_is_told_where_nothing_tells_why(
    sagas: Command, storage: PostgresSagaStorage, ordered: Ordered, sql: Callable[..., Any]
) -> None:
    saga_id = ordered("tea")
    sql("UPDATE saga_logs SET version = 3, worker = 'w/2' WHERE step_name = 'pay'")

    _, _, between, pay = timeline(sagas("show", str(saga_id)).stdout)

    assert between.endswith("  given back: another worker goes on")
    assert "  worker-1/" in between
    assert pay.split()[-3:] == ["w/2", "act", "completed"]


def test_an_operators_abort_is_no_attempt_of_a_step(sagas: Command, engine: SagaEngine, ordered: Ordered) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    sagas("compensate", str(saga_id), "--reason", "no longer\nwanted", "--yes")
    (abort,) = timeline(sagas("show", str(saga_id)).stdout)[1:]

    assert abort[30:].startswith("-  ")
    assert abort.endswith(f"operator: compensate, by {operator()}: no longer wanted")


def test_several_sagas_are_shown_and_are_a_list_in_json(sagas: Command, ordered: Ordered) -> None:
    tea, milk = ordered("tea"), ordered("milk")

    shown, data = sagas("show", str(tea), str(milk)), json.loads(sagas("show", str(tea), str(milk), "--json").stdout)

    assert [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("id ")] == [str(tea), str(milk)]
    assert [saga["id"] for saga in data] == [str(tea), str(milk)]
