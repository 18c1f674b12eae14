"""The names of sagas and of their parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sagas.errors import DefinitionError
from sagas.storable import is_storable

MAX_NAME_LENGTH = 255


def own_name(cls: type) -> str:
    """Return the name that this class itself gives, or one made from the class's name. A name is not inherited."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__)
    name: str = cls.__dict__.get("name", words.lower())
    if not is_name(name):
        raise DefinitionError(
            f"{cls.__name__}: name is {name!r}: give text of 1 to {MAX_NAME_LENGTH} characters without NUL, "
            "and without halves of surrogate pairs."
        )
    return name


def is_name(name: object) -> bool:
    """Whether a value can be a name."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and is_storable(name)


def own_aliases(cls: type[Any]) -> tuple[str, ...]:
    """Return the former names that this class itself gives. They are not inherited either."""
    aliases = cls.__dict__.get("aliases", ())
    if isinstance(aliases, str) or not isinstance(aliases, Sequence) or not all(map(is_name, aliases)):
        raise DefinitionError(
            f"{cls.__name__}: aliases is {aliases!r}: give a list of the former names, as ('reserve-stock',)."
        )
    if len({cls.name, *aliases}) <= len(aliases):
        raise DefinitionError(
            f"{cls.__name__}: its name {cls.name!r} and its aliases {', '.join(map(repr, aliases))} name one thing "
            "twice: list each former name once, and not the present one."
        )
    return tuple(aliases)
