"""`sagas prune`: what is deleted, what is asked, and what is told when it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter
from sagas.testing.processes import wait_until
from tests.calls import backends
from tests.integration.cli.conftest import Command

Ordered = Callable[[str], UUID]
DEADLINE_SECONDS = 60


@pytest.fixture
def history(ordered: Ordered, sql: Callable[..., Any]) -> tuple[UUID, UUID]:
    """A saga that ended two hours ago, and one that ended just now."""
    old, new = ordered("tea"), ordered("tea")
    sql("UPDATE saga_executions SET finished_at = now() - interval '2 hours' WHERE id = :id", id=old)
    return old, new


def left(storage: PostgresSagaStorage) -> list[UUID]:
    return [saga.id for saga in storage.find(SagaFilter(limit=10_000))]


def test_only_what_ended_longer_ago_is_deleted_and_the_count_is_told(
    sagas: Command, history: tuple[UUID, UUID], storage: PostgresSagaStorage
) -> None:
    result = sagas("prune", "--older-than", "1h", "--yes")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "pruned 1.\n", "")
    assert left(storage) == [history[1]]


def test_a_dry_run_counts_and_deletes_nothing(
    sagas: Command, history: tuple[UUID, UUID], storage: PostgresSagaStorage
) -> None:
    told = sagas("prune", "--older-than", "90m", "--dry-run")
    data = sagas("prune", "--older-than", "90m", "--dry-run", "--json")

    assert told.stdout == "1 saga that ended more than 90 min ago; a dry run deletes none.\n"
    assert json.loads(data.stdout) == {"found": 1, "deleted": 0, "whole": False}
    assert set(left(storage)) == set(history)


@pytest.mark.parametrize(("answer", "exit_code", "deleted"), [(b"y\n", 0, 1), (b"n\n", 1, 0), (b"", 1, 0)])
def test_it_asks_with_the_count_and_anything_but_yes_deletes_nothing(
    sagas: Command,
    history: tuple[UUID, UUID],
    storage: PostgresSagaStorage,
    answer: bytes,
    exit_code: int,
    deleted: int,
) -> None:
    result = sagas("prune", "--older-than", "1h", stdin=answer)

    assert result.stderr.startswith("delete 1 saga that ended more than 60 min ago, for good? [y/N]: ")
    assert ("not confirmed, so nothing was changed" in result.stderr) is not bool(deleted)
    assert result.exit_code == exit_code
    assert result.stdout == "pruned 1.\n" * deleted
    assert len(left(storage)) == 2 - deleted


def test_nothing_to_delete_asks_nothing(sagas: Command) -> None:
    result = sagas("prune", "--older-than", "1h")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "pruned 0.\n", "")


def test_an_age_is_required(sagas: Command) -> None:
    result = sagas("prune", "--yes")

    assert "--older-than" in result.stderr
    assert result.exit_code == 2


def test_ctrl_c_ends_it_between_batches_and_what_was_deleted_is_told(
    spawn: Callable[..., subprocess.Popen[bytes]],
    sql: Callable[..., Any],
    storage: PostgresSagaStorage,
    database_url: str,
) -> None:
    sql(
        "INSERT INTO saga_executions (id, name, context, status, state, available_at, finished_at) "
        "SELECT gen_random_uuid(), 'order', '{}', 'COMPLETED', 'finished', 'infinity', "
        "now() - interval '1 hour' - n * interval '1 second' "
        "FROM generate_series(1, 3000) AS n"
    )
    # A row of the log of the 1,500th, which another session is at: the second batch waits for it.
    sql(
        "INSERT INTO saga_logs (saga_id, step_name, action, status) "
        "SELECT id, 'reserve', 'act', 'completed' FROM saga_executions ORDER BY finished_at OFFSET 1500 LIMIT 1"
    )
    engine = sa.create_engine(database_url)
    with engine.begin() as other:
        other.exec_driver_sql("SELECT FROM saga_logs FOR UPDATE")
        process = spawn("prune", "--older-than", "1h", "--yes")
        wait_until(
            lambda: backends(engine, "wait_event_type = 'Lock'"),
            timeout_seconds=DEADLINE_SECONDS,
            what="the second batch",
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert out == b"pruned 1000; stopped, the rest is for the next time.\n"
    assert (err, process.returncode) == (b"", 130)
    wait_until(
        lambda: len(left(storage)) == 2000 and not backends(engine, "state = 'active'"),
        timeout_seconds=DEADLINE_SECONDS,
        what="the end of the batch that was withdrawn",
    )
    engine.dispose()


def test_progress_is_for_terminals_and_on_stderr(sagas: Command, history: tuple[UUID, UUID]) -> None:
    result = sagas("prune", "--older-than", "1h", "--yes", FORCE_COLOR="1", TERM="xterm")

    assert "pruning" in result.stderr
    assert "1/1" in result.stderr
    assert result.stdout == "pruned 1.\n"
