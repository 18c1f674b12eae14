"""Files of one JSON document a line: which lines are good, and why others are bad."""

from __future__ import annotations

import io

import pytest

from sagas.cli import jsonl
from sagas.cli.jsonl import BadLine, GoodLine, read_lines
from tests.integration.cli.shop import PlaceOrder


def read(text: bytes, key: str | None = None) -> list[GoodLine | BadLine]:
    return list(read_lines(io.BytesIO(text), PlaceOrder, key))


def reason(line: bytes, key: str | None = None) -> str:
    (bad,) = read(line, key)
    assert isinstance(bad, BadLine)
    return bad.reason


def test_a_line_longer_than_any_context_is_bad_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_LONGEST_LINE", 20)

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
        (b"[" * 100_000, "invalid JSON (recursion limit exceeded"),
        (b'{"item": "tea", "price": ' + b"7" * 5000 + b"}", "invalid JSON (number out of range"),
        (b'{"item": "tea", "price": -Infinity}', "invalid JSON (invalid number at column 27)"),
        (b'{"item": "t\\u0000"}', "PlaceOrder: its context holds a NUL character"),
        (b'{"item": "tea"} {}', "invalid JSON (trailing characters at column 17)"),
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
        (b'{"item": "tea", "key": "\\ud800"}', "invalid JSON (unexpected end of hex escape"),
        (b'{"item": "tea", "key": "' + b"k" * 256 + b'"}', "field 'key': idempotency key 'kkkkkk"),
    ],
)
def test_what_cannot_be_a_key_is_a_bad_line_with_its_reason(line: bytes, why: str) -> None:
    assert reason(line, "key").startswith(why)
