"""Keeps former names working for one release."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, names: Mapping[str, tuple[Any, str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module, which resolves former names and warns.

    Args:
        module: the module's name.
        names: for each former name, the object and the place to import it from now.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value, now = names[name]
        warnings.warn(
            f"{module}.{name} is now called {now}: import {now} instead, before the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    return get
