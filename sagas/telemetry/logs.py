"""The log lines of this library: each entry is one line, and entries about a saga name it.

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

#: The saga that runs in this context, and its current or last action; the step's own code sees them, too.
working_on: ContextVar[tuple[SagaRecord, Move | None] | None] = ContextVar("sagas_working_on", default=None)


def attributes(work: tuple[SagaRecord, Move | None] | None) -> dict[str, Any]:
    """Return the five attributes; unknown ones are None."""
    saga, move = work or (None, None)
    return {
        "saga_id": None if saga is None else str(saga.id),
        "saga_name": None if saga is None else printable(saga.name),
        "step": None if move is None else printable(move.node.name),
        "action": None if move is None else str(move.action),
        "attempt": None if move is None else move.attempt,
    }


def about(saga_id: UUID, name: str | None = None) -> dict[str, Any]:
    """Return the `extra=` of a line about a saga that does not run in this context."""
    return {"saga_id": str(saga_id), "saga_name": None if name is None else printable(name)}


class SagaAttributes(logging.Filter):
    """Passes every record, and adds the five attributes to records without them, such as those that steps log.

    Add it to a handler, so that it sees the records of all loggers, and name the attributes in the handler's formatter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in attributes(working_on.get()).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class _OneLine(logging.Filter):
    """Escapes a record's message and traceback, so that the text of an error cannot forge another line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = printable(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _quoted(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_quoted, record.args))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = printable_traceback(
                record.exc_info[1]
            )  # logging.Formatter prints this text, if it exists
        return True


def _quoted(value: object) -> object:
    return value if isinstance(value, (int, float)) else printable(value)


def saga_logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose lines carry the five attributes and stay one line each."""
    logger = logging.getLogger(name)
    logger.addFilter(_attributes)
    logger.addFilter(_one_line)
    return logger


_attributes = SagaAttributes()
_one_line = _OneLine()
