"""The log lines of this library: each is one line, and those about a saga say which.

Records carry five attributes: saga_id, saga_name, step, action, attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sagas.text import printable, printable_traceback

if TYPE_CHECKING:
    from uuid import UUID

    from sagas.progress import Move
    from sagas.storage.records import SagaRecord

#: The saga that is being worked on here, and what is done or was done last; the step's own code sees it too.
working_on: ContextVar[tuple[SagaRecord, Move | None] | None] = ContextVar("sagas_working_on", default=None)


def attributes(work: tuple[SagaRecord, Move | None] | None) -> dict[str, Any]:
    """Return the five attributes, None for those that nothing is known of."""
    saga, move = work or (None, None)
    return {
        "saga_id": None if saga is None else str(saga.id),
        "saga_name": None if saga is None else printable(saga.name),
        "step": None if move is None else printable(move.node.name),
        "action": None if move is None else str(move.action),
        "attempt": None if move is None else move.attempt,
    }


def about(saga_id: UUID, name: str | None = None) -> dict[str, Any]:
    """Return the `extra=` of a line about a saga that is not being worked on here."""
    return {"saga_id": str(saga_id), "saga_name": None if name is None else printable(name)}


class SagaAttributes(logging.Filter):
    """Lets every record through, and adds the five attributes to those that lack them: to what steps log themselves.

    Add it to a handler, so that it sees the records of all loggers, and name the attributes in the handler's formatter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in attributes(working_on.get()).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class _OneLine(logging.Filter):
    """Escapes what a record's message and traceback quote, so that an error's text can forge no further line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = printable(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _quoted(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_quoted, record.args))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = printable_traceback(record.exc_info[1])  # what logging.Formatter prints, if it is there
        return True


def _quoted(value: object) -> object:
    return value if isinstance(value, (int, float)) else printable(value)


def saga_logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose own lines carry the five attributes and stay one line each."""
    logger = logging.getLogger(name)
    logger.addFilter(_attributes)
    logger.addFilter(_one_line)
    return logger


_attributes = SagaAttributes()
_one_line = _OneLine()
