"""What you import in your own tests.

`StorageContract` needs pytest, so it is imported only when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagas.testing.storage_contract import StorageContract

__all__ = ["StorageContract"]


def __getattr__(name: str) -> Any:
    if name == "StorageContract":
        from sagas.testing.storage_contract import StorageContract

        return StorageContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
