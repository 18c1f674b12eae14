"""Data that a step keeps on its class. A simulated process starts with new steps, but not with new classes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from numbers import Number
from typing import Final

from sagas.definition import AnySaga, Step, steps_of
from sagas.testing.crashes.snapshot import Content, attributes, content

_DATA: Final = (Mapping, list, set, deque, str, Number)


def class_state(saga: AnySaga, world: object) -> dict[str, Content]:
    """Return the data on the classes of each step by "Class.name", without objects that belong to the world."""
    shared = [world, *attributes(world).values(), *(world.values() if isinstance(world, dict) else ())]
    return {
        step.name: {
            f"{cls.__name__}.{name}": content(value)
            for cls in takewhile(lambda cls: cls is not Step, step.__mro__)
            for name, value in vars(cls).items()
            if isinstance(value, _DATA) and not name.startswith("__") and not any(value is part for part in shared)
        }
        for step in steps_of(saga)
    }
