"""Contexts read from a file of one JSON document a line; each line is good or bad on its own."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO, Final

from pydantic_core import from_json

from sagas.context import MAX_CONTEXT_BYTES
from sagas.definition import AnySaga
from sagas.errors import ContextError
from sagas.starting import check_idempotency_key

#: Even if every character is escaped, a context that may be stored is shorter.
_LONGEST_LINE: Final = 6 * MAX_CONTEXT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodLine:
    """A context to start a saga with.

    Attributes:
        number: of the line, from 1.
        key: the idempotency key that the line gives, if it was asked for.
        size: of the line, in bytes.
    """

    number: int
    context: Any
    key: str | None
    size: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that starts nothing, and why."""

    number: int
    reason: str


def read_lines(source: BinaryIO, saga: AnySaga, key_field: str | None = None) -> Iterator[GoodLine | BadLine]:
    """Read one line after the other; blank ones are skipped.

    Args:
        source: UTF-8 text.
        saga: what the contexts are for.
        key_field: the top-level field that holds the idempotency key.
    """
    for number, raw in _numbered(source):
        if not raw.strip():
            continue
        try:
            data = _parse(raw)
            context = saga.codec.load(raw.decode())
            # start_many refuses a whole batch for one context that cannot be stored.
            saga.codec.dump_checked(context)
            key = None if key_field is None else _key(data, key_field)
        except (ContextError, ValueError) as error:
            yield BadLine(number, str(error))
        else:
            yield GoodLine(number=number, context=context, key=key, size=len(raw))


def _numbered(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number in count(1):
        raw = source.readline(_LONGEST_LINE + 1)
        end = raw
        while len(end) > _LONGEST_LINE and not end.endswith(b"\n"):
            end = source.readline(_LONGEST_LINE + 1)
        if not raw:
            return
        yield number, raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw


def _parse(raw: bytes) -> Any:
    if len(raw) > _LONGEST_LINE:
        raise ValueError(f"longer than {_LONGEST_LINE // 2**20} MB, more than any context may be")
    try:
        return from_json(raw.rstrip(), allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"invalid JSON ({str(error).replace('at line 1 column', 'at column')})") from None


def _key(data: Any, field: str) -> str:
    if not isinstance(data, dict) or field not in data:
        raise ValueError(f"no field {field!r} to take the idempotency key from")
    value = data[field]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(
            f"field {field!r} is {json.dumps(value):.60}, and an idempotency key is text or a whole number"
        )
    try:
        check_idempotency_key(value)
    except ValueError as error:
        raise ValueError(f"field {field!r}: {error}") from None
    return value
