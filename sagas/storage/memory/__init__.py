"""Sagas in memory."""

from sagas.storage.memory.storage import MemorySagaStorage

__all__ = ["MemorySagaStorage"]
