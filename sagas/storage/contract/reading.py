"""Reading sagas, by id, by key or by a filter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from uuid import UUID

from sagas.storage.records import SagaHead, SagaRecord
from sagas.storage.saga_filter import SagaFilter


class Reading(ABC):
    """Reads sagas."""

    @abstractmethod
    def load(self, saga_id: UUID) -> SagaRecord:
        """Return the saga with its log.

        Raises:
            SagaNotFound: no saga has this id.
        """

    def head(self, saga_id: UUID) -> SagaHead:
        """Return a saga without its context and log. Override it if the storage can read that for less than `load`.

        Raises:
            SagaNotFound: no saga has this id.
        """
        saga = self.load(saga_id)
        return SagaHead(
            id=saga.id,
            name=saga.name,
            status=saga.status,
            state=saga.state,
            definition=saga.definition,
            definition_version=saga.definition_version,
        )

    @abstractmethod
    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        """Return the sagas that a filter wants, without their logs. The newest are first: the greatest ids.

        A storage may rely on `new_saga_id`: an id begins with the time of its start, by a clock that differs from the
        storage's by less than an hour.

        Raises:
            ValueError: the limit is not a whole number of 1 or more.
        """

    @abstractmethod
    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        """Return the id of the saga of this name that was started with this key, or None."""
