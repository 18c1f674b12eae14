"""Every legal row of the table of states, as records and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage import rules
from sagas.storage.leases import shared_owner
from sagas.storage.postgres import mapping
from sagas.storage.records import LogEntry, SagaRecord, SagaState, failed
from sagas.storage.transitions import PROBE_SECONDS

MAXIMUM: Final = 2
#: How many signals were delivered to each saga.
INBOX: Final = 2
OPEN, PAUSED = "open", "paused"
OWNER, SHARED = "worker-1", shared_owner("worker-2")
TOKEN: Final = UUID(int=77)
_ABORT: Final = failed("reserve", Action.ACT, Verdict.ABORT, in_doubt=True)


class Kind(NamedTuple):
    """What tells one row from another.

    Attributes:
        due: whether `available_at` has passed; None: infinity.
        owner: of the lease, if it is running.
        log: whether the log aborts the saga.
    """

    state: SagaState
    status: SagaStatus
    due: bool | None
    attempts: int
    version: int
    suspect: bool
    name: str
    aborted: bool
    owner: str | None
    in_flight: tuple[str, ...] | None


def kinds() -> Iterator[Kind]:
    """Generate every combination that is legal."""
    for state, statuses in rules.LEGAL.items():
        never = state in (SagaState.DEAD, SagaState.FINISHED)
        held = state is SagaState.RUNNING
        dues = (None,) if never else (True, False, None) if state is SagaState.WAITING else (True, False)
        owners = (OWNER, SHARED) if held else (None,)
        in_flights = (None, ("charge",)) if held else (None,)
        for status in statuses:
            versions = range(3) if status is SagaStatus.PENDING else range(1, 3)
            attempts = range(MAXIMUM + 1)
            yes_no = (False, True)
            for values in product(dues, attempts, versions, yes_no, (OPEN, PAUSED), yes_no, owners, in_flights):
                yield Kind(state, status, *values)


def rows(now: datetime) -> dict[Kind, SagaRecord]:
    """Return a record of every kind; all are due, or not, by hours, and no two at the same time."""
    return {kind: _row(kind, number, now) for number, kind in enumerate(kinds(), 1)}


def _row(kind: Kind, number: int, now: datetime) -> SagaRecord:
    apart = timedelta(hours=1, seconds=number)
    available_at = {True: now - apart, False: now + apart, None: None}[kind.due]
    updated_at = now - apart
    if kind.state is SagaState.QUEUED and available_at is not None:
        updated_at = available_at - timedelta(seconds=PROBE_SECONDS * (1 + number % 3))
    record = SagaRecord(
        id=UUID(int=number),
        name=kind.name,
        status=kind.status,
        state=kind.state,
        context='{"n": 1}',
        version=kind.version,
        recovery_attempts=kind.attempts,
        lease_owner=kind.owner,
        lease_token=TOKEN if kind.owner else None,
        available_at=available_at,
        last_error="before",
        idempotency_key=None,
        definition=None,
        definition_version="",
        created_at=now - 2 * apart,
        updated_at=updated_at,
        finished_at=now - apart if kind.state is SagaState.FINISHED else None,
        root_id=UUID(int=number),
        in_flight=kind.in_flight,
        suspect=kind.suspect,
        inbox=INBOX,
        log=(replace(_ABORT, version=1, worker=OWNER, created_at=now - apart),) if kind.aborted else (),
    )
    rules.check_legal(record)
    return record


_COLUMNS: Final = (
    *("id", "name", "status", "state", "context", "version", "recovery_attempts", "lease_owner", "lease_token"),
    *("available_at", "last_error", "created_at", "updated_at", "finished_at", "in_flight", "suspect"),
    "inbox",
)


def write(cursor: psycopg.Cursor[Any], records: Sequence[SagaRecord]) -> None:
    """Write records straight into the tables."""
    with cursor.copy(f"COPY saga_executions ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
        for record in records:
            values = {name: getattr(record, name) for name in _COLUMNS}
            in_flight = None if record.in_flight is None else list(record.in_flight)
            values |= {"available_at": record.available_at or "infinity", "in_flight": in_flight}
            copy.write_row(list(values.values()))
    logs = "saga_logs (saga_id, step_name, action, status, attempt, version, worker, details, created_at)"
    with cursor.copy(f"COPY {logs} FROM STDIN") as copy:
        for saga_id, entry in ((record.id, entry) for record in records for entry in record.log):
            columns = (saga_id, entry.step, entry.action, entry.status, entry.attempt, entry.version, entry.worker)
            copy.write_row((*columns, Jsonb(mapping.details_of(entry)), entry.created_at))


def read(cursor: psycopg.Cursor[Any], ids: Sequence[UUID]) -> dict[UUID, SagaRecord]:
    """Read records, their logs without ids and times."""
    found = cursor.execute(
        """
        SELECT e.id, e.name, e.status, e.state, CAST(e.context AS text) AS context, e.version, e.recovery_attempts,
            e.lease_owner, e.lease_token, NULLIF(e.available_at, 'infinity') AS available_at, e.last_error,
            e.idempotency_key, e.definition, e.definition_version, e.in_flight, e.suspect,
            COALESCE(e.root_id, e.id) AS root_id, e.depth, e.created_at, e.updated_at, e.finished_at, e.traceparent,
            e.inbox, e.deadline_at, e.tags,
            COALESCE(l.log, '[]') AS log
        FROM saga_executions e
        LEFT JOIN (
            SELECT saga_id, jsonb_agg(to_jsonb(saga_logs) ORDER BY id) AS log
            FROM saga_logs WHERE saga_id = ANY (%(ids)s) GROUP BY saga_id
        ) AS l ON l.saga_id = e.id
        WHERE e.id = ANY (%(ids)s)""",
        {"ids": list(ids)},
    ).fetchall()
    return {row["id"]: bare(mapping.record_of(row)) for row in found}


def bare(record: SagaRecord) -> SagaRecord:
    """Return a record whose log can be compared: its rows without ids and times."""
    return replace(record, log=tuple(map(bare_entry, record.log))) if record.log else record


def bare_entry(entry: LogEntry) -> LogEntry:
    """Return a row of the log without its id and time."""
    return replace(entry, id=0, created_at=None)
