"""What a context loses on its way through JSON: the first difference between two objects, values and types alike."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

#: Equal ones of the same type are the same.
_EXACT: Final = frozenset({str, bytes, int, float, bool, type(None)})
#: Equal ones of the same type are the same, and none is unlike itself, as a float may be.
_PLAIN: Final = _EXACT - {float}
#: Types whose value is all there is to them: one that comes back as its base type with the same value has lost nothing.
_VALUES: Final = (str, bytes, int, float, complex, Decimal, date, time, timedelta, UUID, PurePath)


def first_difference(before: Any, after: Any) -> str | None:
    """Return a phrase that names the first place where the two differ, as "payment is Card before and Payment after".

    Compared are types, values, and every attribute, also those that are no fields. Values are never shown.
    """
    return None if plainly_same(before, after) else _Comparison().differ(before, after, "")


class _Attributes:
    """An object that holds its attributes and nothing else."""


def plainly_same(before: Any, after: Any) -> bool:
    """Whether two are made of the same plain values, so that they are written as the same JSON: a quick first look.

    False says nothing: they may be the same all the same.
    """
    try:
        return _plainly_same(before, after)
    except RecursionError:  # nested too deeply, or in a circle
        return False


def _plainly_same(before: Any, after: Any) -> bool:
    kind = type(before)
    if kind is not type(after):
        return False
    if kind in _PLAIN:
        return bool(before == after)
    if kind is list:
        return len(before) == len(after) and all(map(_plainly_same, before, after))
    if kind is dict:
        return _same_items(before, after)
    return _holds_attributes_only(kind) and _same_items(before.__dict__, after.__dict__)


def _same_items(before: dict[Any, Any], after: dict[Any, Any]) -> bool:
    # In the same order, too, in which they are written.
    return (
        len(before) == len(after)
        and all(map(_plainly_same, before, after))
        and all(map(_plainly_same, before.values(), after.values()))
    )


def _holds_attributes_only(kind: type) -> bool:
    """Whether objects of this class are dataclasses without slots, and are not lists or text besides."""
    return (
        dataclasses.is_dataclass(kind)
        and not hasattr(kind, "__slots__")
        and (kind.__basicsize__, kind.__itemsize__) == (_Attributes.__basicsize__, _Attributes.__itemsize__)
    )


class _Comparison:
    def __init__(self) -> None:
        # Attributes that are no fields may refer in a circle.
        self._compared: set[tuple[int, int]] = set()

    def differ(self, before: Any, after: Any, path: str) -> str | None:
        kind = type(before)
        if before is after or (kind in _EXACT and kind is type(after) and before == after):
            return None
        if (pair := (id(before), id(after))) in self._compared:
            return None
        self._compared.add(pair)
        if _class(before) is not _class(after):
            if _same_value(before, after):
                return None
            return f"{path or 'it'} is {kind.__name__} before and {type(after).__name__} after"
        if isinstance(before, dict):
            return self._dicts(before, after, path)
        if isinstance(before, set | frozenset):
            kept = {item: item for item in after}
            return self._each({str(n): (item, kept) for n, item in enumerate(before)}, path, _found) or (
                f"{path or 'it'} differs" if len(before) != len(after) else None
            )
        if isinstance(before, list | tuple | deque):
            if len(before) != len(after):
                return f"{path or 'it'} differs"
            pairs = {str(n): pair for n, pair in enumerate(zip(before, after, strict=True))}
            return self._each(pairs, path, lambda pair: pair)
        return self._objects(before, after, path)

    def _dicts(self, before: dict[Any, Any], after: dict[Any, Any], path: str) -> str | None:
        kept = {key: key for key in after}
        for key, value in before.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in kept:
                return f"{here}, whose key is {type(key).__name__}, is lost"
            if found := self.differ(key, kept[key], f"the key {here}") or self.differ(value, after[key], here):
                return found
        added = next((key for key in after if key not in before), None)
        return None if added is None else f"{path}.{added} is new".lstrip(".")

    def _each(self, parts: Mapping[str, Any], path: str, pair: Callable[[Any], tuple[Any, Any] | None]) -> str | None:
        for name, part in parts.items():
            here = f"{path}.{name}".lstrip(".")
            if (both := pair(part)) is None:
                return f"{here} is lost"
            if found := self.differ(*both, here):
                return found
        return None

    def _objects(self, before: Any, after: Any, path: str) -> str | None:
        has_fields = isinstance(before, BaseModel) or dataclasses.is_dataclass(before)
        if not has_fields and _equal(before, after):
            return None
        mine, kept = _attributes(before), _attributes(after)
        if has_fields or (mine and not isinstance(before, Enum)):
            return self._each({name: (name, mine, kept) for name in mine}, path, _attribute)
        # What has neither equality nor attributes of its own, as a lock, has nothing to lose.
        return None if getattr(type(before), "__eq__", None) is object.__eq__ else f"{path or 'it'} differs"


def _found(part: tuple[Any, dict[Any, Any]]) -> tuple[Any, Any] | None:
    item, kept = part
    return (item, kept[item]) if item in kept else None


def _attribute(part: tuple[str, dict[str, Any], dict[str, Any]]) -> tuple[Any, Any] | None:
    name, mine, kept = part
    return (mine[name], kept[name]) if name in kept else None


def _class(thing: Any) -> type:
    # Box(...) is as good as Box[int](...) for a field of that type.
    generic = getattr(type(thing), "__pydantic_generic_metadata__", None)
    return (generic and generic["origin"]) or type(thing)


def _same_value(before: Any, after: Any) -> bool:
    derived = isinstance(after, _VALUES) and isinstance(before, type(after))
    if not (derived or (isinstance(before, int) and type(after) is float)):
        return False
    return _equal(before, after) and (isinstance(before, Enum) or not _attributes(before))


def _equal(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # an equality of the user's, which may do anything
        return False


def _attributes(thing: Any) -> dict[str, Any]:
    """All that an object holds, fields or not, except what it computes and keeps."""
    kind = type(thing)
    found = {name: value for name, value in getattr(thing, "__dict__", {}).items() if not _dunder(name)}
    for slots in (cls.__dict__.get("__slots__", ()) for cls in kind.__mro__):
        names: Collection[str] = (slots,) if isinstance(slots, str) else tuple(slots)
        found |= {name: getattr(thing, name) for name in names if not _dunder(name) and hasattr(thing, name)}
    if isinstance(thing, BaseModel):
        found |= {**(thing.__pydantic_private__ or {}), **(thing.__pydantic_extra__ or {})}
    return {name: value for name, value in found.items() if not isinstance(getattr(kind, name, None), cached_property)}


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
