"""How tables and lines fit the terminal, and that nothing in them can drive it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest
from rich.cells import cell_len

from sagas import PostgresSagaStorage, SagaEngine
from sagas.ids import new_saga_id
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


def shown_ids(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


@pytest.fixture
def filled(storage: PostgresSagaStorage, engine: SagaEngine, ordered: Ordered) -> list[UUID]:
    """Sagas with long names and owners, some of one millisecond."""
    ids = [ordered("tea"), ordered("stuck"), engine.start(PlaceOrder, Order("milk"), idempotency_key="key")]
    ids += engine.start_many(PlaceOrder, [Order("salt")] * 3)
    for name, seconds in (("n" * 255, 600), ("short-name", -60)):
        ids.append(new_saga_id())
        new = NewSaga(id=ids[-1], name=name, context="{}")
        storage.create_sagas([new], lease=LeaseRequest(owner="worker-2@a-host-with-a-name/4711.90210", seconds=seconds))
    storage.pause("other", actor="ann@ops-1", reason="a strike that takes longer than anybody thought it would")
    return ids


def plain(output: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", output).replace("\r", "")


@pytest.mark.parametrize(
    "command",
    [["list"], ["stats", "--all"], ["workers"], ["scan", "--dry-run"], ["graph", "place-order"], ["show", "key"]],
)
def test_nothing_is_wider_than_the_terminal_and_no_word_is_broken(
    sagas: Command, filled: list[UUID], command: list[str]
) -> None:
    for width in (80, 120):
        piped, shown = sagas(*command).stdout, plain(sagas(*command, COLUMNS=str(width), FORCE_COLOR="1").stdout)

        assert max(map(cell_len, shown.splitlines())) <= width
        words = {word for word in shown.replace(",", "").split() if "…" not in word}
        short = {word for word in words if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}(\.\.[0-9a-f]{4,})?", word)}
        new = words - short - set(piped.replace(",", "").split())
        assert {word for word in new if not word.strip("(").isdigit()} == set()  # ages change between the two
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


def test_colours_are_for_terminals_that_want_them(sagas: Command, ordered: Ordered) -> None:
    ordered("stuck")

    assert "\x1b[31mFAILED" in sagas("list", FORCE_COLOR="1", TERM="xterm").stdout
    assert "\x1b[31m" not in sagas("list", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").stdout
    assert "\x1b" not in sagas("list", TERM="xterm").stdout


def test_stored_text_cannot_drive_the_terminal_or_pose_as_other_text(
    sagas: Command, storage: PostgresSagaStorage
) -> None:
    name = "[red]x[/red] :smile: \x1b[2J\x9b\u202e\u200b\u2028\u2029\nforged"
    new = NewSaga(id=new_saga_id(), name=name, context='{"a": "\u202e\u2028"}', idempotency_key="a\u202ekey")
    storage.create_sagas([new], lease=LeaseRequest(owner=f"w\u202e\n{name}", seconds=600))
    storage.pause(name, actor="ann\u202e", reason="why\u202e\u2028")

    for command in (
        *(["list"], ["list", "--json"], ["list", "--name", "a\u202eb"], ["stats"], ["workers"]),
        *(["scan", "--dry-run"], ["show", "a\u202ekey"], ["show", "a\u202ekey", "--json"]),
    ):
        result = sagas(*command)

        if "--name" not in command and "--json" not in command:
            shown = r"[red]x[/red] :smile: \x1b[2J\x9b\u202e\u200b\u2028\u2029\nforged"
            assert shown in result.stdout
        assert not re.search("[\x1b\x9b\u202e\u200b\u2028\u2029]", result.output)
        assert not re.search("^forged", result.output, re.MULTILINE)
