"""`sagas list`: which sagas, in which order, and how they look."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import termios
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.cells import cell_len

from sagas import PostgresSagaStorage, SagaEngine
from sagas.ids import new_saga_id
from sagas.storage.records import NewSaga
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


def shown_ids(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


def test_a_listing_shows_the_newest_first_with_how_each_stands(
    sagas: Command, ordered: Ordered, engine: SagaEngine, sql: Callable[..., Any]
) -> None:
    done, dead = ordered("tea"), ordered("stuck")
    pending = engine.start(PlaceOrder, Order("milk"))
    sql("UPDATE saga_executions SET created_at = now() - interval '3 hours', updated_at = '2026-11-22 20:38:05+01'")

    header, *rows = sagas("list").stdout.splitlines()

    assert header.split("  ")[0] == "ID"
    assert [row.split() for row in rows] == [
        [str(pending), "place-order", "PENDING", "0", "3", "h", "2026-11-22", "19:38:05", "due"],
        [str(dead), "place-order", "FAILED", "1", "3", "h", "2026-11-22", "19:38:05", "dead"],
        [str(done), "place-order", "COMPLETED", "0", "3", "h", "2026-11-22", "19:38:05"],
    ]


def test_a_name_that_no_saga_has_is_told_and_is_no_success(sagas: Command, ordered: Ordered) -> None:
    ordered("tea")

    unknown, none = sagas("list", "--name", "plase-order"), sagas("list", "--name", "place-order", "--dead")

    assert unknown.stderr == (
        "no sagas match.\nwarning: no saga is named 'plase-order' here, in the code or in the database. "
        "Names are: place-order.\n"
    )
    assert (unknown.exit_code, none.stderr, none.exit_code) == (1, "no sagas match.\n", 0)
    assert json.loads(sagas("list", "--name", "plase-order", "--json").stdout) == []


def test_statuses_names_and_death_narrow_the_listing(sagas: Command, ordered: Ordered, sql: Callable[..., Any]) -> None:
    done, undone, dead, other = map(ordered, ("tea", "unpaid", "stuck", "tea"))
    sql("UPDATE saga_executions SET name = 'other' WHERE id = :id", id=other)

    assert shown_ids(sagas("list", "--status", "COMPENSATED", "--status", "failed").stdout) == [str(dead), str(undone)]
    assert shown_ids(sagas("list", "--name", "other").stdout) == [str(other)]
    assert shown_ids(sagas("list", "--dead").stdout) == [str(dead)]
    assert shown_ids(sagas("list", "--status", "completed", "--name", "place-order").stdout) == [str(done)]


def test_a_limit_shows_so_many_of_the_newest_and_says_that_there_are_more(sagas: Command, ordered: Ordered) -> None:
    _, second, third = map(ordered, ("tea", "milk", "salt"))

    limited, whole = sagas("list", "--limit", "2"), sagas("list", "--limit", "3")

    assert shown_ids(limited.stdout) == [str(third), str(second)]
    assert limited.stderr == f"there are more; the next page: sagas list --limit 2 --after {second}\n"
    assert whole.stderr == ""


def test_the_command_for_the_next_page_repeats_what_was_asked_and_leads_through_all(
    sagas: Command, ordered: Ordered
) -> None:
    started = sorted((ordered("tea") for _ in range(3)), reverse=True)
    options = ["--status", "COMPLETED", "--name", "place-order", "--newer-than", "2h", "--limit", "1", "--json"]
    command, seen = ["list", *options], []

    while True:
        result = sagas(*command)
        seen += [saga["id"] for saga in json.loads(result.stdout)]
        if not result.stderr:
            break
        told = result.stderr.removeprefix("there are more; the next page: ")
        program, *command = shlex.split(told)
        assert program == "sagas"
        assert "--status COMPLETED --name place-order --newer-than 7200s --limit 1 --after" in told

    assert seen == [str(saga_id) for saga_id in started]


def test_ages_and_holders_narrow_the_listing(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    old, new = ordered("tea"), ordered("tea")
    sql("UPDATE saga_executions SET created_at = now() - interval '50 minutes' WHERE id = :id", id=old)
    held = NewSaga(id=new_saga_id(), name="place-order", context="{}")
    storage.create_sagas([held], owner="w@shop/1.2", for_seconds=600)

    assert shown_ids(sagas("list", "--older-than", "40m").stdout) == [str(old)]
    assert set(shown_ids(sagas("list", "--newer-than", "0.5h").stdout)) == {str(new), str(held.id)}
    assert shown_ids(sagas("list", "--leased-by", "w@shop").stdout) == [str(held.id)]
    assert sagas("list", "--leased-by", "w@shop/1").stdout == ""


@pytest.mark.parametrize("age", ["10", "ten minutes", "0s", "-1h", "3w", "1e9d", "99999999d", ""])
def test_what_is_no_age_is_a_usage_error_that_shows_what_one_looks_like(sagas: Command, age: str) -> None:
    result = sagas("list", f"--older-than={age}")

    assert "is not an age: give a number above 0 and its unit" in " ".join(result.stderr.split())
    assert result.exit_code == 2


def test_json_lists_every_field_but_contexts_and_logs(sagas: Command, ordered: Ordered) -> None:
    dead = ordered("stuck")

    (saga,) = json.loads(sagas("list", "--json").stdout)

    assert (saga["id"], saga["name"], saga["status"]) == (str(dead), "place-order", "FAILED")
    assert (saga["dead"], saga["recovery_attempts"], saga["available_at"]) == (True, 1, None)
    assert saga["last_error"].startswith("reserve, compensate, attempt 1: RuntimeError")
    assert datetime.fromisoformat(saga["created_at"]).tzinfo == UTC
    assert saga.keys() >= {"version", "lease_owner", "idempotency_key", "interrupted", "updated_at", "finished_at"}
    assert not saga.keys() & {"context", "log"}


def test_an_empty_listing_is_empty_for_programs_and_a_word_for_humans(sagas: Command) -> None:
    assert json.loads(sagas("list", "--json").stdout) == []
    result = sagas("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no sagas match.\n")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "command",
    [["list"], ["stats", "--all"], ["workers"], ["scan", "--dry-run"], ["graph", "place-order"], ["show", "key"]],
)
def test_nothing_is_wider_than_the_terminal_and_no_word_is_broken(
    sagas: Command, filled: list[UUID], command: list[str], width: int
) -> None:
    piped, shown = sagas(*command).stdout, plain(sagas(*command, COLUMNS=str(width), FORCE_COLOR="1").stdout)

    assert max(map(cell_len, shown.splitlines())) <= width
    words = {word for word in shown.replace(",", "").split() if "…" not in word}
    short = {word for word in words if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}(\.\.[0-9a-f]{4,})?", word)}
    # Ages may change between the two.
    assert {
        word for word in words - short - set(piped.replace(",", "").split()) if not word.strip("(").isdigit()
    } == set()
    if command[0] == "list":
        assert len(short) == len(filled)


def test_a_pipe_has_whole_ids_names_and_owners(sagas: Command, filled: list[UUID]) -> None:
    shown = sagas("list", COLUMNS="40").stdout

    assert {str(saga_id) for saga_id in filled} == set(shown_ids(shown))
    assert f"  {'n' * 255}  RUNNING" in shown
    assert "held by worker-2@a-host-with-a-name/4711.90210" in shown


def test_short_ids_are_never_cut_however_narrow_the_terminal_is(sagas: Command, filled: list[UUID]) -> None:
    shown = plain(sagas("list", COLUMNS="30", FORCE_COLOR="1").stdout)

    short = [line.split()[0] for line in shown.splitlines() if line[0] != " "][1:]
    assert len(set(short)) == len(filled)
    assert all(sagas("show", each).exit_code == 0 for each in short)


def test_a_real_terminal_is_noticed(spawn: Callable[..., subprocess.Popen[bytes]], filled: list[UUID]) -> None:
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (25, 80))
    process = spawn("list", stdout=its, TERM="xterm")
    os.close(its)
    out = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 10_000):
            out += part
    os.close(ours)
    process.communicate()

    lines = plain(out.decode()).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert str(filled[0])[:13] in lines[-1]


@pytest.fixture
def filled(storage: PostgresSagaStorage, engine: SagaEngine, ordered: Ordered) -> list[UUID]:
    """Sagas with long names and owners, some of one millisecond."""
    ids = [ordered("tea"), ordered("stuck"), engine.start(PlaceOrder, Order("milk"), idempotency_key="key")]
    ids += engine.start_many(PlaceOrder, [Order("salt")] * 3)
    for name, seconds in (("n" * 255, 600), ("short-name", -60)):
        ids.append(new_saga_id())
        new = NewSaga(id=ids[-1], name=name, context="{}")
        storage.create_sagas([new], owner="worker-2@a-host-with-a-name/4711.90210", for_seconds=seconds)
    storage.pause("other", by="ann@ops-1", because="a strike that takes longer than anybody thought it would")
    return ids


def plain(output: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", output).replace("\r", "")


def test_colours_are_for_terminals_that_want_them(sagas: Command, ordered: Ordered) -> None:
    ordered("stuck")

    assert "\x1b[31mFAILED" in sagas("list", FORCE_COLOR="1", TERM="xterm").stdout
    assert "\x1b[31m" not in sagas("list", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").stdout
    assert "\x1b" not in sagas("list", TERM="xterm").stdout


@pytest.mark.parametrize(
    "command",
    [["list"], ["stats"], ["workers"], ["scan", "--dry-run"], ["show", "a\u202ekey"], ["list", "--name", "a\u202eb"]],
)
def test_stored_text_cannot_drive_the_terminal_or_pose_as_other_text(
    sagas: Command, storage: PostgresSagaStorage, command: list[str]
) -> None:
    name = "[red]x[/red] :smile: \x1b[2J\x9b\u202e\u200b\u2028\u2029\nforged"
    new = NewSaga(id=new_saga_id(), name=name, context='{"a": "\u202e\u2028"}', idempotency_key="a\u202ekey")
    storage.create_sagas([new], owner=f"w\u202e\n{name}", for_seconds=600)
    storage.pause(name, by="ann\u202e", because="why\u202e\u2028")

    result = sagas(*command)

    if command != ["list", "--name", "a\u202eb"]:
        shown = r"[red]x[/red] :smile: \x1b[2J\x9b\u202e\u200b\u2028\u2029\nforged"
        assert shown in result.stdout
    assert not re.search("[\x1b\x9b\u202e\u200b\u2028\u2029]", result.output)
    assert not re.search("^forged", result.output, re.MULTILINE)
