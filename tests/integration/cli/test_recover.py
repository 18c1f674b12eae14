"""`sagas recover`: sagas brought on by hand, and what is told of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


def test_a_saga_is_brought_on_here_and_what_was_done_is_told(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    result = sagas("recover", "--yes", str(saga_id))

    assert result.stdout.splitlines() == [
        f"{saga_id}  place-order  completed: the saga is COMPLETED.",
        "    reserve: acted",
        "    pay: acted",
    ]
    assert result.exit_code == 0
    assert storage.load(saga_id).status is SagaStatus.COMPLETED


def test_bad_ids_are_told_and_the_others_are_recovered_all_the_same(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    result = sagas("recover", "--yes", "tea", "01890a5d-ac96-774b-bcce-b302099a8057", str(saga_id))

    assert [line[:29] for line in result.stderr.splitlines()] == [
        "error: no saga has the id or ",
        "error: no saga has the id 018",
    ]
    assert result.exit_code == 1
    assert storage.load(saga_id).status is SagaStatus.COMPLETED


def test_a_finished_saga_is_left_alone_which_is_no_failure(sagas: Command, ordered: Ordered) -> None:
    saga_id = ordered("tea")

    result = sagas("recover", "--yes", str(saga_id))

    assert result.stdout == f"{saga_id}  place-order  skipped: nothing to do: the saga is COMPLETED already.\n"
    assert result.exit_code == 0


def test_a_dead_saga_is_run_once_more_and_dying_again_is_a_failure(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage
) -> None:
    saga_id = ordered("stuck")

    result = sagas("recover", "--yes", str(saga_id), SAGAS_MAX_RECOVERY_ATTEMPTS="1")

    assert result.stdout.splitlines() == [
        f"{saga_id}  place-order  dead: failed attempt 1 of 1, so it is dead until an operator revives it: "
        "the shelf [bold]jammed[/bold]\\nand smokes",
        "    reserve: compensate failed (RuntimeError), fail the attempt",
    ]
    assert result.exit_code == 1
    assert [entry.step for entry in storage.load(saga_id).log].count("reserve") == 3


def test_a_saga_that_this_shell_has_no_code_for_is_declined_which_is_a_failure(
    sagas: Command, engine: SagaEngine, sql: Callable[..., Any]
) -> None:
    unknown, known = engine.start(PlaceOrder, Order("tea")), engine.start(PlaceOrder, Order("tea"))
    sql("UPDATE saga_executions SET name = 'other' WHERE id = :id", id=unknown)

    result = sagas("recover", "--yes", str(unknown), str(known))

    first, second, *_ = result.stdout.splitlines()
    assert first.startswith(f"{unknown}  other  declined: ")
    assert second.startswith(f"{known}  place-order  completed: ")
    assert result.exit_code == 1
