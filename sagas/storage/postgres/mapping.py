"""Between rows and records: what the statements take, and what they return."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sagas.outbox import EnqueuedTask, OutboxTask
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease, LeaseRequest, is_shared
from sagas.storage.records import Claim, LogEntry, NewSaga, SagaHead, SagaRecord, SagaState, Signal, SignalKind
from sagas.storage.transitions import PROBE_SECONDS, Ended, Progressed, Transition, change_of, outbox_of

# -- what statements take -------------------------------------------------------------------------------------


def new_row(saga: NewSaga) -> dict[str, Any]:
    """Return one new saga."""
    return {
        "new_id": saga.id,
        "name": saga.name,
        "key": saga.idempotency_key,
        "definition": saga.definition,
        "definition_version": saga.definition_version,
        "context": saga.context,
        "traceparent": saga.traceparent,
        "tag": None if saga.tags is None else json.dumps(dict(saga.tags), ensure_ascii=False),
        "deadline": None if saga.deadline_seconds is None else str(saga.deadline_seconds),
    }


def new_rows(sagas: Sequence[NewSaga]) -> dict[str, Any]:
    """Return new sagas as one array for each column."""
    rows = [new_row(saga) for saga in sagas]
    return {("ids" if column == "new_id" else f"{column}s"): [row[column] for row in rows] for column in _NEW_COLUMNS}


_NEW_COLUMNS: Final = (
    *("new_id", "name", "key", "definition", "definition_version", "context", "traceparent", "tag", "deadline"),
)


def start_row(
    *, queued: bool, lease: LeaseRequest | None, at: datetime | None = None, after_seconds: float = 0.0
) -> dict[str, Any]:
    """Return what new sagas begin with: free, queued, or under their first lease; and when they are due."""
    state = SagaState.QUEUED if queued else SagaState.READY
    return {
        "status": (SagaStatus.RUNNING if lease else SagaStatus.PENDING).value,
        "state": (SagaState.RUNNING if lease else state).value,
        "version": 1 if lease else 0,
        "owner": lease.owner if lease else None,
        "token": lease.token if lease else None,
        "seconds": lease.seconds if lease else PROBE_SECONDS if queued else after_seconds,
        "at": None if at is None else at.isoformat(),
        "after": after_seconds,
    }


def signal_row(signal: Signal) -> dict[str, Any]:
    """Return a signal, as every driver can write it."""
    return {
        "saga": str(signal.saga_id),
        "kind": signal.kind.value,
        "name": signal.name,
        "signal": signal.signal_id,
        "payload": signal.payload,
        "actor": signal.actor,
        "reason": signal.reason,
    }


def acquire_row(
    saga_id: UUID, request: LeaseRequest, max_recovery_attempts: int, version: int | None, *, by_hand: bool
) -> dict[str, Any]:
    """Return what an acquire is asked with."""
    return {
        "id": saga_id,
        "owner": request.owner,
        "shared": is_shared(request.owner),
        "token": request.token,
        "lease": request.seconds,
        "max_attempts": max_recovery_attempts,
        "version": version,
        "by_hand": by_hand,
    }


def fence(lease: Lease) -> dict[str, Any]:
    """Return what the fence of a write compares."""
    return {"id": lease.saga_id, "version": lease.version, "token": lease.token}


def written(lease: Lease, transition: Transition) -> tuple[str, dict[str, Any]]:
    """Return the name of the statement that writes a transition, and its parameters."""
    return short_row(lease, transition) or ("apply", apply_row(lease, transition))


def short_row(lease: Lease, transition: Transition) -> tuple[str, dict[str, Any]] | None:
    """Return the short statement for a transition, and its parameters; None if `apply` has to write it.

    There is one for going on with one node, and one for the end, after one action that completed.
    """
    if len(transition.events) != 1 or outbox_of(transition) or not _plainly_completed(transition.events[0]):
        return None
    own: dict[str, Any]
    match transition:
        case Progressed(in_flight=(following,), seen=None):
            statement, own = "apply_progress", {"next": following}
        case Ended(status=status, seen=seen):
            statement, own = "apply_end", {"clears_error": status is SagaStatus.COMPLETED, "seen": seen}
        case _:
            return None
    (entry,) = transition.events
    return statement, {
        **own,
        **fence(lease),
        "owner": lease.owner,
        "status": transition.status.value,
        "context": transition.context,
        "step": entry.step,
        "action": entry.action.value,
        "attempt": entry.attempt,
    }


def _plainly_completed(entry: LogEntry) -> bool:
    return (
        entry.status is EntryStatus.COMPLETED
        and (entry.action is Action.ACT or entry.action is Action.COMPENSATE)
        and entry.error_type is entry.message is entry.traceback is entry.actor is entry.reason is None
        and entry.verdict is None
        and entry.in_flight is None
        and not entry.in_doubt
        and not entry.schedules
        and entry.signal is None
    )


def apply_row(lease: Lease, transition: Transition) -> dict[str, Any]:
    """Return any transition."""
    change = change_of(transition)
    return {
        **fence(lease),
        "owner": lease.owner,
        "status": change.status.value,
        "state": change.state.value,
        # A float, because the driver writes no array of mixed types.
        "after": None if change.after_seconds is None else float(change.after_seconds),
        "resets": change.resets,
        "counts": change.counts,
        "max_attempts": change.max_recovery_attempts,
        "context": change.context,
        "in_flight": None if change.in_flight is None else _array(change.in_flight),
        "last_error": change.last_error,
        "clears_error": change.clears_error,
        "seen": change.seen,
        "events": events_json(transition.events),
        "outbox": outbox_json(outbox_of(transition)),
    }


def apply_rows(asked: Sequence[tuple[Lease, Transition]]) -> dict[str, Any]:
    """Return transitions of many sagas as one array for each column."""
    rows = [apply_row(lease, transition) for lease, transition in asked]
    for row, (_, transition) in zip(rows, asked, strict=True):
        in_flight = change_of(transition).in_flight
        row["in_flight"] = None if in_flight is None else json.dumps(in_flight, ensure_ascii=False)
    return {plural: [row[column] for row in rows] for column, plural in _APPLY_COLUMNS.items()}


_APPLY_COLUMNS: Final = {
    "id": "ids",
    "version": "versions",
    "token": "tokens",
    "owner": "owners",
    "status": "statuses",
    "state": "states",
    "after": "afters",
    "resets": "resets",
    "counts": "counts",
    "max_attempts": "max_attempts",
    "context": "contexts",
    "in_flight": "in_flights",
    "last_error": "last_errors",
    "clears_error": "clear_errors",
    "seen": "seens",
    "events": "events",
}


def outbox_json(tasks: Sequence[EnqueuedTask]) -> str:
    """Return tasks for the outbox as a JSON array; their arguments are JSON already."""
    rows = (f'{{"task":{json.dumps(each.task, ensure_ascii=False)},"arguments":{each.arguments}}}' for each in tasks)
    return f"[{','.join(rows)}]"


def events_json(events: Sequence[LogEntry]) -> str:
    """Return rows for the log as a JSON array."""
    return json.dumps(
        [
            {
                "step": entry.step,
                "action": str(entry.action),
                "status": str(entry.status),
                "attempt": entry.attempt,
                "version": entry.version,
                "worker": entry.worker,
                "details": details_of(entry),
            }
            for entry in events
        ],
        # Not as escapes of ASCII: PostgreSQL refuses those in a database of another encoding than UTF8.
        ensure_ascii=False,
    )


def details_of(entry: LogEntry) -> dict[str, Any] | None:
    """Return what a log row says beyond its columns; None if nothing."""
    details = {key: getattr(entry, name) for name, key in _DETAILS.items()}
    return {key: value for key, value in details.items() if value not in (None, False)} or None


#: The fields of a log row that are stored in `details`, and their keys there.
_DETAILS: Final = {
    "verdict": "verdict",
    "in_doubt": "in_doubt",
    "in_flight": "in_flight",
    "schedules": "schedules",
    "error_type": "error_type",
    "message": "message",
    "traceback": "traceback",
    "actor": "by",
    "reason": "because",
    "seconds": "seconds",
    "signal": "signal",
}


def in_ascii(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a write's parameters with other characters than ASCII's spelled out in what tells of errors.

    For a database whose encoding cannot hold them.
    """
    events, last_error = parameters.get("events"), parameters.get("last_error")
    if events is not None:
        rows = json.loads(events)
        for row in rows:
            details = row["details"] or {}
            row["details"] = {k: _spelled(v) if isinstance(v, str) else v for k, v in details.items()} or None
        events = json.dumps(rows)
    return {**parameters, "events": events, "last_error": last_error and _spelled(last_error)}


def _spelled(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _array(names: Sequence[str]) -> str:
    """Return names as the text of a PostgreSQL array."""
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return "{" + ",".join(f'"{name}"' for name in quoted) + "}"


# -- what statements return -----------------------------------------------------------------------------------


def record_of(row: Mapping[str, Any]) -> SagaRecord:
    """Return the saga that a row describes, with the log if the row has it."""
    values = {name: row[name] for name in _RECORD_FIELDS}
    values["status"] = SagaStatus(row["status"])
    values["state"] = SagaState(row["state"])
    values["in_flight"] = None if row["in_flight"] is None else tuple(row["in_flight"])
    values["log"] = tuple(map(entry_of, row.get("log", ())))
    return SagaRecord(**values)


#: The fields that are as in the row.
_RECORD_FIELDS: Final = tuple(
    field.name for field in fields(SagaRecord) if field.name not in ("status", "state", "in_flight", "log")
)


def head_of(saga_id: UUID, text: str) -> SagaHead:
    """Return what `head.sql` found."""
    name, status, state, definition, version = json.loads(text)
    return SagaHead(
        id=saga_id,
        name=name,
        status=SagaStatus(status),
        state=SagaState(state),
        definition=definition,
        definition_version=version,
    )


def posted_of(saga_id: UUID, text: str) -> list[Claim]:
    """Return the claim that `post_signal.sql` made, if it woke the saga."""
    version, status, wakes, at = json.loads(text)
    return [Claim(saga_id, version, status == SagaStatus.PENDING, datetime.fromisoformat(at))] if wakes else []


def signal_of(row: Mapping[str, Any]) -> Signal:
    """Return the signal that a row describes."""
    return Signal(**{**row, "kind": SignalKind(row["kind"])})


def entry_of(row: Mapping[str, Any]) -> LogEntry:
    """Return a row of the log, whether this version knows its kind or not."""
    details = row["details"] or {}
    verdict, in_flight = details.get("verdict"), details.get("in_flight")
    return LogEntry(
        id=row["id"],
        step=row["step_name"],
        action=_known(Action, row["action"]),
        status=_known(EntryStatus, row["status"]),
        attempt=row["attempt"],
        version=row["version"],
        worker=row["worker"],
        created_at=datetime.fromisoformat(row["created_at"]),
        verdict=_known(Verdict, verdict) if verdict else None,
        in_doubt=bool(details.get("in_doubt")),
        in_flight=None if in_flight is None else tuple(in_flight),
        schedules=bool(details.get("schedules")),
        error_type=details.get("error_type"),
        message=details.get("message"),
        traceback=details.get("traceback"),
        actor=details.get("by"),
        reason=details.get("because"),
        seconds=details.get("seconds"),
        signal=details.get("signal"),
    )


def _known(kind: Any, word: str) -> Any:
    try:
        return kind(word)
    except ValueError:
        return word  # a newer version wrote it


def applied_of(applied: Mapping[str, Any], lease: Lease, transition: Transition) -> Applied:
    """Return what a transition did: as the statement says it, or what the short one sets."""
    log = tuple(
        replace(entry, id=row_id, created_at=datetime.fromisoformat(at), version=lease.version, worker=lease.owner)
        for entry, (row_id, at) in zip(transition.events, applied["log"] or (), strict=True)
    )
    available_at = None if applied["state"] == SagaState.RUNNING else applied["available_at"]
    return Applied(
        status=SagaStatus(applied["status"]),
        state=SagaState(applied["state"]),
        recovery_attempts=applied["attempts"],
        available_at=None if available_at is None else datetime.fromisoformat(available_at),
        log=log,
        inbox=applied["inbox"],
        outbox=tuple(
            OutboxTask(row_id, lease.saga_id, each.task, each.arguments)
            for row_id, each in zip(applied.get("outbox") or (), outbox_of(transition), strict=True)
        ),
    )


def what_was_done(name: str, answer: str, lease: Lease, transition: Transition) -> Applied:
    """Return what the statement of this name did, by its answer."""
    if name != "apply" and isinstance(transition, Progressed | Ended):
        return short_of(answer, lease, transition)
    return applied_of(json.loads(answer), lease, transition)


def short_of(written: str, lease: Lease, transition: Progressed | Ended) -> Applied:
    """Return what a short statement did: it sets all but the row's id and time, which it returns."""

    row_id, at, inbox = json.loads(written)

    def log() -> tuple[LogEntry, ...]:
        (entry,) = transition.events
        row = LogEntry(
            step=entry.step,
            action=entry.action,
            status=entry.status,
            attempt=entry.attempt,
            version=lease.version,
            worker=lease.owner,
            id=row_id,
            created_at=datetime.fromisoformat(at),
        )
        return (row,)

    return Applied.with_log_on_demand(
        status=transition.status,
        state=SagaState.RUNNING if isinstance(transition, Progressed) else SagaState.FINISHED,
        inbox=inbox,
        log=log,
    )
