"""Data that a step or a wait keeps on its class. A simulated process makes new objects, but no new classes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from numbers import Number
from typing import Final

from sagas.definition import AnySaga, Sleep, Step, Wait, parts_of
from sagas.testing.crashes.snapshot import Content, attributes, content

_DATA: Final = (Mapping, list, set, deque, str, Number)


def class_state(saga: AnySaga, world: object) -> dict[str, Content]:
    """Return the data on the classes of each part by "Class.name", without objects that belong to the world."""
    shared = [world, *attributes(world).values(), *(world.values() if isinstance(world, dict) else ())]
    return {
        part.name: {
            f"{cls.__name__}.{name}": content(value)
            for cls in takewhile(lambda cls: cls not in (Step, Wait, Sleep), part.__mro__)
            for name, value in vars(cls).items()
            if isinstance(value, _DATA) and not name.startswith("__") and not any(value is known for known in shared)
        }
        for part in parts_of(saga)
    }
