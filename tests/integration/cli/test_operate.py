"""The commands that act: they ask first, tell what came of it, and leave who and why in the log."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from typer.testing import Result

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus
from sagas.cli.prompts import operator
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]
ACTIONS = {
    "retry": ("retry", "{id}"),
    "compensate": ("compensate", "{id}", "--reason", "why"),
    "skip": ("skip", "{id}", "reserve", "--reason", "why"),
    "resolve": ("resolve", "{id}", "--as", "compensated", "--reason", "why"),
}


@pytest.fixture(params=ACTIONS)
def action(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return ACTIONS[request.param]


def _of(action: tuple[str, ...], saga_id: UUID) -> list[str]:
    return [word.format(id=saga_id) for word in action]


def _printed(result: Result) -> str:
    """What the command printed; the runner shows the answer to its question there, too."""
    return result.stdout.removeprefix(" y\n").removeprefix(" n\n").removeprefix(" ")


def test_a_stuck_saga_is_found_understood_and_settled_in_three_commands(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage
) -> None:
    saga_id = ordered("stuck")

    assert str(saga_id) in sagas("list", "--dead").stdout
    assert "jammed" in sagas("show", str(saga_id)).stdout
    result = sagas("skip", str(saga_id), "reserve", "--reason", "put back by hand", "--yes")

    assert result.stdout == f"{saga_id}  place-order  COMPENSATED: nothing more happens to it\n"
    assert result.exit_code == 0
    entry = storage.load(saga_id).log[-1]
    assert (entry.actor, entry.reason) == (operator(), "put back by hand")
    assert (entry.worker or "").startswith(operator())


@pytest.mark.parametrize("action", [*ACTIONS.values(), ("recover", "{id}")], ids=lambda action: action[0])
def test_nothing_is_changed_unless_it_is_confirmed(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, action: tuple[str, ...]
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))
    before = storage.load(saga_id)

    for answer in (b"n\n", b""):
        result = sagas(*_of(action, saga_id), stdin=answer)

        assert result.stderr.endswith("error: not confirmed, so nothing was changed: answer y, or give --yes.\n")
        assert (_printed(result), result.exit_code) == ("", 1)
    assert storage.load(saga_id) == before


def test_what_is_confirmed_is_done(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, action: tuple[str, ...]
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    result = sagas(*_of(action, saga_id), stdin=b"y\n")

    assert result.exit_code == 0, result.stderr
    assert _printed(result).startswith(f"{saga_id}  place-order  ")
    assert storage.load(saga_id).log[-1].actor == operator()


def test_a_saga_that_a_worker_holds_is_refused_with_the_holders_name(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, action: tuple[str, ...]
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))
    taken = storage.acquire(saga_id, LeaseRequest(owner="worker-7/1.1", seconds=600), max_recovery_attempts=5)
    assert isinstance(taken, Acquired)
    patience = () if action[0] == "retry" else ("--wait", "0.3")

    result = sagas(*_of(action, saga_id), "--yes", *patience)

    assert "held by worker-7/1.1" in result.stderr
    assert (result.stdout, result.exit_code) == ("", 1)
    assert storage.load(saga_id).version == taken.lease.version


@pytest.mark.parametrize("name", [None, "place-order"])
def test_all_the_dead_are_retried_or_those_of_a_name(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage, name: str | None
) -> None:
    dead = {ordered("stuck") for _ in range(3)}

    result = sagas("retry", "--dead", *(("--name", name) if name else ()), "--reason", "shelf mended", stdin=b"y\n")

    assert "retry 3 sagas?" in result.stderr
    assert {UUID(line.split()[0]) for line in _printed(result).splitlines()} == dead
    assert {storage.load(saga_id).recovery_attempts for saga_id in dead} == {0}
    assert sagas("retry", "--dead").stderr == "no sagas are dead.\n"
    alive, unknown = (sagas("retry", "--dead", "--name", each) for each in ("place-order", "refund"))
    assert (alive.stderr, alive.exit_code) == ("no sagas named place-order are dead.\n", 0)
    assert "warning: no saga is named 'refund' here" in unknown.stderr
    assert unknown.exit_code == 1


def test_retry_wants_ids_or_the_dead_not_both(sagas: Command) -> None:
    for arguments in ((), ("--dead", "01890a5d-ac96-774b-bcce-b302099a8057"), ("--name", "place-order")):
        result = sagas("retry", *arguments)

        assert "give either ids, or --dead" in result.stderr
        assert result.exit_code == 2


def test_one_that_cannot_be_retried_is_told_and_the_others_are(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage
) -> None:
    finished, dead = ordered("tea"), ordered("stuck")

    result = sagas("retry", str(finished), str(dead), "--yes")

    assert result.stderr == f"error: saga {finished} is COMPLETED already: nothing is left to act on.\n"
    assert result.stdout.startswith(str(dead))
    assert result.exit_code == 1


def test_what_needs_no_code_works_where_the_modules_cannot_be_imported(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage
) -> None:
    saga_id = ordered("stuck")

    assert sagas("retry", str(saga_id), "--yes", SAGAS_MODULES="gone").exit_code == 0
    resolve = ("resolve", str(saga_id), "--as", "completed", "--reason", "settled", "--yes")
    assert sagas(*resolve, SAGAS_MODULES="gone").exit_code == 0

    assert storage.load(saga_id).status is SagaStatus.COMPLETED


def test_what_needs_the_code_says_so_where_it_is_missing(sagas: Command, ordered: Ordered) -> None:
    saga_id = ordered("stuck")

    result = sagas("skip", str(saga_id), "reserve", "--reason", "why", "--yes", SAGAS_MODULES="")

    assert "no saga named 'place-order' is known here (known: none): add the module" in result.stderr
    assert result.exit_code == 1


def test_several_sagas_are_acted_on_and_what_is_refused_leaves_the_others(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, ordered: Callable[[str], UUID]
) -> None:
    first, done = engine.start(PlaceOrder, Order("tea")), ordered("tea")
    second = engine.start(PlaceOrder, Order("tea"), idempotency_key="order-2")

    result = sagas(
        "resolve", str(first), "nosuch", str(done), "order-2", str(second), "--as", "completed", "--reason", "x", "-y"
    )

    assert [line.split()[0] for line in result.stdout.splitlines()] == [str(first), str(second)]
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == [
        " no saga has the id or the idempotency key 'nosuch'",
        f" saga {done} is COMPLETED already",
    ]
    assert result.exit_code == 1
    assert {storage.load(each).status for each in (first, second)} == {SagaStatus.COMPLETED}


def test_recovering_by_hand_is_noted_in_the_sagas_log(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order("tea"))

    sagas("recover", str(saga_id), "--reason", "asked to", stdin=b"y\n")

    first = storage.load(saga_id).log[0]
    assert (first.step, first.actor, first.reason) == ("recover", operator(), "asked to")
