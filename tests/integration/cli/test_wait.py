"""`sagas wait`: the exit code and a sentence tell how a saga ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.testing.processes import wait_until
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


@pytest.mark.parametrize(
    ("item", "stdout", "stderr", "code"),
    [
        ("tea", "saga {} is COMPLETED.\n", "", 0),
        ("unpaid", "", "error: saga {} is COMPENSATED: pay, act, attempt 1: ValueError: card \\x1b[31mdeclined\n", 1),
        ("stuck", "", "error: saga {0} is dead, and waits for an operator (`sagas show {0}`): reserve, compensate,", 1),
    ],
)
def test_a_saga_that_is_over_is_told_with_its_exit_code(
    sagas: Command, ordered: Ordered, item: str, stdout: str, stderr: str, code: int
) -> None:
    saga_id = ordered(item)

    told = sagas("wait", str(saga_id))

    assert (told.exit_code, told.stdout) == (code, stdout.format(saga_id))
    assert told.stderr.startswith(stderr.format(saga_id))
    assert told.stderr.count("\n") == code

    asked = sagas("wait", str(saga_id), "--json", "--timeout", "0")
    shown = json.loads(sagas("show", str(saga_id), "--json").stdout)
    assert (asked.exit_code, asked.stderr) == (code, told.stderr)
    assert json.loads(asked.stdout).items() <= (shown | {"log": json.loads(asked.stdout)["log"]}).items()
    assert [row["step_name"] for row in json.loads(asked.stdout)["log"]] == [row["step_name"] for row in shown["log"]]


def test_a_saga_that_is_not_over_in_time_fails_the_command(sagas: Command, engine: SagaEngine) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"), idempotency_key="order-7")

    told, unread, unknown = (
        sagas("wait", "order-7", "--timeout", "0.1"),
        sagas("wait", "order-7", "--timeout", "x"),
        sagas("wait", "tea"),
    )

    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: saga {saga_id} has not ended within 0.1 seconds and is PENDING: wait for")
    assert (unread.exit_code, unknown.exit_code) == (2, 1)
    assert unknown.stderr.startswith("error: no saga has the id or the idempotency key 'tea'")


def test_the_command_waits_for_the_end_and_needs_no_code_of_the_saga(
    spawn: Callable[..., subprocess.Popen[bytes]], engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))
    waiting = spawn("wait", str(saga_id), SAGAS_MODULES="")
    _first_look(storage)
    assert waiting.poll() is None

    engine.recover(saga_id)

    said, complained = waiting.communicate(timeout=60)
    assert (said.decode(), complained, waiting.returncode) == (f"saga {saga_id} is COMPLETED.\n", b"", 0)


def test_ctrl_c_ends_a_wait(spawn: Callable[..., Any], engine: SagaEngine, storage: PostgresSagaStorage) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))
    waiting = spawn("wait", str(saga_id))
    _first_look(storage)

    waiting.send_signal(2)

    waiting.communicate(timeout=60)
    assert waiting.returncode == 130


def _first_look(storage: PostgresSagaStorage) -> None:
    """Wait until another process has read the status of a saga."""
    statement = """
        SELECT FROM pg_stat_activity
        WHERE query LIKE 'SELECT CAST(jsonb_build_array(name, status, state%' AND datname = current_database()"""
    with storage.connections.cursor() as cursor:
        wait_until(lambda: cursor.execute(statement).fetchall(), what="the first look")
