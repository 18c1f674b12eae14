"""Read the content of an object as plain data, which can be kept, compared, and described where it differs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections import Counter, deque
from collections.abc import Collection, Mapping
from datetime import date, time, timedelta
from enum import Enum
from functools import cached_property, partial
from numbers import Number
from pathlib import PurePath
from types import ModuleType, NoneType
from typing import Any, Final
from uuid import UUID

#: A dict whose keys lead from an object to its parts (".stock", "['lamp']"), a list, or a value.
Content = Any

_VALUES: Final = (str, bytes, Number, date, time, timedelta, UUID, Enum, PurePath, NoneType)
#: Objects that hold no data of a test, and refer to large parts of the interpreter.
_OPAQUE: Final = (type, ModuleType, BaseException, logging.Filterer, asyncio.AbstractEventLoop)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_CLASS: Final = ".__class__"
_MISSING: Final = object()
_SHOWN_CHARACTERS: Final = 60


class Opaque(str):
    """An object of which only the class is read."""

    __slots__ = ()


def content(value: Any, _inside: frozenset[int] = frozenset()) -> Content:
    """Return the content of an object at any depth: dataclasses, models, collections, any object with attributes."""
    if isinstance(value, _VALUES):
        return value if value == value else "nan"  # noqa: PLR0124
    if id(value) in _inside:
        return "(itself)"
    read = partial(content, _inside=_inside | {id(value)})
    if isinstance(value, Mapping):
        # Reading a defaultdict, or counting down to 0, leaves an entry that means the same as no entry.
        default = int if isinstance(value, Counter) else getattr(value, "default_factory", None)
        kept = {key: item for key, item in value.items() if default is None or item != default()}
        return {f"[{_key(key)}]": read(item) for key, item in kept.items()}
    if isinstance(value, list | tuple | deque):
        return [read(item) for item in value]
    if isinstance(value, set | frozenset):
        return {f"{{{_key(item)}}}": True for item in value}
    if not (isinstance(value, _OPAQUE) or inspect.isroutine(value)):
        parts = attributes(value)
        if parts or hasattr(value, "__dict__"):
            return {_CLASS: type(value).__qualname__, **{f".{name}": read(part) for name, part in parts.items()}}
    cls: Any = type(value)
    if cls.__eq__ is object.__eq__ or cls.__hash__ is None:
        return Opaque(_ADDRESS.sub("", repr(value)))
    return value


def shows_data(known: Content) -> bool:
    """Whether the content has more than the classes of an object's parts."""
    if isinstance(known, dict) and _CLASS in known:
        return any(shows_data(part) for key, part in known.items() if key != _CLASS)
    return not isinstance(known, Opaque)


def attributes(value: object) -> dict[str, Any]:
    """Return an object's attributes and slots, without values of `cached_property`, which can be computed again."""
    # Do not use value.__getstate__(): a class may omit values there that cannot be pickled.
    state: Any = object.__getstate__(value)
    own, slots = state if isinstance(state, tuple) else (state, None)
    found: dict[str, Any] = {**(own or {}), **(slots or {})}
    for extra in ("__pydantic_private__", "__pydantic_extra__"):
        found |= found.pop(extra, None) or {}
    found.pop("__pydantic_fields_set__", None)
    return {name: part for name, part in found.items() if not _is_cached(type(value), name)}


def differences(found: Content, expected: Content, path: str) -> list[str]:
    """Describe each difference, such as "world.stock['lamp'] is 11 instead of 10"."""
    if found == expected:
        return []
    if isinstance(found, list) and isinstance(expected, list):
        found, expected = ({f"[{i}]": item for i, item in enumerate(items)} for items in (found, expected))
    if isinstance(found, dict) and isinstance(expected, dict):
        pairs = {key: (found.get(key, _MISSING), expected.get(key, _MISSING)) for key in {**expected, **found}}
        return [phrase for key, pair in pairs.items() for phrase in differences(*pair, path + key)]
    if found is _MISSING:
        return [f"{path} is missing{_value(expected)}"]
    if expected is _MISSING:
        return [f"{path} is left over{_value(found)}"]
    return [f"{path} is {_show(found)} instead of {_show(expected)}"]


def without_notes(known: Content, names: Collection[str]) -> Content:
    """Return content without entries that only record one of these names, such as in a set of processed requests.

    An entry with a number other than 0 stays: {"name": 3} stays, and a row ("name", 0) is removed.
    """

    def mentions(known: Content) -> bool:
        return any(isinstance(value, str) and value in names for value in _values(known))

    def is_note(key: str, part: Content) -> bool:
        is_row = isinstance(part, dict) and _CLASS in part
        # An attribute stays with any value.
        return not key.startswith(".") and _is_light(part) and (key[1:-1] in quoted or (is_row and mentions(part)))

    quoted = {repr(name) for name in names}
    if isinstance(known, list):
        return [without_notes(part, names) for part in known if not (_is_light(part) and mentions(part))]
    if isinstance(known, dict):
        return {key: without_notes(part, names) for key, part in known.items() if not is_note(key, part)}
    return known


def _is_light(known: Content) -> bool:
    if isinstance(known, dict | list):
        return all(map(_is_light, _values(known)))
    return isinstance(known, bool) or not isinstance(known, Number) or not known


def _values(known: Content) -> Collection[Content]:
    return known.values() if isinstance(known, dict) else known if isinstance(known, list) else [known]


def _is_cached(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), cached_property)


def _key(key: Any) -> str:
    # A member of a StrEnum equals its text.
    return repr(str.__str__(key)) if isinstance(key, str) else _ADDRESS.sub("", repr(key))


def _value(value: Content) -> str:
    return "" if value is True else f" ({_show(value)})"


def _show(value: Content) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
