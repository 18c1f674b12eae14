"""Sagas as plain data, for `--json`: every field by the name it has in the database, times in ISO 8601 and UTC."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sagas.storage.records import LogEntry, Pause, SagaRecord


def summary_as_json(record: SagaRecord) -> dict[str, Any]:
    """Return what a listing tells of a saga."""
    return {
        "id": str(record.id),
        "name": record.name,
        "status": str(record.status),
        "dead": record.dead,
        "recovery_attempts": record.recovery_attempts,
        "lease_owner": record.lease_owner,
        "available_at": iso(record.available_at),
        "last_error": record.last_error,
        "idempotency_key": record.idempotency_key,
        "version": record.version,
        "interrupted": record.interrupted,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
        "finished_at": iso(record.finished_at),
    }


def saga_as_json(record: SagaRecord) -> dict[str, Any]:
    """Return everything that is stored of a saga, with its context and log."""
    return {
        **summary_as_json(record),
        "definition_version": record.definition_version,
        "traceparent": record.traceparent,
        "context": json.loads(record.context),
        "log": [_entry_as_json(entry) for entry in record.log],
    }


def pause_as_json(pause: Pause) -> dict[str, Any]:
    """Return a saga name that is paused."""
    return {"name": pause.name, "by": pause.by, "because": pause.because, "since": iso(pause.since)}


def _entry_as_json(entry: LogEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "step_name": entry.step,
        "action": str(entry.action),
        "status": str(entry.status),
        "attempt": entry.attempt,
        "verdict": None if entry.verdict is None else str(entry.verdict),
        "in_doubt": entry.in_doubt,
        "error_type": entry.error_type,
        "message": entry.message,
        "traceback": entry.traceback,
        "by": entry.by,
        "because": entry.because,
        "worker": entry.worker,
        "version": entry.version,
        "created_at": iso(entry.created_at),
    }


def iso(moment: datetime | None) -> str | None:
    """Return the time in ISO 8601 and UTC."""
    return None if moment is None else moment.astimezone(UTC).isoformat()
