"""What a test sees of an object: its content as plain data, which can be compared and whose differences can be told."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from numbers import Number
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final
from uuid import UUID

#: A dict, whose keys lead from an object to its parts (".stock", "['lamp']"); a list; or a value.
Content = Any

_ATOMS: Final = (str, int, float, bool, bytes, type(None))
_VALUES: Final = (str, bytes, Number, date, time, timedelta, UUID, Enum)
#: Objects that hold no data of a test's, and lead to half the interpreter.
_OPAQUE: Final = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    BaseException,
    logging.Logger,
    logging.Handler,
    asyncio.AbstractEventLoop,
)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_CLASS: Final = ".__class__"
_ITEMS: Final = ""
_SHOWN_CHARACTERS: Final = 60


class Opaque(str):
    """An object of which nothing is known but its class."""

    __slots__ = ()


def content(value: object, *, exact: bool = False) -> Content:
    """Return what an object holds, at any depth, as plain data of its own.

    Args:
        value: dataclasses, pydantic models, mappings, collections, anything with attributes.
        exact: tell types apart too, such as a subclass of float from float, or a defaultdict from a dict.
    """
    return _Reader(exact).read(value)


def can_see_into(value: object) -> bool:
    """Whether `content` shows more of an object than the classes of its parts."""
    return _shows(content(value))


def is_data(value: object) -> bool:
    """Whether an object is data, such as a number, a list or a dataclass of them, rather than a client or a pool."""
    return _is_data(value, set())


def parts(value: object) -> dict[str, Any]:
    """Return an object's attributes; values that `cached_property` keeps can be had again and are left out."""
    cls: Any = type(value)
    slots, cached = _names(cls)
    found: dict[str, Any] = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    found |= getattr(value, "__dict__", {})
    for extra in ("__pydantic_private__", "__pydantic_extra__"):
        if hasattr(cls, extra):
            found |= getattr(value, extra) or {}
    return {name: part for name, part in found.items() if name not in cached}


def differences(found: Content, expected: Content, path: str) -> Iterator[str]:
    """Tell where content is not as expected, a phrase for each place: "world.stock['lamp'] is 11 instead of 10"."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            where = path + key
            if key not in found:
                yield f"{where} is missing{_value(expected[key])}"
            elif key not in expected:
                yield f"{where} is left over{_value(found[key])}"
            else:
                yield from differences(found[key], expected[key], where)
    elif isinstance(found, list) and isinstance(expected, list):
        yield from _in_lists(found, expected, path)
    else:
        yield f"{path} is {show(found)} instead of {show(expected)}"


def without_notes(known: Content, names: Collection[str]) -> Content:
    """Return content without what only notes any of these names, as a set of requests that were seen does.

    What weighs something stays: of {"name": 3} and a row (name, 0), the first.
    """
    if isinstance(known, list):
        rows = [item for item in known if not (_mentions(item, names) and _is_light(item))]
        return [row if _mentions(row, names) else without_notes(row, names) for row in rows]
    if isinstance(known, dict):
        noted = {key for name in names for key in (f"{{{name!r}}}", f"[{name!r}]")}
        # A row, in whatever way its table is indexed; but no attribute, whatever it holds.
        noted |= {
            key
            for key, part in known.items()
            if key[:1] == "[" and isinstance(part, dict) and _CLASS in part and _mentions(part, names)
        }
        return {
            key: without_notes(part, names) for key, part in known.items() if not (key in noted and _is_light(part))
        }
    return known


def show(value: Content) -> str:
    """Return content as short text."""
    text = _text(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


class _Reader:
    """Reads one object; what it is inside of at the moment is not read again, so that cycles end."""

    def __init__(self, exact: bool) -> None:
        self._exact = exact
        self._inside: set[int] = set()

    def read(self, value: Any) -> Content:
        if type(value) in _ATOMS:
            return value if value == value else "nan"  # noqa: PLR0124
        if id(value) in self._inside:
            return "(itself)"
        self._inside.add(id(value))
        try:
            return self._read(value)
        finally:
            self._inside.discard(id(value))

    def _read(self, value: Any) -> Content:
        if isinstance(value, _VALUES):
            return self._value(value)
        if isinstance(value, Mapping):
            return self._typed(value, dict, {f"[{_key(key)}]": self.read(item) for key, item in self._items(value)})
        if isinstance(value, list | tuple | deque):
            items = [self.read(item) for item in value]
            return items if not self._exact or type(value) is list else self._typed(value, list, {_ITEMS: items})
        if isinstance(value, set | frozenset):
            return self._typed(value, set, {f"{{{_key(item)}}}": True for item in value})
        if not isinstance(value, _OPAQUE):
            known = {f".{name}": self.read(part) for name, part in parts(value).items()}
            if known or hasattr(value, "__dict__"):
                return {_CLASS: type(value).__qualname__, **known}
        return self._value(value)

    def _items(self, value: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        # Reading a defaultdict, or counting down to 0, leaves an entry that says no more than none at all.
        factory = int if isinstance(value, Counter) else getattr(value, "default_factory", None)
        for key, item in value.items():
            if self._exact or factory is None or item != factory():
                yield key, item

    def _typed(self, value: object, usual: type, known: dict[str, Content]) -> Content:
        return {_CLASS: type(value).__qualname__, **known} if self._exact and type(value) is not usual else known

    def _value(self, value: Any) -> Content:
        cls: Any = type(value)
        if cls.__eq__ is object.__eq__ or cls.__hash__ is None:
            shown = repr(value)
            known = _ADDRESS.sub("", shown)
            return known if known == shown else Opaque(known)
        return (cls.__qualname__, value) if self._exact else value


def _shows(known: Content) -> bool:
    if isinstance(known, dict) and _CLASS in known:
        return any(_shows(part) for key, part in known.items() if key != _CLASS)
    return not isinstance(known, Opaque)


def _mentions(known: Content, names: Collection[str]) -> bool:
    values = known.values() if isinstance(known, dict) else known if isinstance(known, list) else [known]
    return any(isinstance(value, str) and value in names for value in values)


def _is_light(known: Content) -> bool:
    if isinstance(known, dict | list):
        return all(map(_is_light, known.values() if isinstance(known, dict) else known))
    return isinstance(known, bool) or not isinstance(known, Number) or not known


def _key(key: Any) -> str:
    # A member of a StrEnum finds what the text finds.
    return repr(str.__str__(key)) if isinstance(key, str) else _ADDRESS.sub("", repr(key))


@lru_cache(maxsize=1000)
def _names(cls: type) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of a class's slots, and of its cached properties."""
    slots: list[str] = []
    cached = set()
    for klass in cls.__mro__:
        own = klass.__dict__.get("__slots__", ())
        slots += (name for name in ([own] if isinstance(own, str) else own) if not name.startswith("__"))
        cached |= {name for name, member in vars(klass).items() if isinstance(member, cached_property)}
    return tuple(slots), frozenset(cached)


def _is_data(value: Any, inside: set[int]) -> bool:
    if value is None or isinstance(value, _VALUES):
        return True
    if id(value) in inside:
        return True
    inside = inside | {id(value)}
    if isinstance(value, Mapping):
        return all(_is_data(item, inside) for item in value.values())
    if isinstance(value, list | tuple | deque | set | frozenset):
        return all(_is_data(item, inside) for item in value)
    if is_dataclass(value) or hasattr(type(value), "model_fields"):
        return not isinstance(value, type) and all(_is_data(part, inside) for part in parts(value).values())
    return False


def _in_lists(found: list[Content], expected: list[Content], path: str) -> Iterator[str]:
    if len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
        return
    extra, missing = _without(found, expected), _without(expected, found)
    if extra:
        yield f"{path} has {', '.join(map(show, extra))} too much"
    if missing:
        yield f"{path} lacks {', '.join(map(show, missing))}"


def _without(items: list[Content], others: list[Content]) -> list[Content]:
    left = list(others)
    return [item for item in items if not _take(left, item)]


def _take(items: list[Content], item: Content) -> bool:
    if item in items:
        items.remove(item)
        return True
    return False


def _value(value: Content) -> str:
    return "" if value is True else f" ({show(value)})"


def _text(value: Content) -> str:
    match value:
        case dict():
            cls: str = value.get(_CLASS, "")
            inner = {key: part for key, part in value.items() if key != _CLASS}
            if _ITEMS in inner:
                return cls + _text(inner[_ITEMS])
            if all(key.startswith("[") for key in inner):
                return cls + "{" + ", ".join(f"{key[1:-1]}: {_text(part)}" for key, part in inner.items()) + "}"
            if all(key.startswith("{") for key in inner):
                return cls + "{" + ", ".join(key[1:-1] for key in inner) + "}"
            return f"{cls}({', '.join(f'{key[1:]}={_text(part)}' for key, part in inner.items())})"
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case (str() as kind, plain):
            return f"{kind} {plain!r}"
        case _:
            return repr(value)
