"""`sagas start`: which lines start, which are bad, and what is told when it cannot go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.errors import StorageUnavailable
from sagas.progress import SagaStatus
from sagas.storage.saga_filter import SagaFilter
from tests.integration.cli.conftest import Command


def test_sagas_started_with_no_dispatcher_installed_are_left_free_for_the_scan(
    sagas: Command, storage: PostgresSagaStorage, tmp_path: Path
) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_bytes(b'{"item": "tea"}\n{"item": "milk"}\n')

    result = sagas("start", "place-order", "--from", str(file))

    assert (result.exit_code, result.stdout) == (0, "started 2, known already 0, bad 0.\n")
    found = storage.find(SagaFilter())
    assert [(saga.status, saga.lease_owner) for saga in found] == [(SagaStatus.PENDING, None)] * 2


def test_the_same_keys_again_are_known_already_within_a_file_and_between_files(
    sagas: Command, storage: PostgresSagaStorage
) -> None:
    file = b'{"item": "tea"}\n{"item": "milk"}\n{"item": "tea"}\n'

    first = sagas("start", "place-order", "--from", "-", "--key", "item", stdin=file)
    again = sagas("start", "place-order", "--from", "-", "--key", "item", stdin=file + b'{"item": "salt"}\n')

    assert first.stdout == "started 2, known already 1, bad 0.\n"
    assert again.stdout == "started 1, known already 3, bad 0.\n"
    assert again.exit_code == 0
    assert {saga.idempotency_key for saga in storage.find(SagaFilter())} == {"tea", "milk", "salt"}


def test_a_line_without_the_key_is_bad_and_the_others_start(sagas: Command) -> None:
    file = b'{"item": "tea", "order": 17}\n{"item": "milk"}\n'

    result = sagas("start", "place-order", "--from", "-", "--key", "order", stdin=file)

    assert result.stderr == "line 2: no field 'order' to take the idempotency key from\n"
    assert (result.exit_code, result.stdout) == (1, "started 1, known already 0, bad 1.\n")


def test_an_unknown_name_is_one_sentence_that_lists_the_known_ones(sagas: Command) -> None:
    result = sagas("start", "place-odrer", "--from", "-")

    assert result.stderr == (
        "error: no saga named 'place-odrer' is known here (known: place-order): add the module that defines it to "
        "SAGAS_MODULES, or correct the name.\n"
    )
    assert result.exit_code == 1


def test_a_file_that_does_not_exist_is_a_usage_error(sagas: Command) -> None:
    result = sagas("start", "place-order", "--from", "/nowhere/orders.jsonl")

    assert "No such file" in result.stderr
    assert result.exit_code == 2


def test_a_database_that_goes_away_stops_the_start_and_what_was_started_is_told(
    sagas: Command, storage: PostgresSagaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    start = SagaEngine.start_or_find_many

    def goes_away(engine: SagaEngine, saga: Any, contexts: Sequence[Any], **options: Any) -> list[tuple[UUID, bool]]:
        batches.append(len(contexts))
        if len(batches) == 2:
            raise StorageUnavailable("the database did not answer.")
        return start(engine, saga, contexts, **options)

    monkeypatch.setattr(SagaEngine, "start_or_find_many", goes_away)

    result = sagas("start", "place-order", "--from", "-", stdin=b'{"item": "tea"}\n' * 1200)

    assert result.stdout == (
        "started 500, known already 0, bad 0; stopped: whether lines 501 to 1000 were started is unknown.\n"
    )
    assert result.stderr == "error: the database did not answer.\n"
    assert (result.exit_code, batches) == (1, [500, 500])
    assert len(storage.find(SagaFilter(limit=2000))) == 500


def test_large_contexts_start_in_batches_that_fit_into_memory(
    sagas: Command, storage: PostgresSagaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def start(engine: SagaEngine, saga: Any, contexts: Sequence[Any], **_: Any) -> list[tuple[UUID, bool]]:
        batches.append(len(contexts))
        return []

    monkeypatch.setattr(SagaEngine, "start_or_find_many", start)
    line = json.dumps({"item": "x" * 3_000_000}).encode() + b"\n"

    sagas("start", "place-order", "--from", "-", stdin=line * 8)

    assert batches == [6, 2]


@pytest.mark.parametrize("at", ["in 2h", "2h"])
def test_sagas_may_start_later_and_have_tags(sagas: Command, storage: PostgresSagaStorage, at: str) -> None:
    options = ("--at", at, "--tag", "customer=c-7", "--tag", "note=a=b")

    result = sagas("start", "place-order", "--from", "-", *options, stdin=b'{"item": "tea"}\n')

    assert (result.exit_code, result.stdout) == (0, "started 1, known already 0, bad 0.\n")
    (saga,) = storage.find(SagaFilter())
    assert saga.available_at is not None
    assert 7190 < (saga.available_at - saga.created_at).total_seconds() < 7210
    assert saga.tags == {"customer": "c-7", "note": "a=b"}


def test_sagas_may_start_at_a_time_in_any_zone(sagas: Command, storage: PostgresSagaStorage) -> None:
    sagas("start", "place-order", "--from", "-", "--at", "2061-05-01T02:00+02:00", stdin=b'{"item": "tea"}\n')

    assert [saga.available_at for saga in storage.find(SagaFilter())] == [datetime(2061, 5, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--at", "2061-05-01T02:00"), "has no time zone: add Z for UTC"),
        (("--at", "tomorrow"), "is no time to start at: write it as 2026-11-26T14:30Z, or as 'in 2h'"),
        (("--at", "in -2h"), "is no time to start at"),
        (("--tag", "customer"), "'customer' is no tag and its value: write them as customer=c-7."),
        (("--tag", "=c-7"), "'=c-7' is no tag and its value"),
    ],
)
def test_a_start_or_a_tag_that_means_nothing_is_a_usage_error(
    sagas: Command, storage: PostgresSagaStorage, option: tuple[str, str], sentence: str
) -> None:
    result = sagas("start", "place-order", "--from", "-", *option, stdin=b'{"item": "tea"}\n')

    assert sentence in result.stderr
    assert result.exit_code == 2
    assert storage.find(SagaFilter()) == []
