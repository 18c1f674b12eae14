"""Helpers for your own tests. Each is imported on first use, because some need pytest."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagas.testing.clock import FakeClock
    from sagas.testing.crashes import CrashMatrix, CrashMatrixFailed, Outcome, crash_matrix
    from sagas.testing.storage_contract import StorageContract

__all__ = ["CrashMatrix", "CrashMatrixFailed", "FakeClock", "Outcome", "StorageContract", "crash_matrix"]

_MODULES = {"FakeClock": "clock", "StorageContract": "storage_contract"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"sagas.testing.{_MODULES.get(name, 'crashes')}"), name)
