"""Where sagas are kept: the contract, and its two implementations."""

from sagas.storage.contract import ISagaStorage
from sagas.storage.memory import MemorySagaStorage
from sagas.storage.postgres import PostgresSagaStorage

__all__ = ["ISagaStorage", "MemorySagaStorage", "PostgresSagaStorage"]
