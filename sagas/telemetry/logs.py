"""What every log line about a saga carries, as attributes of its record: saga_id, saga_name, step, action, attempt."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from sagas.progress import Perform
    from sagas.storage.base import SagaRecord

#: The saga that is being worked on here, and what is done or was done last; the step's own code sees it too.
working_on: ContextVar[tuple[SagaRecord, Perform | None] | None] = ContextVar("sagas_working_on", default=None)


def attributes(work: tuple[SagaRecord, Perform | None] | None) -> dict[str, Any]:
    """Return the five attributes, None for those that nothing is known of."""
    saga, move = work or (None, None)
    return {
        "saga_id": None if saga is None else str(saga.id),
        "saga_name": None if saga is None else saga.name,
        "step": None if move is None else move.step.name,
        "action": None if move is None else str(move.action),
        "attempt": None if move is None else move.attempt,
    }


def about(saga_id: UUID, name: str | None = None) -> dict[str, Any]:
    """Return the `extra=` of a line about a saga that is not being worked on here."""
    return {"saga_id": str(saga_id), "saga_name": name}


class SagaAttributes(logging.Filter):
    """Lets every record through, and adds the five attributes to those that lack them: to what steps log themselves.

    Add it to a handler, so that it sees the records of all loggers, and name the attributes in the handler's formatter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in attributes(working_on.get()).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def saga_logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose own lines carry the five attributes."""
    logger = logging.getLogger(name)
    logger.addFilter(_attributes)
    return logger


_attributes = SagaAttributes()
