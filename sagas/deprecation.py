"""Names that are gone, and still work for one release."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, names: Mapping[str, tuple[Any, str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that still answers to former names.

    Args:
        module: its name.
        names: for each former name what it stands for, and where that is to be imported from now.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value, now = names[name]
        warnings.warn(
            f"{module}.{name} goes with the next release: import {now} instead.", DeprecationWarning, stacklevel=2
        )
        return value

    return get
