"""Sagas in PostgreSQL, through SQLAlchemy's pool and psycopg 3: an operation is one round trip, a claim a few."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.rows import DictRow

from sagas.errors import CharacterNotStorable, ConfigurationError, HiddenRow, SagaUnreadable
from sagas.progress import Action, SagaStatus
from sagas.settings import DEFAULT_POOL_SIZE
from sagas.storable import require_storable
from sagas.storage import statements as sql
from sagas.storage.attempts import count_attempt
from sagas.storage.base import (
    DEFAULT_MAX_RECOVERY_ATTEMPTS,
    QUEUE,
    Claim,
    ClaimResult,
    Hold,
    Intervention,
    ISagaStorage,
    LogEntry,
    NewSaga,
    OnConflict,
    Pause,
    Refusal,
    Refused,
    Release,
    SagaFilter,
    SagaRecord,
    Taken,
    describe,
    lease_lost,
    not_found,
    require_attempts,
    require_counts,
    require_end,
    require_recovery_arguments,
    require_seconds,
)
from sagas.storage.checkout import Connections
from sagas.storage.connecting import make_engine, reason
from sagas.storage.creating import Query, Within, create
from sagas.storage.rows import details_of, fence, giving_back, in_ascii, new_row, new_rows, note_row, record_of
from sagas.storage.transactions import CallersTransaction, callers_transaction

#: Seconds a saga whose message is missing stays free before it is dispatched again: longer than a message spends
#: between a worker's socket and the worker taking the saga.
_IN_HAND_SECONDS: Final = 2.0
#: Each of its rounds was overtaken by another writer of the same rows, or cannot see what it is to wait for.
_ROUNDS: Final = 20
#: Seconds after which a saga that could not be read is looked at again, by a process that may be set up better.
_UNREADABLE_SECONDS: Final = 30.0
#: Sagas parked or freed in one statement, so that no scan waits long for its turn.
_PARKED_AT_ONCE: Final = 5000
#: Of the advisory lock under which scans claim; any number no one else uses.
_SCAN_LOCK: Final = 0x5A6A5


class SqlAlchemySagaStorage(ISagaStorage):
    """Stores sagas in PostgreSQL.

    Connections are opened on first use, checked after they were idle, and never shared across a fork.

    Args:
        database: a URL such as `postgresql+psycopg://user:password@host/database`, or an Engine of the caller's own,
            whose pool then decides how many connections there are and when they are checked.
        pool_size: how many connections to the URL are used at once at most; renewals of leases have one more.

    Raises:
        ConfigurationError: the URL cannot be read, or is not PostgreSQL through psycopg 3.
    """

    def __init__(self, database: str | sa.URL | sa.Engine, *, pool_size: int = DEFAULT_POOL_SIZE) -> None:
        engine = database if isinstance(database, sa.Engine) else make_engine(database)
        if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
            raise ConfigurationError(
                f"the database engine uses {engine.dialect.name}+{engine.dialect.driver}, and sagas need "
                "PostgreSQL through psycopg 3: make it with a URL that begins postgresql+psycopg://."
            )
        self._connections = Connections(engine, size=None if engine is database else pool_size)
        self._here: str | None = None

    # -- the public contract of recovery ----------------------------------------------------------------------

    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        require_recovery_arguments(limit, max_recovery_attempts, stale_after_seconds)
        parameters = {
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "stale": stale_after_seconds,
            "name": saga_name,
        }
        return [row["id"] for row in self._query(sql.FOR_RECOVERY, parameters)]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        if new_status is None:
            if not self._execute(sql.INCREMENT_ATTEMPTS, {"id": saga_id}):
                raise not_found(saga_id)
            return
        new_status = SagaStatus(new_status)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(sql.SHORT_TRANSACTION)
            if not cursor.execute(sql.LOCK, {"id": saga_id}).fetchone():
                raise not_found(saga_id)
            (loaded,) = cursor.execute(sql.LOAD, {"id": saga_id}).fetchall()
            (clock,) = cursor.execute(sql.NOW).fetchall()
            counted = count_attempt(record_of(loaded), new_status, now=clock["now"])
            changes = {"status": counted.status, "interrupted": counted.interrupted, "frees": counted.frees}
            cursor.execute(sql.COUNT_ATTEMPT, {"id": saga_id, **changes})
            if counted.note is not None:
                cursor.execute(sql.LOG_NOTE, {"id": saga_id, **note_row(counted.note)})

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        if not self._execute(sql.SET_ATTEMPTS, {"id": saga_id, "attempts": attempts}):
            raise not_found(saga_id)

    # -- starting and reading ---------------------------------------------------------------------------------

    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        owner: str | None,
        for_seconds: float = 0.0,
        connection: Any = None,
        on_conflict: OnConflict = "return",
    ) -> list[tuple[UUID, bool]]:
        held = owner not in (None, QUEUE)
        start = {
            "status": (SagaStatus.RUNNING if held else SagaStatus.PENDING).value,
            "version": 1 if held else 0,
            "owner": owner,
            "seconds": for_seconds,
        }
        if connection is not None:
            within = Within(
                self.join(connection),
                here=self._where,
                database=self._connections.url,
                translate=self._connections.translate,
            )
            return within.create(sagas, start, on_conflict)

        def insert(left: Sequence[NewSaga]) -> set[UUID]:
            if len(left) == 1:
                return {left[0].id} if self._connections.write(sql.CREATE_ONE, start | new_row(left[0])) else set()
            return {row["id"] for row in query(sql.CREATE, start | new_rows(left))}

        def find(left: Sequence[NewSaga]) -> Sequence[Mapping[str, Any]]:
            keys = {"names": [saga.name for saga in left], "keys": [saga.idempotency_key for saga in left]}
            return query(sql.FIND_BY_KEY, keys)

        query: Query = self._query
        if on_conflict == "return" or len(sagas) <= 1:
            return create(sagas, insert, find, on_conflict=on_conflict)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            query = lambda statement, values: cursor.execute(statement, values).fetchall()  # noqa: E731
            return create(sagas, insert, find, on_conflict=on_conflict)

    def join(self, connection: Any) -> CallersTransaction:
        return callers_transaction(connection, database=self._connections.url)

    def connect(self) -> None:
        self._where(False)

    def _where(self, again: bool) -> str:
        if self._here is None or again:
            self._here = str(self._query(sql.HERE, {})[0]["here"])
        return self._here

    def load(self, saga_id: UUID) -> SagaRecord:
        rows = self._query(sql.LOAD, {"id": saga_id})
        if not rows:
            raise not_found(saga_id)
        return record_of(rows[0])

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        parameters = {
            "statuses": [str(status) for status in wanted.statuses] or None,
            "name": wanted.name,
            "dead": wanted.dead,
            "limit": wanted.limit,
        }
        return [record_of(row) for row in self._query(sql.FIND, parameters)]

    # -- holding ----------------------------------------------------------------------------------------------

    def take(
        self,
        saga_id: UUID,
        *,
        owner: str,
        lease_seconds: float,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Taken | Refused:
        parameters = {
            "id": saga_id,
            "owner": owner,
            "lease": lease_seconds,
            "max_attempts": max_recovery_attempts,
            "version": version,
            "by_hand": by_hand,
        }
        with self._connections.cursor() as cursor:
            try:
                found = _take(cursor, parameters)
            except Exception as error:
                if (taken := _taken_unread(cursor, parameters)) is None:
                    raise
                unreadable = error
            else:
                return self._refused(saga_id, found) if isinstance(found, Refusal) else found
        because = f"its row cannot be read ({type(unreadable).__name__}: {reason(unreadable)})"
        self.release(
            taken[0], Release(status=taken[1], after_seconds=_UNREADABLE_SECONDS, last_error=f"declined: {because}")
        )
        raise SagaUnreadable(
            f"saga {saga_id} was given back, no attempt spent: {because}. See what is unusual about this database, its "
            "user's settings or the row; another attempt follows by itself."
        ) from unreadable

    def checkpoint(
        self,
        hold: Hold,
        entry: LogEntry | None,
        *,
        status: SagaStatus,
        context: str | None = None,
        release: Release | None = None,
    ) -> None:
        self._fenced(*_checkpoint(hold, entry, status, context, release), hold)

    def renew(self, hold: Hold, lease_seconds: float) -> bool:
        with self._connections.cursor(at_once=True) as cursor:
            rows = cursor.execute(sql.RENEW, {**fence(hold), "lease": lease_seconds}).fetchall()
        if not rows:
            raise lease_lost(hold)
        return bool(rows[0]["asked_back"])

    def ask_back(self, saga_id: UUID, *, by: str, for_seconds: float) -> None:
        self._execute(sql.ASK_BACK, {"id": saga_id, "by": by, "seconds": for_seconds})

    def release(self, hold: Hold, release: Release) -> None:
        self._fenced(sql.RELEASE, {**fence(hold), **giving_back(release)}, hold)

    def intervene(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Intervention],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Refused | None:
        parameters = {
            "id": saga_id,
            "owner": owner,
            "lease": 0.0,  # never seen: it is given back in the same transaction
            "max_attempts": max_recovery_attempts,
            "version": None,
            "by_hand": True,
        }
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(sql.SHORT_TRANSACTION)
            found = _take(cursor, parameters)
            if found is Refusal.DIED:  # of its last holder's crash, and by hand it is taken all the same
                found = _take(cursor, parameters)
            if isinstance(found, Taken):
                made = decide(found.record)
                cursor.execute(*_checkpoint(found.hold, made.entry, made.status, None, made.release))
        return self._refused(saga_id, found) if isinstance(found, Refusal) else None

    # -- dispatching ------------------------------------------------------------------------------------------

    def claim_sagas(
        self,
        *,
        pending: bool,
        limit: int,
        max_recovery_attempts: int,
        mark_seconds: float,
        messages_waiting: int = 0,
    ) -> ClaimResult:
        require_counts(limit=limit, max_recovery_attempts=max_recovery_attempts)
        parameters = {
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "seconds": mark_seconds,
            "next_owner": QUEUE,
            "waiting": messages_waiting,
            "grace": _IN_HAND_SECONDS,
            "host": socket.gethostname(),
        }
        with self._scanning() as cursor:
            missing = cursor.execute(sql.FREE_MISSING[pending], parameters).rowcount
            rows = cursor.execute(sql.CLAIM[pending], parameters).fetchall()
            scanned = cursor.execute(sql.SCANNED, parameters).fetchone()
            if scanned and scanned["resuming"]:
                _free_parked(cursor)
        claimed = (row for row in rows if not (row["died"] or row["parked"]))
        return ClaimResult(
            claims=tuple(Claim(row["id"], row["version"], pending) for row in claimed),
            died=tuple(row["id"] for row in rows if row["died"]),
            missing=missing,
        )

    def claim_by_id(self, saga_ids: Sequence[UUID], *, mark_seconds: float) -> list[Claim]:
        rows = self._query(sql.CLAIM_BY_ID, {"ids": list(saga_ids), "seconds": mark_seconds})
        versions = {row["id"]: row["version"] for row in rows}
        return [Claim(saga_id, versions.pop(saga_id), pending=True) for saga_id in saga_ids if saga_id in versions]

    def seize_orphans(self, owner: str, *, max_recovery_attempts: int) -> int:
        parameters = {
            "owner": owner,
            "max_attempts": max_recovery_attempts,
            "next_owner": None,
            "seconds": 0.0,
        }
        return self._execute(sql.SEIZE_ORPHANS, parameters)

    def unclaim(self, claims: Sequence[Claim]) -> None:
        parameters = {
            "ids": [claim.saga_id for claim in claims],
            "versions": [claim.version for claim in claims],
        }
        self._execute(sql.UNCLAIM, parameters)

    # -- pausing ----------------------------------------------------------------------------------------------

    def pause(self, name: str, *, by: str, because: str) -> int:
        require_storable(name=name, by=by, reason=because)
        with self._scanning() as cursor:
            cursor.execute(sql.PAUSE, {"name": name, "by": by, "because": because})
        parked = 0
        for statement in sql.PARK.values():
            batch = None
            while batch != 0:
                with self._scanning() as cursor:
                    batch = cursor.execute(statement, {"name": name, "limit": _PARKED_AT_ONCE}).rowcount
                parked += batch
        return parked

    def resume(self, name: str) -> int:
        with self._scanning() as cursor:
            cursor.execute(sql.RESUME, {"name": name})
            freed = batch = _free_parked(cursor)
        while batch:
            with self._scanning() as cursor:
                batch = _free_parked(cursor)
            freed += batch
        return freed

    def pauses(self) -> list[Pause]:
        return [Pause(**row) for row in self._query(sql.PAUSES, {})]

    @contextmanager
    def _scanning(self) -> Iterator[psycopg.Cursor[DictRow]]:
        """A transaction in which no other scans, parks or frees."""
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(sql.ONE_SCAN_AT_A_TIME, {"key": _SCAN_LOCK})
            yield cursor

    # -- housekeeping -----------------------------------------------------------------------------------------

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        return self._execute(sql.PRUNE, {"age": older_than_seconds, "limit": limit})

    def check_schema(self) -> None:
        self._connections.check_schema()

    def close(self) -> None:
        """Close this process's idle connections; the storage can be used again."""
        self._connections.close()

    # -- statements -------------------------------------------------------------------------------------------

    @property
    def connections(self) -> Connections:
        """Where its connections are kept; what operators ask runs on them too."""
        return self._connections

    def _query(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with self._connections.cursor() as cursor:
            return cursor.execute(statement, parameters).fetchall()

    def _execute(self, statement: str, parameters: Mapping[str, Any]) -> int:
        with self._connections.cursor() as cursor:
            return cursor.execute(statement, parameters).rowcount

    def _refused(self, saga_id: UUID, why: Refusal) -> Refused:
        return Refused(why, None if why is Refusal.NOT_FOUND else self.load(saga_id))

    def _fenced(self, statement: str, parameters: Mapping[str, Any], hold: Hold) -> None:
        try:
            changed = self._connections.write(statement, parameters)
        except CharacterNotStorable:
            # Of a step's error, most likely: what it says must not keep the saga from being written.
            changed = self._connections.write(statement, in_ascii(parameters))
        if not changed:
            raise lease_lost(hold)


def _take(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> Taken | Refusal:
    for _ in range(_ROUNDS):
        row = cursor.execute(sql.TAKE, parameters).fetchone()
        if row is None or row["verdict"] != "moved":
            break
    else:
        raise HiddenRow(
            f"saga {parameters['id']} was not taken: its row changed before each of {_ROUNDS} looks at it, or looks "
            "changed. See what writes to saga_executions besides sagas."
        )
    if row is None:
        return Refusal.NOT_FOUND
    if row["verdict"] != "taken":
        return Refusal(row["verdict"])
    record = record_of(row)
    return Taken(Hold(record.id, record.version, parameters["owner"]), record, SagaStatus(row["status_before"]))


def _taken_unread(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> tuple[Hold, SagaStatus] | None:
    """Return what the last take of this cursor holds, and its status before, from the result as the server sent it."""
    result = cursor.pgresult
    if result is None or not result.ntuples:
        return None
    sent = {(result.fname(column) or b"").decode(): result.get_value(0, column) for column in range(result.nfields)}
    if sent["verdict"] != b"taken":
        return None
    version = int.from_bytes(sent["version"] or b"")  # in binary, as the whole result
    hold = Hold(parameters["id"], version, parameters["owner"])
    return hold, SagaStatus((sent["status_before"] or b"").decode())


def _checkpoint(
    hold: Hold, entry: LogEntry | None, status: SagaStatus, context: str | None, release: Release | None
) -> tuple[str, dict[str, Any]]:
    parameters = {**fence(hold), "status": status.value, "context": context, "last_error": None}
    if entry is None:
        require_end(status, release)
        return sql.END, parameters
    details = details_of(entry)
    parameters |= {
        "step": entry.step,
        "action": entry.action.value,
        "entry_status": entry.status.value,
        "attempt": entry.attempt,
        "details": details,
        "last_error": describe(entry),
    }
    if release is not None:
        parameters |= giving_back(release) | {"last_error": release.last_error or describe(entry)}
        return sql.CHECKPOINT_RELEASE, parameters
    if status.finished:
        return sql.CHECKPOINT_END, parameters
    if entry.action is Action.OPERATOR:
        return sql.CHECKPOINT_NOTE, parameters
    return (sql.CHECKPOINT_COMPLETED if details is None else sql.CHECKPOINT_FAILED), parameters


def _free_parked(cursor: psycopg.Cursor[DictRow]) -> int:
    """Free some of what is parked under names that were resumed; forget the names of which nothing is left."""
    limit = {"limit": _PARKED_AT_ONCE}
    freed = sum(cursor.execute(statement, limit).rowcount for statement in sql.FREE_PARKED.values())
    if not freed:
        cursor.execute(sql.RESUMED)
    return freed
