"""`sagas pause` and `sagas resume`: what is held back, and which name is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.cli.prompts import operator
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder


def test_a_name_is_paused_and_resumed(sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage) -> None:
    engine.start(PlaceOrder, Order("tea"))

    paused = sagas("pause", "place-order", "--reason", "the bank is away", stdin=b"y\n")

    assert paused.stdout.endswith(
        "place-order is paused; 1 that were due are paused. `sagas resume place-order` ends it.\n"
    )
    (pause,) = storage.pauses()
    assert (pause.actor, pause.reason) == (operator(), "the bank is away")
    resumed = sagas("resume", "place-order", "--yes")
    assert resumed.stdout == "place-order is resumed; 1 that were paused are due.\n"
    again = sagas("resume", "place-order", "--yes")
    assert again.stderr == "error: 'place-order' is not paused. Paused are: none.\n"
    assert storage.pauses() == []


def test_pausing_an_unknown_name_warns_with_the_nearest_names_and_is_no_success(
    sagas: Command, engine: SagaEngine, storage: PostgresSagaStorage, sql: Callable[..., object]
) -> None:
    engine.start(PlaceOrder, Order("tea"))
    for name in ("refund", "gone"):
        engine.run(PlaceOrder, Order("tea"), idempotency_key=name)
        sql("UPDATE saga_executions SET name = :name WHERE idempotency_key = :name", name=name)

    result = sagas("pause", "refnud", "--reason", "why", "--yes", SAGAS_MODULES="")

    assert result.stderr == (
        "warning: no saga is named 'refnud' here, in the code or in the database. "
        "Names are: refund, place-order, gone.\n"
    )
    assert (result.exit_code, [pause.name for pause in storage.pauses()]) == (1, ["refnud"])
    for known in ("refund", "place-order"):
        paused = sagas("pause", known, "--reason", "why", "--yes", SAGAS_MODULES="")
        assert (paused.stderr, paused.exit_code) == ("", 0)
    resumed = sagas("resume", "refunt", "--yes")
    assert resumed.stderr == "error: 'refunt' is not paused. Paused are: refund, refnud, place-order.\n"
    assert resumed.exit_code == 1


def test_a_renamed_saga_is_paused_under_the_name_that_it_is_stored_by(
    sagas: Command, storage: PostgresSagaStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "renamed.py").write_text(
        "from sagas import Saga\nfrom tests.integration.cli.shop import PlaceOrder\n"
        "class Buy(Saga[dict]):\n    name = 'buy'\n    aliases = ('old-buy',)\n    steps = PlaceOrder.steps\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code = {"SAGAS_MODULES": "renamed"}

    paused = sagas("pause", "buy", "--reason", "why", "--yes", **code)

    assert paused.stderr == "buy was renamed: its sagas are stored as old-buy.\n"
    assert [pause.name for pause in storage.pauses()] == ["old-buy"]
    assert sagas("resume", "buy", "--yes", **code).exit_code == 0
    assert storage.pauses() == []
