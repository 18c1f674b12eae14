"""`sagas start`: which lines start, which are bad, and what is told when it cannot go on."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.cli import lines
from sagas.cli.lines import BadLine, GoodLine, read_lines
from sagas.errors import StorageUnavailable
from sagas.progress import SagaStatus
from sagas.storage.records import SagaFilter
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import PlaceOrder


def read(text: bytes, key: str | None = None) -> list[GoodLine | BadLine]:
    return list(read_lines(io.BytesIO(text), PlaceOrder, key))


def reason(line: bytes, key: str | None = None) -> str:
    (bad,) = read(line, key)
    assert isinstance(bad, BadLine)
    return bad.reason


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


def test_a_line_longer_than_any_context_is_bad_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_LONGEST_LINE", 20)

    long, tea, longest = read(b'{"item": "' + b"x" * 95 + b'"}\n{"item": "tea"}\n' + b" " * 10 + b"x" * 42)

    assert isinstance(long, BadLine)
    assert long.reason.startswith("longer than ")
    assert isinstance(tea, GoodLine)
    assert (tea.number, tea.context.item) == (2, "tea")
    assert isinstance(longest, BadLine)


def test_a_byte_order_mark_at_the_beginning_of_the_file_is_no_part_of_its_first_line() -> None:
    (tea,) = read(b'\xef\xbb\xbf{"item": "tea"}')

    assert isinstance(tea, GoodLine)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[" * 100_000, "invalid JSON (nested too deeply)"),
        (b'{"item": "tea", "price": ' + b"7" * 5000 + b"}", "invalid JSON (Exceeds the limit"),
        (b'{"item": "tea", "price": -Infinity}', "invalid JSON (-Infinity is not a JSON value)"),
        (b'{"item": "t\\u0000"}', "PlaceOrder: its context holds a NUL character"),
        (b'{"item": "tea"} {}', "invalid JSON (Extra data at column 17)"),
        (b'["tea"]', "PlaceOrder: its context does not validate as Order (the whole: "),
    ],
)
def test_what_cannot_be_a_context_is_a_bad_line_with_its_reason(line: bytes, why: str) -> None:
    assert reason(line).startswith(why)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"item": "tea", "key": null}', "field 'key' is null, and an idempotency key is text or a whole number"),
        (b'{"item": "tea", "key": true}', "field 'key' is true, and an idempotency key is text or a whole number"),
        (b'{"item": "tea", "key": 1.5}', "field 'key' is 1.5, and an idempotency key is text or a whole number"),
        (b'{"item": "tea", "key": ""}', "field 'key': idempotency key '': give text of 1 to 255 characters"),
        (b'{"item": "tea", "key": "a\\u0000"}', "field 'key': idempotency key 'a\\x00': give text"),
        (b'{"item": "tea", "key": "\\ud800"}', "PlaceOrder: its context does not validate as Order (the whole: "),
        (b'{"item": "tea", "key": "' + b"k" * 256 + b'"}', "field 'key': idempotency key 'kkkkkk"),
    ],
)
def test_what_cannot_be_a_key_is_a_bad_line_with_its_reason(line: bytes, why: str) -> None:
    assert reason(line, "key").startswith(why)
