"""Contexts read from a file of one JSON document a line; each line is good or bad on its own."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO, Final, NoReturn

from sagas.context import MAX_CONTEXT_BYTES
from sagas.definition import AnySaga
from sagas.engine import check_idempotency_key
from sagas.errors import ContextError

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


class _Unusable(Exception):
    """Why a line cannot be used."""


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
            text = _text(raw)
            data = _parse(text)
            context = saga.codec.load(text)
            # start_many refuses a whole batch for one context that cannot be stored.
            saga.codec.dump_checked(context)
            key = None if key_field is None else _key(data, key_field)
        except (_Unusable, ContextError) as error:
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


def _text(raw: bytes) -> str:
    if len(raw) > _LONGEST_LINE:
        raise _Unusable(f"longer than {_LONGEST_LINE // 2**20} MB, more than any context may be")
    try:
        return raw.rstrip().decode()
    except UnicodeDecodeError as error:
        raise _Unusable(f"not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _Unusable(f"invalid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise _Unusable("invalid JSON (nested too deeply)") from None
    except ValueError as error:
        raise _Unusable(f"invalid JSON ({str(error).partition(':')[0]})") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise _Unusable(f"invalid JSON ({constant} is not a JSON value)")


def _key(data: Any, field: str) -> str:
    if not isinstance(data, dict) or field not in data:
        raise _Unusable(f"no field {field!r} to take the idempotency key from")
    value = data[field]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _Unusable(f"field {field!r} is {json.dumps(value):.60}, and an idempotency key is text or a whole number")
    try:
        check_idempotency_key(value)
    except ValueError as error:
        raise _Unusable(f"field {field!r}: {error}") from None
    return value
