"""Which saga is meant: ids, short ids and idempotency keys, wherever a saga is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.cli.ids import saga_id_of, short_ids
from sagas.inspection import Inspector
from sagas.storage.records import NewSaga
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

ALONE = UUID("019aad7e-1600-7c3a-9d41-5be80d6c0016")
TOGETHER = [
    UUID(f"019aad7e-1700-7c3a-9d41-5be8{number:02x}6c0{ending}") for number, ending in enumerate(("016", "116", "117"))
]


@pytest.fixture
def stored(storage: PostgresSagaStorage) -> Inspector:
    """Sagas of two milliseconds."""
    new = [NewSaga(id=saga_id, name="place-order", context="{}") for saga_id in (ALONE, *TOGETHER)]
    storage.create_sagas(new)
    return Inspector(storage)


def test_a_short_id_is_the_millisecond_and_an_end_where_others_share_it(stored: Inspector) -> None:
    shown = short_ids([ALONE, *TOGETHER], stored)

    assert [shown[saga_id] for saga_id in (ALONE, *TOGETHER)] == [
        "019aad7e-1600",
        "019aad7e-1700..0016",
        "019aad7e-1700..0116",
        "019aad7e-1700..0117",
    ]


def test_ends_are_as_long_as_they_must_be(storage: PostgresSagaStorage) -> None:
    ids = [UUID(f"019aad7e-1700-7c3a-9d41-5be8{middle}c0016") for middle in ("0d6", "1d6", "1d7")]
    storage.create_sagas([NewSaga(id=saga_id, name="place-order", context="{}") for saga_id in ids])

    shown = short_ids(ids, Inspector(storage))

    assert [shown[saga_id] for saga_id in ids] == [
        "019aad7e-1700..0d6c0016",
        "019aad7e-1700..1d6c0016",
        "019aad7e-1700..7c0016",
    ]
    assert [saga_id_of(shown[saga_id], Inspector(storage)) for saga_id in ids] == ids


def test_an_id_is_taken_whole_from_its_beginning_or_with_its_end(stored: Inspector) -> None:
    for text, meant in (
        (str(ALONE), ALONE),
        (ALONE.hex, ALONE),
        (f" {str(ALONE).upper()} ", ALONE),
        ("019aad7e-1600", ALONE),
        ("019AAD7E16", ALONE),
        ("019aad7e-1600-7c3a-9d41-5be80d6c001", ALONE),
        ("019aad7e-1700..0116", TOGETHER[1]),
        ("019aad7e-1700…116", TOGETHER[1]),
        ("019aad7e..0117", TOGETHER[2]),
    ):
        assert saga_id_of(text, stored) == meant


def test_what_names_several_sagas_is_refused_with_all_of_them(sagas: Command, stored: Inspector) -> None:
    for text in ("019aad7e-1700", "019aad7e", "019aad7e-1700..16"):
        result = sagas("show", text)

        assert result.stderr.startswith(f"error: '{text}' names several sagas: 019aad7e-1")
        assert result.stderr.endswith(" (place-order, PENDING). Give the whole id of one, or NAME/KEY.\n")
        assert (str(TOGETHER[0]) in result.stderr, str(TOGETHER[1]) in result.stderr) == (True, True)
        assert result.exit_code == 1


def test_what_names_none_is_one_sentence(sagas: Command, stored: Inspector) -> None:
    for text in ("019aad", "019aad7e-1601", "..0016", "019aad..0016", "", "019aad7e-1600..zz", "%", "a\x00b", "0" * 99):
        result = sagas("show", text)

        (sentence,) = result.stderr.splitlines()
        assert sentence.startswith("error: no saga has the id or the idempotency key ")
        assert result.exit_code == 1


def test_every_command_takes_a_key_or_a_short_id(sagas: Command, engine: SagaEngine, stored: Inspector) -> None:
    engine.start(PlaceOrder, Order("tea"), idempotency_key="order 17")
    because = ("--because", "x", "--yes")

    for command in (
        ["show", "order 17"],
        ["list", "--after", "order 17"],
        ["retry", "order 17", "019aad7e-1600", *because],
        ["skip", "order 17", "reserve", *because],
        ["compensate", "order 17", *because],
        ["recover", "order 17", *because],
        ["resolve", "019aad7e-1600", "--as", "completed", *because],
    ):
        result = sagas(*command)
        assert (result.exit_code, "error" in result.stderr) == (0, False), (command, result.output)


def test_a_key_of_several_names_or_that_is_another_sagas_id_too(
    sagas: Command, engine: SagaEngine, stored: Inspector, sql: Callable[..., Any]
) -> None:
    first = engine.start(PlaceOrder, Order("tea"), idempotency_key="17")
    sql("UPDATE saga_executions SET name = 'other' WHERE id = :id", id=first)
    second = engine.start(PlaceOrder, Order("tea"), idempotency_key="17")
    engine.start(PlaceOrder, Order("tea"), idempotency_key=str(ALONE))
    by_uuid = engine.start(PlaceOrder, Order("tea"), idempotency_key=str(UUID(int=7)))

    ambiguous = sagas("show", "17")

    assert f"'17' names several sagas: {first} (other, PENDING); {second} (place-order, PENDING). " in ambiguous.stderr
    assert saga_id_of(str(ALONE), stored) == ALONE
    assert saga_id_of(str(UUID(int=7)), stored) == by_uuid
