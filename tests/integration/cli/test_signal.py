"""`sagas signal` and `sagas cancel`: what they ask, send and tell, and how a saga that waits is shown."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.cli.prompts import operator
from sagas.storage.records import SagaState
from tests.integration.cli.conftest import SHOP, Command, CourierAccepts, Deliver, wait_for_courier
from tests.integration.cli.shop import Order, PlaceOrder

ANN = '{"courier": "ann"}'
#: With the code of the saga that waits.
CODE = {"SAGAS_MODULES": f"{SHOP},tests.integration.cli.conftest"}


@pytest.fixture
def waiting(engine: SagaEngine) -> UUID:
    engine.registry.add(Deliver)
    return wait_for_courier(engine, Deliver, key="order-7")


@pytest.mark.parametrize("which", ["order-7", "deliver/order-7", "{id}"])
def test_a_signal_wakes_the_saga_that_waits_for_it(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, waiting: UUID, which: str
) -> None:
    result = sagas("signal", which.format(id=waiting), "courier-accepts", "--payload", ANN, "--yes", **CODE)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{waiting}  deliver  signal courier-accepts sent: due since ")
    assert engine.recover(waiting).outcome == "completed"
    received = storage.load(waiting).log[2]
    assert (received.step, received.actor) == ("courier-accepts", operator())


def test_the_same_id_twice_is_one_signal_and_programs_are_told(
    sagas: Command, storage: PostgresSagaStorage, waiting: UUID
) -> None:
    command = ("signal", "order-7", "courier-accepts", "--payload", ANN, "--id", "evt-1", "--yes")

    first, again = (json.loads(sagas(*command, "--json", **CODE).stdout) for _ in range(2))

    assert (first["saga_id"], first["is_new"], again["is_new"]) == (str(waiting), True, False)
    assert "was sent before with this id: nothing was sent" in sagas(*command, **CODE).stdout
    assert len(storage.signals(waiting)) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (("courier", "--payload", ANN), "has no wait 'courier': it waits for 'courier-accepts'. Correct the name.", 1),
        (("courier-accepts", "--payload", '{"driver": 1}'), "(courier: Field required): run code whose signal type", 1),
        (("courier-accepts", "--payload", "{ann"), "'{ann' is not JSON (Expecting property name", 2),
    ],
)
def test_a_signal_that_cannot_be_received_is_refused_in_a_sentence(
    sagas: Command, storage: PostgresSagaStorage, waiting: UUID, arguments: tuple[str, ...], sentence: str, code: int
) -> None:
    result = sagas("signal", "order-7", *arguments, "--yes", **CODE)

    assert sentence in result.stderr
    assert (result.stdout, result.exit_code) == ("", code)
    assert storage.signals(waiting) == []


def test_what_is_not_confirmed_is_not_sent(sagas: Command, storage: PostgresSagaStorage, waiting: UUID) -> None:
    signal = sagas("signal", "order-7", "courier-accepts", "--payload", ANN, stdin=b"n\n", **CODE)
    cancel = sagas("cancel", "order-7", "--reason", "why", stdin=b"n\n")

    assert f"deliver {waiting} is RUNNING: send it the signal 'courier-accepts'? [y/N]" in signal.stderr
    assert f"deliver {waiting} is RUNNING: abort it and undo what it did? [y/N]" in cancel.stderr
    assert (signal.exit_code, cancel.exit_code) == (1, 1)
    assert storage.signals(waiting) == []


def test_a_signal_is_sent_without_the_code_and_the_worker_checks_it(
    sagas: Command, engine: SagaEngine, waiting: UUID
) -> None:
    result = sagas("signal", "order-7", "courier-accepts", "--payload", ANN, "--yes", SAGAS_MODULES="gone")

    assert "warning: what is sent is not checked here (SAGAS_MODULES names 'gone'" in result.stderr
    assert result.exit_code == 0
    assert engine.recover(waiting).outcome == "completed"


def test_sagas_are_cancelled_and_what_is_refused_leaves_the_others(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, waiting: UUID
) -> None:
    done = engine.run(PlaceOrder, Order("tea")).saga_id

    result = sagas("cancel", str(done), "order-7", "--reason", "out of stock", "--yes")

    assert result.stderr == f"error: saga {done} is COMPLETED already: nothing is left to cancel.\n"
    assert result.stdout.startswith(f"{waiting}  deliver  asked to abort: due since ")
    assert result.exit_code == 1
    assert engine.recover(waiting).outcome == "compensated"
    cancelled = storage.load(waiting).log[2]
    assert (cancelled.step, cancelled.actor, cancelled.reason) == ("cancel", operator(), "out of stock")


def test_a_request_to_cancel_needs_a_reason(sagas: Command, waiting: UUID) -> None:
    assert sagas("cancel", "order-7", "--yes").exit_code == 2


def test_operators_may_skip_a_wait_or_undo_a_saga_that_waits(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, waiting: UUID
) -> None:
    other = wait_for_courier(engine, Deliver)

    skipped = sagas("skip", "order-7", "courier-accepts", "--reason", "by phone", "--yes", **CODE)
    undone = sagas("compensate", str(other), "--reason", "out of stock", "--yes", **CODE)

    assert (skipped.exit_code, undone.exit_code) == (0, 0)
    assert [engine.recover(saga_id).outcome for saga_id in (waiting, other)] == ["completed", "compensated"]


def test_a_saga_that_waits_is_shown_with_what_it_waits_for_and_until_when(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, waiting: UUID
) -> None:
    until = storage.load(waiting).available_at
    assert until is not None

    shown = sagas("show", "order-7", **CODE).stdout
    listed = sagas("list").stdout

    assert f"next        waits for courier-accepts, until {until:%Y-%m-%d %H:%M:%S} (in 47 h)\n" in shown
    assert "next step   wait for courier-accepts\n" in shown
    assert f"waits for a signal, until {until:%Y-%m-%d %H:%M:%S}\n" in shown
    assert f"until {until:%Y-%m-%d %H:%M:%S}" in listed
    assert "waiting: 1  (for a signal or a time)\n" in sagas("scan", "--dry-run").stdout
    as_json = json.loads(sagas("show", "order-7", "--json", **CODE).stdout)
    assert as_json["state"] == SagaState.WAITING
    assert as_json["next_step"]["step_name"] == CourierAccepts.name
    assert as_json["log"][1]["status"] == "armed"


def test_a_wait_without_a_limit_is_shown_so(sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage) -> None:
    timeout, CourierAccepts.timeout = CourierAccepts.timeout, None
    try:
        wait_for_courier(engine, Deliver, key="order-8")
    finally:
        CourierAccepts.timeout = timeout

    assert "waits for courier-accepts, without a limit\n" in sagas("show", "order-8").stdout
    assert sagas("list").stdout.rstrip().endswith("for a signal")
    assert "without a limit" in sagas("scan", "--dry-run").stdout
    assert (
        "it waits for a signal, without a limit" in engine.recover(storage.find_id("deliver", "order-8") or "").message
    )


def test_the_same_key_under_two_names_is_told_and_the_name_decides(
    sagas: Command, engine: SagaEngine, waiting: UUID
) -> None:
    other = engine.start(PlaceOrder, Order("tea"), idempotency_key="order-7")

    assert "Give the whole id of one, or NAME/KEY." in sagas("show", "order-7").stderr
    assert str(other) in sagas("show", "place-order/order-7").stdout
    assert sagas("show", "order-7/order-7").exit_code == 1
