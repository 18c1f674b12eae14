"""What you import in your own tests.

`StorageContract` needs pytest, so it is imported only when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagas.testing.clock import FakeClock
from sagas.testing.crashes import CrashMatrix, CrashMatrixFailed, Outcome, crash_matrix

if TYPE_CHECKING:
    from sagas.testing.storage_contract import StorageContract

__all__ = ["CrashMatrix", "CrashMatrixFailed", "FakeClock", "Outcome", "StorageContract", "crash_matrix"]


def __getattr__(name: str) -> Any:
    if name == "StorageContract":
        from sagas.testing.storage_contract import StorageContract

        return StorageContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
