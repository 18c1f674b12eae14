"""What a link may still do, and doing it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sagas.callbacks.links import Link
from sagas.engine import SagaEngine
from sagas.errors import LogDoesNotFit, SagaNotFound, SignalRefused, UnknownSaga
from sagas.plan import plan_for
from sagas.progress import Action, EntryStatus, SagaStatus
from sagas.signals import new_signal
from sagas.storage.records import SagaRecord, SignalKind
from sagas.telemetry.logs import about, saga_logger

logger = saga_logger(__name__)


class Standing(StrEnum):
    """OPEN: it can be answered. CLOSED: not any more. UNKNOWN: its saga is not in this database."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


def standing_of(link: Link, engine: SagaEngine) -> Standing:
    """Return whether a link can be answered.

    Raises:
        StorageUnavailable: the database does not answer.
    """
    try:
        record = engine.storage.load(link.saga_id)
        if link.expired or _is_over(record, link.wait, engine) or _was_used(link, engine):
            return Standing.CLOSED
        head = engine.storage.head(link.saga_id)
        for payload in link.choices.values():
            new_signal(head, link.wait, payload, definitions=engine.definitions)
    except SagaNotFound:
        return Standing.UNKNOWN
    except SignalRefused as error:
        _report(link, error)
        return Standing.CLOSED
    return Standing.OPEN


async def answer(link: Link, payload: Any, engine: SagaEngine) -> Standing:
    """Send the answer, and return whether the link was open until then.

    Raises:
        StorageUnavailable: the database does not answer.
    """
    try:
        is_new = await engine.signal_async(
            link.saga_id, link.wait, payload, signal_id=link.signal_id, actor="callback link"
        )
    except SagaNotFound:
        return Standing.UNKNOWN
    except SignalRefused as error:
        _report(link, error)
        return Standing.CLOSED
    return Standing.OPEN if is_new else Standing.CLOSED


def _was_used(link: Link, engine: SagaEngine) -> bool:
    return any(
        signal.kind is SignalKind.SIGNAL and (signal.name, signal.signal_id) == (link.wait, link.signal_id)
        for signal in engine.storage.signals(link.saga_id)
    )


def _is_over(record: SagaRecord, wait: str, engine: SagaEngine) -> bool:
    """Whether the saga waits for this no longer, and will not."""
    if record.status.finished or record.status is SagaStatus.COMPENSATING:
        return True
    ended = {entry.step for entry in record.log if entry.action is Action.ACT and entry.status is not EntryStatus.ARMED}
    return not ended.isdisjoint(_names(record, wait, engine))


def _names(record: SagaRecord, wait: str, engine: SagaEngine) -> set[str]:
    """Return every name of a wait: the one in the link may be older or newer than the one in the log."""
    try:
        parts = plan_for(*engine.definitions.fitting(record)).steps
    except (UnknownSaga, LogDoesNotFit):
        return {wait}
    every = ({stored, part.name, *part.aliases} for stored, part in parts.items())
    return next((names for names in every if wait in names), {wait})


def _report(link: Link, error: SignalRefused) -> None:
    logger.warning("a callback link cannot be answered: %s", error, extra=about(link.saga_id))
