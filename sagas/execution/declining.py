"""Giving a saga back that this process's code does not fit."""

from __future__ import annotations

from typing import Final

from sagas.errors import LeaseLost
from sagas.execution.commands import Apply, Loop
from sagas.execution.entries import cut
from sagas.execution.report import Outcome, Report
from sagas.progress import Action, EntryStatus
from sagas.runtime import Runtime
from sagas.storage.answers import Acquired
from sagas.storage.records import LogEntry
from sagas.storage.transitions import GaveBack
from sagas.telemetry.logs import about, saga_logger

logger = saga_logger(__name__)

#: The saga is left alone for as long as it has been stuck, between these bounds.
SECONDS: Final = (5.0, 60.0)


def decline(acquired: Acquired, runtime: Runtime, reason: str) -> Loop:
    """Give a saga back: as it was, no attempt spent, the reason kept."""
    record = acquired.record
    entry = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.DECLINED, message=cut(reason))
    known = record.log[-1] if record.log else None
    said = known is not None and (known.status, known.message) == (entry.status, entry.message)
    moved = (e.created_at for e in record.log if e.created_at and e.status is not EntryStatus.DECLINED)
    shortest, longest = SECONDS
    stuck = (record.updated_at - max(moved, default=record.created_at)).total_seconds()
    after = min(longest, max(shortest, stuck)) * (1 - 0.1 * runtime.random())
    outcome, message = Outcome.DECLINED, f"left as it was for {after:.0f} s, no attempt spent: {reason}"
    try:
        yield Apply(
            GaveBack(
                status=acquired.status_before,
                after_seconds=after,
                # Once is enough: a saga may be declined every minute for days.
                events=() if said else (entry,),
                last_error=f"declined: {reason}",
            )
        )
    except LeaseLost as error:
        outcome, message = Outcome.LOST, str(error)
    logger.warning(
        "saga %s (%s): %s: %s", record.id, record.name, outcome, message, extra=about(record.id, record.name)
    )
    runtime.observer.given_back(record, outcome)
    return Report.of(record, outcome, message, status=acquired.status_before)
