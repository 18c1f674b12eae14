"""The type arguments of classes."""

from __future__ import annotations

from typing import Any, TypeVar, get_args, get_origin


def type_argument(cls: type, generic: type) -> Any:
    """Return what stands in the brackets of a generic base class, as `Wait[Accepted]`; None if nothing does."""
    # Look at the bases of every parent: the original bases of a generic mixin would hide those of the class.
    for base in (base for parent in cls.__mro__ for base in parent.__dict__.get("__orig_bases__", ())):
        if isinstance(get_origin(base), type) and issubclass(get_origin(base), generic):
            (argument,) = get_args(base)
            if not isinstance(argument, TypeVar):
                return argument
    return None
