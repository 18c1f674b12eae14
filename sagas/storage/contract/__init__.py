"""The storage contract: what an engine needs from a database, and what it may rely on.

Every write of a holder is *fenced*: it names the lease (saga, version, token) under which it is made, and changes
nothing once another worker has acquired the saga. All times are the storage's own. `sagas.storage.rules` has the rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from sagas.storage.contract.attempts import Attempts
from sagas.storage.contract.dispatching import Dispatching
from sagas.storage.contract.holding import Holding
from sagas.storage.contract.outbox import Outbox
from sagas.storage.contract.pausing import Pausing
from sagas.storage.contract.reading import Reading
from sagas.storage.contract.schedules import Schedules
from sagas.storage.contract.signals import Signals
from sagas.storage.contract.starting import Starting

__all__ = ["ISagaStorage"]


class ISagaStorage(Attempts, Starting, Reading, Signals, Holding, Dispatching, Outbox, Pausing, Schedules, ABC):
    """Stores sagas for an engine. Subclass it, and test the subclass with `sagas.testing.StorageContract`.

    Raises:
        TypeError: a subclass that lacks a method is constructed; the message names every missing one.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise TypeError(
                f"{cls.__name__} lacks {', '.join(f'{name}()' for name in missing)}, which every saga storage must "
                "have: add it as docs/storage.md describes (see its upgrade notes)."
            )
        return super().__new__(cls)

    @abstractmethod
    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        """Delete up to `limit` finished sagas that ended longer ago than this; return how many."""

    @abstractmethod
    def check_schema(self) -> None:
        """Make sure that the stored layout is the one this code needs.

        Raises:
            SchemaBehind: it is older; the message gives the command to run.
        """
