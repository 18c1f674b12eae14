"""Stores sagas in PostgreSQL. An operation is one round trip, a claim a few. The statements are in `queries/`."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.rows import DictRow

from sagas.errors import (
    CharacterNotStorable,
    ConfigurationError,
    DefinitionNotFound,
    HiddenRow,
    InboxMoved,
    LeaseLost,
    SagaUnreadable,
)
from sagas.outbox import OutboxTask
from sagas.progress import RECOVERABLE, SagaStatus
from sagas.settings import DEFAULT_POOL_SIZE
from sagas.storable import require_storable
from sagas.storage.attempts import count_attempt
from sagas.storage.contract import (
    DEFAULT_MAX_RECOVERY_ATTEMPTS,
    ISagaStorage,
    lease_lost,
    not_found,
    require_attempts,
    require_counts,
    require_recovery_arguments,
    require_seconds,
)
from sagas.storage.postgres import mapping
from sagas.storage.postgres.creating import Query, Within, create
from sagas.storage.postgres.dsn import make_engine, reason
from sagas.storage.postgres.filtering import filter_row
from sagas.storage.postgres.pool import Connections
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.step_transaction import PostgresStepTransaction, apply_and_begin
from sagas.storage.records import (
    Acquired,
    Applied,
    Claim,
    ClaimResult,
    Definition,
    Lease,
    LeaseRequest,
    NewSaga,
    NotAcquired,
    OnConflict,
    Pause,
    Refusal,
    SagaFilter,
    SagaHead,
    SagaRecord,
    SagaState,
    ScheduleTicks,
    Signal,
)
from sagas.storage.rules import OVERTAKING_SECONDS, PROBES
from sagas.storage.step_transaction import StepSession, StepTransaction
from sagas.storage.transactions import CallersTransaction, callers_transaction
from sagas.storage.transitions import (
    MOST_PROBE_SECONDS,
    PROBE_SECONDS,
    GaveBack,
    Transition,
    change_of,
    outbox_of,
)

#: How often an acquire is tried again because another writer changed the saga's row meanwhile.
_ROUNDS: Final = 20
#: Seconds after which a saga that could not be read is due again. Another process may be able to read it.
_UNREADABLE_SECONDS: Final = 30.0
#: Sagas paused or resumed in one statement, so that no scan waits long for its turn.
_PAUSED_AT_ONCE: Final = 5000
#: Key of the advisory lock of scans, pauses and resumes. It may be any number that nothing else uses.
_SCAN_LOCK: Final = 0x5A6A5


class PostgresSagaStorage(ISagaStorage):
    """Stores sagas in PostgreSQL.

    Connections are opened on first use, checked after they were idle, and never shared across a fork.

    Args:
        database: a URL such as `postgresql+psycopg://user:password@host/database`, or a SQLAlchemy Engine of the
            caller's own, whose pool then decides how many connections there are and when they are checked.
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
        # Steps may change settings of their session, so the engine's own statements never run on these.
        self._of_steps = Connections(engine, size=None if engine is database else pool_size)
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
        return [row["id"] for row in self._query("for_recovery", parameters)]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        if new_status is None:
            if not self._execute("count_attempt", {"id": saga_id}):
                raise not_found(saga_id)
            return
        new_status = SagaStatus(new_status)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            locked = cursor.execute(query("lock"), {"id": saga_id}).fetchone()
            if locked is None:
                raise not_found(saga_id)
            (loaded,) = cursor.execute(query("load"), {"id": saga_id}).fetchall()
            before = mapping.record_of(loaded)
            counted = count_attempt(before, new_status, now=locked["now"])
            changes = {
                "status": counted.record.status.value,
                "state": counted.record.state.value,
                "freed": counted.record.available_at != before.available_at,
                "suspect": counted.record.suspect,
                "events": mapping.events_json(counted.events),
            }
            cursor.execute(query("set_status"), {"id": saga_id, **changes})

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        if not self._execute("set_attempts", {"id": saga_id, "attempts": attempts}):
            raise not_found(saga_id)

    # -- starting and reading ---------------------------------------------------------------------------------

    def register_definition(self, definition: Definition) -> None:
        values = {"hash": definition.hash, "name": definition.name, "graph": definition.graph}
        self._execute("register_definition", values)

    def load_definition(self, definition_hash: str) -> Definition:
        rows = self._query("load_definition", {"hash": definition_hash})
        if not rows:
            raise DefinitionNotFound(
                f"no definition of a saga has the hash {definition_hash}: restore the rows of saga_definitions that "
                "belong to the sagas of this database."
            )
        return Definition(**rows[0])

    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        queued: bool = False,
        lease: LeaseRequest | None = None,
        connection: Any = None,
        on_conflict: OnConflict = "return",
        at: datetime | None = None,
        after_seconds: float = 0.0,
    ) -> list[tuple[UUID, bool]]:
        start = mapping.start_row(queued=queued, lease=lease, at=at, after_seconds=after_seconds)
        if connection is not None:
            return self._within(connection).create(sagas, start, on_conflict)

        def insert(left: Sequence[NewSaga]) -> set[UUID]:
            if len(left) == 1:
                written = self._connections.write(query("create_one"), start | mapping.new_row(left[0]))
                return set() if written is None else {left[0].id}
            return {row["id"] for row in ask(query("create_many"), start | mapping.new_rows(left))}

        def find(left: Sequence[NewSaga]) -> Sequence[Mapping[str, Any]]:
            keys = {"names": [saga.name for saga in left], "keys": [saga.idempotency_key for saga in left]}
            return ask(query("find_by_key"), keys)

        ask: Query = self._rows
        if on_conflict == "return" or len(sagas) <= 1:
            return create(sagas, insert, find, on_conflict=on_conflict)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            ask = lambda statement, values: cursor.execute(statement, values).fetchall()  # noqa: E731
            return create(sagas, insert, find, on_conflict=on_conflict)

    def _within(self, connection: Any) -> Within:
        return Within(
            self.join(connection),
            here=self._where,
            database=self._connections.url,
            translate=self._connections.translate,
        )

    def join(self, connection: Any) -> CallersTransaction:
        return callers_transaction(connection, database=self._connections.url)

    def connect(self) -> None:
        self._where(False)

    def _where(self, again: bool) -> str:
        if self._here is None or again:
            self._here = str(self._query("here", {})[0]["here"])
        return self._here

    def load(self, saga_id: UUID) -> SagaRecord:
        rows = self._query("load", {"id": saga_id})
        if not rows:
            raise not_found(saga_id)
        return mapping.record_of(rows[0])

    def head(self, saga_id: UUID) -> SagaHead:
        found = self._connections.write(query("head"), {"id": saga_id})
        if found is None:
            raise not_found(saga_id)
        return mapping.head_of(saga_id, found)

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        with self._connections.cursor() as cursor:
            # Do not prepare the statement, so that it is planned for its own values.
            rows = cursor.execute(query("find"), filter_row(wanted), prepare=False).fetchall()
        return [mapping.record_of(row) for row in rows]

    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        rows = self._query("find_by_key", {"names": [name], "keys": [idempotency_key]})
        return rows[0]["id"] if rows else None

    # -- signals ----------------------------------------------------------------------------------------------

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        values = mapping.signal_row(signal)
        if connection is None:
            return self._connections.write(query("add_signal"), values) is not None
        return self._within(connection).add_signal(values)

    def post_signal(self, signal: Signal) -> tuple[bool, list[Claim]]:
        values = {**mapping.signal_row(signal), "probe": PROBE_SECONDS}
        posted = self._connections.write(query("post_signal"), values)
        if posted is None:
            # It is known. Its sender may have died before it was delivered.
            return False, self.deliver([signal.saga_id])
        return True, mapping.posted_of(signal.saga_id, posted)

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        rows = self._query("deliver", {"ids": list(saga_ids), "probe": PROBE_SECONDS})
        claims = {
            row["id"]: Claim(row["id"], row["version"], row["status"] == SagaStatus.PENDING, row["queued_at"])
            for row in rows
            if row["wakes"]
        }
        return [claims.pop(saga_id) for saga_id in saga_ids if saga_id in claims]

    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        return [row["saga_id"] for row in self._query("undelivered", {"age": older_than_seconds, "limit": limit})]

    def signals(self, saga_id: UUID) -> list[Signal]:
        return [mapping.signal_of(row) for row in self._query("signals", {"id": saga_id})]

    # -- holding ----------------------------------------------------------------------------------------------

    def acquire(
        self,
        saga_id: UUID,
        request: LeaseRequest,
        *,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        parameters = mapping.acquire_row(saga_id, request, max_recovery_attempts, version, by_hand=by_hand)
        with self._connections.cursor() as cursor:
            try:
                return _acquire(cursor, parameters)
            except Exception as error:
                if (acquired := _acquired_unread(cursor, parameters)) is None:
                    raise
                unreadable = error
        lease, status_before = acquired
        why = f"its row cannot be read ({type(unreadable).__name__}: {reason(unreadable)})"
        self.apply(
            lease,
            GaveBack(status=status_before, after_seconds=_UNREADABLE_SECONDS, last_error=f"declined: {why}"),
        )
        raise SagaUnreadable(
            f"saga {saga_id} was given back, no attempt spent: {why}. Check the row, the settings of the database and "
            "of its user; another attempt follows automatically."
        ) from unreadable

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        name, parameters = mapping.written(lease, transition)
        try:
            written = self._connections.write(query(name), parameters)
        except CharacterNotStorable:
            # Most likely the text of a step's error has the character. The saga must be written nevertheless.
            written = self._connections.write(query(name), mapping.in_ascii(parameters))
        if written is None:
            raise self._refused(lease, transition)
        return mapping.what_was_done(name, written, lease, transition)

    def _refused(self, lease: Lease, transition: Transition) -> LeaseLost | InboxMoved:
        """Return why a transition was not written. Should the lease be lost only now, that is as good a reason."""
        rows = [] if change_of(transition).seen is None else self._query("inbox", mapping.fence(lease))
        return InboxMoved(rows[0]["inbox"]) if rows else lease_lost(lease)

    def apply_many(self, asked: Sequence[tuple[Lease, Transition]]) -> list[Applied | LeaseLost | InboxMoved]:
        results: dict[int, Applied | LeaseLost | InboxMoved] = {}
        # Those with tasks for the outbox go alone: the statement for many has no place for tasks.
        together = [place for place, (_, transition) in enumerate(asked) if not outbox_of(transition)]
        if len(together) > 1:
            try:
                rows = self._query("apply_many", mapping.apply_rows([asked[place] for place in together]))
            except (psycopg.DataError, CharacterNotStorable):
                rows = []  # one value fails the statement: nothing was applied
            for row in rows:
                place = together[row["place"] - 1]
                results[place] = mapping.applied_of(json.loads(row["applied"]), *asked[place])
        for place, (lease, transition) in enumerate(asked):
            if place not in results:
                try:
                    results[place] = self.apply(lease, transition)
                except (LeaseLost, InboxMoved) as error:
                    results[place] = error
        return [results[place] for place in range(len(asked))]

    def begin_step(self, lease: Lease, step: str, session: type[StepSession]) -> StepTransaction:
        return PostgresStepTransaction(self._of_steps, lease, step, session)

    def apply_and_begin(
        self, lease: Lease, transition: Transition, step: str, session: type[StepSession]
    ) -> tuple[Applied, StepTransaction | None]:
        if session.is_lent:
            with suppress(CharacterNotStorable):
                return apply_and_begin(self._of_steps, lease, transition, step, session)
        return super().apply_and_begin(lease, transition, step, session)

    def renew(self, lease: Lease, seconds: float) -> bool:
        with self._connections.cursor(at_once=True) as cursor:
            rows = cursor.execute(query("renew"), {**mapping.fence(lease), "lease": seconds}).fetchall()
        if not rows:
            raise lease_lost(lease)
        return bool(rows[0]["yield_requested"])

    def request_yield(self, saga_id: UUID, *, actor: str, for_seconds: float) -> None:
        self._execute("request_yield", {"id": saga_id, "actor": actor, "seconds": for_seconds})

    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        if not self._execute("set_definition", {**mapping.fence(lease), "definition": definition_hash}):
            raise lease_lost(lease)

    def operate(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Transition],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Applied | NotAcquired:
        request = LeaseRequest(owner=owner, seconds=0.0)  # no one sees this lease: the same transaction ends it
        parameters = mapping.acquire_row(saga_id, request, max_recovery_attempts, None, by_hand=True)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            found = _acquire(cursor, parameters)
            if isinstance(found, NotAcquired) and found.why is Refusal.DIED:
                found = _acquire(cursor, parameters)  # it is dead now, and an operator may acquire the dead
            if isinstance(found, NotAcquired):
                return found
            transition = decide(found.record)
            name, values = mapping.written(found.lease, transition)
            row = cursor.execute(query(name), values).fetchone()
            if row is None:
                raise lease_lost(found.lease)
            return mapping.what_was_done(name, row["applied"], found.lease, transition)

    # -- dispatching ------------------------------------------------------------------------------------------

    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        require_counts(limit=limit, max_recovery_attempts=max_recovery_attempts)
        statuses = (SagaStatus.PENDING,) if pending else RECOVERABLE
        parameters = {
            "pending": pending,
            "statuses": [status.value for status in statuses],
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "probe": PROBE_SECONDS,
            "most_probe": MOST_PROBE_SECONDS,
            "overtaking": OVERTAKING_SECONDS,
            "probes": PROBES,
            "host": socket.gethostname(),
        }
        with self._scanning() as cursor:
            cursor.execute(query("free_resumed"), {"limit": _PAUSED_AT_ONCE})
            missed = cursor.execute(query("claim_lost"), parameters).fetchall()
            due = cursor.execute(query("claim_new" if pending else "claim_due"), parameters).fetchall()
            cursor.execute(query("note_scan"), parameters)
        lost = [row for row in missed if row["state"] == SagaState.QUEUED]
        queued = [*lost, *(row for row in due if row["state"] == SagaState.QUEUED)]
        return ClaimResult(
            claims=tuple(Claim(row["id"], row["version"], pending, row["queued_at"]) for row in queued),
            died=tuple(row["id"] for row in due if row["state"] == SagaState.DEAD),
            lost=len(lost),
        )

    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        rows = self._query("claim_by_id", {"ids": list(saga_ids), "probe": PROBE_SECONDS})
        claims = {row["id"]: Claim(row["id"], row["version"], True, row["queued_at"]) for row in rows}
        return [claims.pop(saga_id) for saga_id in saga_ids if saga_id in claims]

    def note_delivery(self, claim: Claim) -> None:
        self._execute("note_delivery", {"id": claim.saga_id, "pending": claim.pending, "queued_at": claim.queued_at})

    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        return self._execute("reclaim", {"owner": owner, "max_attempts": max_recovery_attempts})

    def release_claims(self, claims: Sequence[Claim]) -> None:
        ids, versions = [claim.saga_id for claim in claims], [claim.version for claim in claims]
        self._execute("release_claims", {"ids": ids, "versions": versions})

    # -- the outbox -------------------------------------------------------------------------------------------

    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        return [OutboxTask(**row) for row in self._query("claim_outbox", {"age": older_than_seconds, "limit": limit})]

    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        self._execute("delete_from_outbox", {"rows": list(ids)})

    # -- pausing ----------------------------------------------------------------------------------------------

    def pause(self, name: str, *, actor: str, reason: str) -> int:
        require_storable(name=name, actor=actor, reason=reason)
        with self._scanning() as cursor:
            cursor.execute(query("pause"), {"name": name, "actor": actor, "reason": reason})
        return sum(self._in_batches(statement, name=name) for statement in ("pause_new", "pause_due"))

    def resume(self, name: str) -> int:
        with self._scanning() as cursor:
            cursor.execute(query("resume"), {"name": name})
        return self._in_batches("free_resumed")

    def _in_batches(self, statement: str, **parameters: Any) -> int:
        changed = 0
        while True:
            with self._scanning() as cursor:
                batch = cursor.execute(query(statement), {**parameters, "limit": _PAUSED_AT_ONCE}).rowcount
            changed += batch
            if not batch:
                return changed

    def pauses(self) -> list[Pause]:
        return [Pause(**row) for row in self._query("pauses", {})]

    @contextmanager
    def _scanning(self) -> Iterator[psycopg.Cursor[DictRow]]:
        """Open a transaction during which no other transaction scans, pauses or resumes."""
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            cursor.execute(query("scan_lock"), {"key": _SCAN_LOCK})
            yield cursor

    # -- schedules --------------------------------------------------------------------------------------------

    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        rows = self._query("schedule_ticks", {"names": list(names)})
        last = {row["name"]: row["last_tick"] for row in rows if row["name"] is not None}
        return ScheduleTicks(now=rows[0]["now"], last=last)

    def note_tick(self, name: str, tick: datetime) -> None:
        self._execute("note_tick", {"name": name, "tick": tick})

    # -- housekeeping -----------------------------------------------------------------------------------------

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        return self._execute("prune", {"age": older_than_seconds, "limit": limit})

    def check_schema(self) -> None:
        self._connections.check_schema()

    def close(self) -> None:
        """Close this process's idle connections; the storage can be used again."""
        self._connections.close()
        self._of_steps.close()

    # -- statements -------------------------------------------------------------------------------------------

    @property
    def connections(self) -> Connections:
        """The pool of connections. The inspector's queries use it too."""
        return self._connections

    def _rows(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with self._connections.cursor() as cursor:
            return cursor.execute(statement, parameters).fetchall()

    def _query(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self._rows(query(name), parameters)

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> int:
        with self._connections.cursor() as cursor:
            return cursor.execute(query(name), parameters).rowcount


def _acquire(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> Acquired | NotAcquired:
    for _ in range(_ROUNDS):
        row = cursor.execute(query("acquire"), parameters).fetchone()
        if row is None:
            return NotAcquired(Refusal.NOT_FOUND)
        if row["verdict"] != "moved":
            break
    else:
        raise HiddenRow(
            f"saga {parameters['id']} was not acquired: its row changed during each of {_ROUNDS} tries, or seems to "
            "have changed. Check what else writes to saga_executions."
        )
    record = mapping.record_of(row)
    if row["verdict"] != "acquired":
        return NotAcquired(Refusal(row["verdict"]), record)
    lease = Lease(record.id, record.version, parameters["owner"], parameters["token"])
    return Acquired(lease, record, SagaStatus(row["status_before"]))


def _acquired_unread(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> tuple[Lease, SagaStatus] | None:
    """Return the lease that the last acquire of this cursor got, and the status before, from the undecoded result."""
    result = cursor.pgresult
    if result is None or not result.ntuples:
        return None
    sent = {(result.fname(column) or b"").decode(): result.get_value(0, column) for column in range(result.nfields)}
    if sent["verdict"] != b"acquired":
        return None
    version = int.from_bytes(sent["version"] or b"")  # in binary, as the whole result
    lease = Lease(parameters["id"], version, parameters["owner"], parameters["token"])
    return lease, SagaStatus((sent["status_before"] or b"").decode())
