"""Where sagas are kept: the contract, and its two implementations."""

from typing import TYPE_CHECKING

from sagas.deprecation import former_names
from sagas.storage.contract import ISagaStorage
from sagas.storage.memory import MemorySagaStorage
from sagas.storage.postgres import PostgresSagaStorage

__all__ = ["ISagaStorage", "MemorySagaStorage", "PostgresSagaStorage"]

if TYPE_CHECKING:
    SqlAlchemySagaStorage = PostgresSagaStorage
else:
    __getattr__ = former_names(
        __name__, {"SqlAlchemySagaStorage": (PostgresSagaStorage, "sagas.storage.PostgresSagaStorage")}
    )
