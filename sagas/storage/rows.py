"""Between rows and records: what the statements take, and what they return."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.base import QUEUE, Hold, LogEntry, NewSaga, Release, SagaRecord


def new_rows(sagas: Sequence[NewSaga]) -> dict[str, Any]:
    """Return new sagas as one array for each column."""
    return {
        "ids": [saga.id for saga in sagas],
        "names": [saga.name for saga in sagas],
        "keys": [saga.idempotency_key for saga in sagas],
        "definitions": [saga.definition_version for saga in sagas],
        "contexts": [saga.context for saga in sagas],
        "traceparents": [saga.traceparent for saga in sagas],
    }


def new_row(saga: NewSaga) -> dict[str, Any]:
    """Return one new saga."""
    return {
        "new_id": saga.id,
        "name": saga.name,
        "key": saga.idempotency_key,
        "definition": saga.definition_version,
        "context": saga.context,
        "traceparent": saga.traceparent,
    }


def fence(hold: Hold) -> dict[str, Any]:
    """Return what the fence of a write compares."""
    return {"id": hold.saga_id, "version": hold.version, "owner": hold.owner}


def giving_back(release: Release) -> dict[str, Any]:
    """Return what a write that gives a saga back sets."""
    return {
        "status": release.status.value,
        "failed_attempt": release.failed_attempt,
        "max_attempts": release.max_recovery_attempts,
        "interrupted": release.interrupted,
        "last_error": release.last_error,
        "next_owner": QUEUE if release.to_queue else None,
        "after": release.after_seconds,
    }


def note_row(entry: LogEntry) -> dict[str, Any]:
    """Return a row for the log that no holder writes."""
    return {
        "step": entry.step,
        "action": entry.action.value,
        "entry_status": entry.status.value,
        "attempt": entry.attempt,
        "version": entry.version,
        "details": details_of(entry),
    }


def details_of(entry: LogEntry) -> str | None:
    """Return as JSON what a log row tells of a failure or of a person's doing; None if it tells nothing more."""
    details = {
        "verdict": entry.verdict,
        "in_doubt": entry.in_doubt,
        "error_type": entry.error_type,
        "message": entry.message,
        "traceback": entry.traceback,
    }
    if entry.by is not None:
        details |= {"by": entry.by, "because": entry.because}
    elif entry.status is EntryStatus.COMPLETED and not any(details.values()):
        return None
    # Not as escapes of ASCII: PostgreSQL refuses those in a database of another encoding than UTF8.
    return json.dumps(details, ensure_ascii=False)


def in_ascii(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a write's parameters with other characters than ASCII's spelled out in what tells of errors.

    For a database whose encoding cannot hold them.
    """
    details, last_error = parameters.get("details"), parameters.get("last_error")
    if details is not None:
        told = {key: _spelled(value) if isinstance(value, str) else value for key, value in json.loads(details).items()}
        details = json.dumps(told)
    return {**parameters, "details": details, "last_error": last_error and _spelled(last_error)}


def _spelled(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def record_of(row: Mapping[str, Any]) -> SagaRecord:
    """Return the saga that a row describes, with the log if the row has it."""
    values = {name: row[name] for name in _RECORD_FIELDS}
    values["status"] = SagaStatus(row["status"])
    values["log"] = tuple(map(_entry, row.get("log", ())))
    return SagaRecord(**values)


_RECORD_FIELDS: Final = (
    "id",
    "name",
    "context",
    "version",
    "recovery_attempts",
    "lease_owner",
    "available_at",
    "last_error",
    "idempotency_key",
    "definition_version",
    "interrupted",
    "created_at",
    "updated_at",
    "finished_at",
    "traceparent",
)


def _entry(row: Mapping[str, Any]) -> LogEntry:
    details = row["details"] or {}
    verdict = details.get("verdict")
    return LogEntry(
        id=row["id"],
        step=row["step_name"],
        action=Action(row["action"]),
        status=EntryStatus(row["status"]),
        attempt=row["attempt"],
        version=row["version"],
        worker=row["worker"],
        created_at=datetime.fromisoformat(row["created_at"]),
        verdict=Verdict(verdict) if verdict else None,
        in_doubt=bool(details.get("in_doubt")),
        error_type=details.get("error_type"),
        message=details.get("message"),
        traceback=details.get("traceback"),
        by=details.get("by"),
        because=details.get("because"),
    )
