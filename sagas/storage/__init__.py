"""Where sagas are kept: the contract, and its two implementations."""

from sagas.storage.base import ISagaStorage
from sagas.storage.memory import MemorySagaStorage
from sagas.storage.sqlalchemy import SqlAlchemySagaStorage

__all__ = ["ISagaStorage", "MemorySagaStorage", "SqlAlchemySagaStorage"]
