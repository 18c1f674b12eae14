"""Turns a filter of sagas into the parameters of `find.sql`, which the storage and the inspector execute."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter

#: Milliseconds. The clocks of machines that start sagas differ from the database's by less, so a range of ids finds
#: the sagas that were started within a time.
_CLOCKS_DIFFER: Final = 3_600_000

#: The indexes that have the unfinished sagas of each state (`sagas.storage.tables`).
_INDEXES: Final = {
    SagaState.READY: ("unstarted", "due"),
    SagaState.RUNNING: ("due",),
    SagaState.WAITING: ("due",),
    SagaState.QUEUED: ("queued",),
    SagaState.PAUSED: ("stopped",),
    SagaState.DEAD: ("stopped",),
}


def filter_row(wanted: SagaFilter, *, leased_by: str | None = None, error: str | None = None) -> dict[str, Any]:
    """Return the parameters of a filter.

    Args:
        wanted: the filter.
        leased_by: a whole lease owner, or the node that it begins with.
        error: text of the last error of an unfinished saga.
    """
    # No saga was created after its last write.
    ends = [moment for moment in (wanted.created_before, wanted.updated_before) if moment is not None]
    return {
        "statuses": [status.value for status in wanted.statuses] or None,
        "states": [state.value for state in wanted.states] or None,
        "name": wanted.name,
        "key": wanted.key,
        "tags": json.dumps(dict(wanted.tags), ensure_ascii=False) if wanted.tags else None,
        "leased_by": leased_by,
        "error": error,
        "after": wanted.after,
        "first_id": None if wanted.created_after is None else _id_at(wanted.created_after, -_CLOCKS_DIFFER),
        "last_id": _id_at(min(ends), _CLOCKS_DIFFER) if ends else None,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "updated_after": wanted.updated_after,
        "updated_before": wanted.updated_before,
        "indexes": ["due"] if leased_by is not None else _indexes(wanted, unfinished=error is not None),
        "limit": wanted.limit,
    }


def _indexes(wanted: SagaFilter, *, unfinished: bool) -> list[str] | None:
    """Return the indexes of unfinished sagas that can have a match; None if finished sagas can match too."""
    states = wanted.states
    if not states and wanted.statuses and not any(status.finished for status in wanted.statuses):
        unfinished = True
    if unfinished:
        states = [state for state in states or SagaState if state is not SagaState.FINISHED]
        if not states:
            return []  # no unfinished saga is finished
    if not states or SagaState.FINISHED in states:
        return None
    return sorted({index for state in states for index in _INDEXES[state]})


def _id_at(moment: datetime, shift: int) -> UUID:
    """Return the first id of a time, moved by some milliseconds: an id begins with the milliseconds since 1970."""
    milliseconds = round(moment.timestamp() * 1000) + shift
    return UUID(int=max(0, milliseconds) << 80)
