"""Stores sagas in the memory of this process, for tests and programs that need no durable sagas."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sagas.errors import AlreadyStarted, DefinitionNotFound, InboxMoved, LeaseLost, StepRolledBack
from sagas.outbox import OutboxTask
from sagas.progress import RECOVERABLE, SagaStatus
from sagas.storable import require_storable
from sagas.storage import rules
from sagas.storage.attempts import count_attempt, set_attempts
from sagas.storage.contract import (
    DEFAULT_MAX_RECOVERY_ATTEMPTS,
    ISagaStorage,
    exists,
    lease_lost,
    not_found,
    require_attempts,
    require_counts,
    require_recovery_arguments,
    require_seconds,
)
from sagas.storage.records import (
    Acquired,
    Applied,
    Claim,
    ClaimResult,
    Definition,
    Lease,
    LeaseRequest,
    LogEntry,
    NewSaga,
    NotAcquired,
    OnConflict,
    Pause,
    Refusal,
    SagaFilter,
    SagaRecord,
    SagaState,
    ScheduleTicks,
    Signal,
    SignalKind,
    utc_now,
)
from sagas.storage.rules import Reclaimed
from sagas.storage.step_transaction import NextStep, StepSession, StepTransaction, TestSessions
from sagas.storage.transitions import PROBE_SECONDS, Ended, Suspended, Transition, outbox_of


class MemorySagaStorage(ISagaStorage):
    """Stores sagas in memory, by the rules of `sagas.storage.rules`. Several threads may use it.

    Args:
        clock: returns the time; tests pass one that they control.
        sessions: opens the session of a transactional step, as `sessionmaker(engine).begin` of a test database does.
            What the step writes is committed right before its checkpoint, which no crash separates from it in a test.
    """

    def __init__(self, clock: Callable[[], datetime] = utc_now, *, sessions: TestSessions | None = None) -> None:
        self._clock = clock
        self._sessions = sessions
        self._lock = threading.RLock()
        self._sagas: dict[UUID, SagaRecord] = {}
        self._definitions: dict[str, Definition] = {}
        self._pauses: dict[str, Pause] = {}
        self._schedules: dict[str, datetime] = {}
        self._yields: dict[UUID, datetime] = {}
        self._deliveries: dict[bool, tuple[datetime | None, datetime]] = {}
        self._signals: dict[UUID, list[Signal]] = {}
        self._undelivered: list[Signal] = []
        self._log_ids = 0
        self._signal_ids = 0
        self._outbox: dict[int, tuple[OutboxTask, datetime]] = {}
        self._outbox_ids = 0

    # -- the public contract of recovery ----------------------------------------------------------------------

    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        require_recovery_arguments(limit, max_recovery_attempts, stale_after_seconds)
        with self._lock:
            now = self._clock()
            found = [
                saga
                for saga in self._sagas.values()
                if saga.status in RECOVERABLE
                and saga.state in (*rules.SCHEDULED, SagaState.QUEUED)
                and saga.due(now)
                and saga.recovery_attempts < max_recovery_attempts
                and (stale_after_seconds is None or saga.updated_at < now - timedelta(seconds=stale_after_seconds))
                and saga_name in (None, saga.name)
            ]
            return [saga.id for saga in sorted(found, key=lambda saga: (saga.updated_at, saga.id))[:limit]]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        with self._lock:
            status = None if new_status is None else SagaStatus(new_status)
            counted = count_attempt(self._get(saga_id), status, now=self._clock())
            self._put(self._log(counted.record, counted.events))

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        with self._lock:
            self._put(set_attempts(self._get(saga_id), attempts, now=self._clock()))

    # -- starting and reading ---------------------------------------------------------------------------------

    def register_definition(self, definition: Definition) -> None:
        with self._lock:
            self._definitions.setdefault(definition.hash, definition)

    def load_definition(self, definition_hash: str) -> Definition:
        with self._lock:
            if definition_hash not in self._definitions:
                raise DefinitionNotFound(f"no definition of a saga has the hash {definition_hash}.")
            return self._definitions[definition_hash]

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
        if connection is not None:
            raise TypeError("MemorySagaStorage has no transactions to join: start the saga without a connection.")
        with self._lock, self._all_or_nothing():
            now = self._clock()
            created = []
            for new in sagas:
                known = None if new.idempotency_key is None else self.find_id(new.name, new.idempotency_key)
                if known is not None:
                    if on_conflict == "raise":
                        raise AlreadyStarted(known, new.name, new.idempotency_key)
                    created.append((known, False))
                    continue
                if new.id in self._sagas:
                    raise exists(new.id)
                due = at or now + timedelta(seconds=after_seconds)
                record = new.as_record(now=now, lease=lease, due=due)
                if lease is not None:
                    record = replace(record, available_at=now + timedelta(seconds=lease.seconds))
                elif queued:
                    record = rules.queue(record, now)
                self._put(record)
                created.append((new.id, True))
            return created

    def load(self, saga_id: UUID) -> SagaRecord:
        with self._lock:
            return self._get(saga_id)

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        with self._lock:
            found = [replace(saga, log=()) for saga in self._sagas.values() if wanted.matches(saga)]
            return sorted(found, key=lambda saga: saga.id, reverse=True)[: wanted.limit]

    def find_id(self, name: str, idempotency_key: str) -> UUID | None:
        with self._lock:
            same = (s.id for s in self._sagas.values() if (s.name, s.idempotency_key) == (name, idempotency_key))
            return next(same, None)

    # -- signals ----------------------------------------------------------------------------------------------

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        if connection is not None:
            raise TypeError("MemorySagaStorage has no transactions to join: send the signal without a connection.")
        with self._lock:
            known = self._signals.setdefault(signal.saga_id, [])
            if any((s.kind, s.name, s.signal_id) == (signal.kind, signal.name, signal.signal_id) for s in known):
                return False
            self._signal_ids += 1
            stored = replace(signal, id=self._signal_ids, sent_at=self._clock())
            known.append(stored)
            self._undelivered.append(stored)
            return True

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        with self._lock:
            now, claims = self._clock(), []
            for saga_id in dict.fromkeys(saga_ids):
                new = [signal for signal in self._undelivered if signal.saga_id == saga_id]
                saga = self._sagas.get(saga_id)
                self._undelivered = [signal for signal in self._undelivered if signal.saga_id != saga_id]
                if saga is None:
                    self._signals.pop(saga_id, None)
                if saga is None or not new:
                    continue
                cancels = any(signal.kind is SignalKind.CANCEL for signal in new)
                changed = self._put(rules.deliver(saga, now, count=len(new), cancels=cancels))
                if changed.state is not saga.state:
                    claims.append(Claim(saga.id, saga.version, saga.status is SagaStatus.PENDING, now))
            return claims

    def undelivered(self, *, older_than_seconds: float, limit: int) -> list[UUID]:
        with self._lock:
            edge = self._clock() - timedelta(seconds=older_than_seconds)
            old = [signal.saga_id for signal in self._undelivered if signal.sent_at and signal.sent_at <= edge]
            return list(dict.fromkeys(old[:limit]))

    def signals(self, saga_id: UUID) -> list[Signal]:
        with self._lock:
            return list(self._signals.get(saga_id, ()))

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
        with self._lock:
            saga, now = self._sagas.get(saga_id), self._clock()
            if saga is None:
                return NotAcquired(Refusal.NOT_FOUND)
            why = rules.judge(
                saga,
                request,
                now,
                max_recovery_attempts=max_recovery_attempts,
                version=version,
                by_hand=by_hand,
                name_paused=saga.name in self._pauses,
            )
            if why is not None:
                changed = rules.refused(saga, why, now, max_recovery_attempts=max_recovery_attempts)
                return NotAcquired(why, replace(self._keep(changed), log=()))
            acquired, event = rules.acquire(saga, request, now, max_recovery_attempts=max_recovery_attempts)
            record = self._put(self._log(acquired.record, () if event is None else (event,)))
            return replace(acquired, record=record)

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        with self._lock:
            saga = self._held(lease)
            if rules.unread(saga, transition):
                raise InboxMoved(saga.inbox)
            changed = self._log(rules.apply(saga, lease, transition, self._clock()), self._signed(lease, transition))
            self._put(changed)
            outbox = []
            for asked in outbox_of(transition):
                self._outbox_ids += 1
                task = OutboxTask(self._outbox_ids, saga.id, asked.task, asked.arguments)
                self._outbox[task.id] = task, self._clock()
                outbox.append(task)
            return Applied(
                status=changed.status,
                state=changed.state,
                recovery_attempts=changed.recovery_attempts,
                available_at=None if changed.state is SagaState.RUNNING else changed.available_at,
                log=changed.log[len(saga.log) :],
                inbox=changed.inbox,
                outbox=tuple(outbox),
            )

    def begin_step(self, lease: Lease, step: str, session: type[StepSession]) -> StepTransaction:
        return _StepInMemory(self, lease, step, session.in_a_test(step, self._sessions))

    def require_held(self, lease: Lease, step: str) -> None:
        """Make sure that a lease holds the saga, and that this step is not checkpointed already.

        Raises:
            LeaseLost: it does not, or the step is.
        """
        with self._lock:
            in_flight = self._held(lease).in_flight
            if in_flight is not None and step not in in_flight:
                raise lease_lost(lease)

    def renew(self, lease: Lease, seconds: float) -> bool:
        with self._lock:
            saga, now = self._held(lease), self._clock()
            self._put(rules.renew(saga, now, seconds))
            return saga.name in self._pauses or self._yields.get(saga.id, now) > now

    def request_yield(self, saga_id: UUID, *, actor: str, for_seconds: float) -> None:
        with self._lock:
            self._yields[saga_id] = self._clock() + timedelta(seconds=for_seconds)

    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        with self._lock:
            self._put(replace(self._held(lease), definition=definition_hash))

    def operate(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Transition],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Applied | NotAcquired:
        request = LeaseRequest(owner=owner, seconds=0.0)
        with self._lock, self._all_or_nothing():
            found = self.acquire(saga_id, request, max_recovery_attempts=max_recovery_attempts, by_hand=True)
            if isinstance(found, NotAcquired) and found.why is Refusal.DIED:
                found = self.acquire(saga_id, request, max_recovery_attempts=max_recovery_attempts, by_hand=True)
            return found if isinstance(found, NotAcquired) else self.apply(found.lease, decide(found.record))

    # -- dispatching ------------------------------------------------------------------------------------------

    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        require_counts(limit=limit, max_recovery_attempts=max_recovery_attempts)
        with self._lock:
            now = self._clock()
            self._free_resumed()
            lost = self._claim_lost(now, pending=pending, limit=limit)
            kind = [saga for saga in self._sagas.values() if (saga.status is SagaStatus.PENDING) == pending]
            kind = [saga for saga in kind if not saga.status.finished]
            waiting = sum(saga.state is SagaState.QUEUED for saga in kind)
            due = rules.due_first((saga for saga in kind if saga.state in rules.SCHEDULED), now)
            claims, died = lost.copy(), []
            for saga in due[: max(limit - waiting, 0)]:
                paused = saga.name in self._pauses
                changed = self._keep(
                    rules.claim(saga, now, max_recovery_attempts=max_recovery_attempts, name_paused=paused)
                )
                if changed.dead:
                    died.append(saga.id)
                elif changed.state is SagaState.QUEUED:
                    claims.append(Claim(saga.id, saga.version, pending, now))
            return ClaimResult(claims=tuple(claims), died=tuple(died), lost=len(lost))

    def _claim_lost(self, now: datetime, *, pending: bool, limit: int) -> list[Claim]:
        queued = [saga for saga in self._sagas.values() if saga.state is SagaState.QUEUED]
        queued = [saga for saga in queued if (saga.status is SagaStatus.PENDING) == pending]
        queued.sort(key=lambda saga: saga.available_at or now)
        delivered, delivered_at = self._deliveries.get(pending, (None, None))
        lost = [saga for saga in queued if rules.lost_message(saga, delivered)][:limit]
        moves = delivered_at is not None and delivered_at > now - timedelta(seconds=PROBE_SECONDS)
        waits = moves or any(rules.probed_lately(saga, now) for saga in queued)
        probed = [] if waits else [saga for saga in queued if saga.due(now) and saga not in lost][: rules.PROBES]
        claims = []
        for saga in (*lost, *probed):
            if saga.name in self._pauses:
                self._put(rules.pause_queued(saga, now))
            else:
                self._put(rules.probe(saga, now) if saga in probed else rules.queue(saga, now))
                claims.append(Claim(saga.id, saga.version, pending, now))
        return claims

    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        with self._lock:
            now = self._clock()
            found = [self._sagas[saga_id] for saga_id in dict.fromkeys(saga_ids) if saga_id in self._sagas]
            free = [saga for saga in found if saga.status is SagaStatus.PENDING and saga.state is SagaState.READY]
            free = [saga for saga in free if saga.due(now) and saga.name not in self._pauses]
            for saga in free:
                self._put(rules.queue(saga, now))
            return [Claim(saga.id, saga.version, True, now) for saga in free]

    def note_delivery(self, claim: Claim) -> None:
        with self._lock:
            before, _ = self._deliveries.get(claim.pending, (None, None))
            started = self._sagas.get(claim.saga_id) if claim.pending else None
            queued_at = claim.queued_at or (None if started is None else started.created_at)
            newest = max((time for time in (before, queued_at) if time is not None), default=None)
            self._deliveries[claim.pending] = (newest, self._clock())

    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        with self._lock:
            held = [saga for saga in self._sagas.values() if saga.lease_owner == owner]
            for saga in held:
                self._keep(rules.reclaim(saga, self._clock(), max_recovery_attempts=max_recovery_attempts))
            return len(held)

    def release_claims(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                saga = self._sagas.get(claim.saga_id)
                if saga is not None and saga.version == claim.version and saga.state is SagaState.QUEUED:
                    self._put(rules.release(saga, self._clock()))

    # -- the outbox -------------------------------------------------------------------------------------------

    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        with self._lock:
            now = self._clock()
            edge = now - timedelta(seconds=older_than_seconds)
            old = [task for task, since in self._outbox.values() if since < edge][:limit]
            self._outbox.update({task.id: (task, now) for task in old})
            return old

    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        with self._lock:
            for row in ids:
                self._outbox.pop(row, None)

    # -- pausing ----------------------------------------------------------------------------------------------

    # Pause and resume have the same parts as in PostgreSQL, so that tests can let others act between the parts.

    def pause(self, name: str, *, actor: str, reason: str) -> int:
        require_storable(name=name, actor=actor, reason=reason)
        with self._lock:
            self._begin_pause(name, actor=actor, reason=reason)
            return self._pause_due(name)

    def resume(self, name: str) -> int:
        with self._lock:
            self._begin_resume(name)
            return self._free_resumed()

    def _begin_pause(self, name: str, *, actor: str, reason: str) -> None:
        since = self._pauses[name].since if name in self._pauses else self._clock()
        self._pauses[name] = Pause(name=name, actor=actor, reason=reason, since=since)

    def _pause_due(self, name: str) -> int:
        with self._lock:
            if name not in self._pauses:
                return 0
            now = self._clock()
            states = (SagaState.READY, SagaState.WAITING)
            due = [s for s in self._sagas.values() if s.name == name and s.state in states and s.due(now)]
            for saga in due:
                self._put(replace(saga, state=SagaState.PAUSED, updated_at=now))
            return len(due)

    def _begin_resume(self, name: str) -> None:
        self._pauses.pop(name, None)

    def _free_resumed(self) -> int:
        with self._lock:
            paused = [saga for saga in self._sagas.values() if saga.state is SagaState.PAUSED]
            freed = [saga for saga in paused if saga.name not in self._pauses]
            for saga in freed:
                self._put(rules.resume(saga))
            return len(freed)

    def pauses(self) -> list[Pause]:
        with self._lock:
            return sorted(self._pauses.values(), key=lambda pause: pause.name)

    # -- schedules --------------------------------------------------------------------------------------------

    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        with self._lock:
            now = self._clock()
            return ScheduleTicks(now=now, last={name: self._schedules.setdefault(name, now) for name in names})

    def note_tick(self, name: str, tick: datetime) -> None:
        with self._lock:
            self._schedules[name] = max(tick, self._schedules.get(name, tick))

    # -- housekeeping -----------------------------------------------------------------------------------------

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        with self._lock:
            edge = self._clock() - timedelta(seconds=older_than_seconds)
            old = [s for s in self._sagas.values() if s.finished_at is not None and s.finished_at < edge]
            for saga in sorted(old, key=lambda s: s.finished_at or edge)[:limit]:
                del self._sagas[saga.id]
                self._signals.pop(saga.id, None)
                self._undelivered = [signal for signal in self._undelivered if signal.saga_id != saga.id]
            return min(len(old), limit)

    def check_schema(self) -> None:
        return

    # -- rows -------------------------------------------------------------------------------------------------

    def _get(self, saga_id: UUID) -> SagaRecord:
        if saga_id not in self._sagas:
            raise not_found(saga_id)
        return self._sagas[saga_id]

    def _held(self, lease: Lease) -> SagaRecord:
        saga = self._sagas.get(lease.saga_id)
        if saga is None or not rules.holds(saga, lease):
            raise lease_lost(lease)
        return saga

    def _put(self, saga: SagaRecord) -> SagaRecord:
        self._sagas[saga.id] = saga
        return saga

    def _keep(self, changed: Reclaimed | SagaRecord) -> SagaRecord:
        """Put a record that a rule returned, with the row for its log if there is one."""
        if isinstance(changed, Reclaimed):
            return self._put(self._log(changed.record, (changed.event,)))
        return self._put(changed)

    def _log(self, saga: SagaRecord, events: Sequence[LogEntry]) -> SagaRecord:
        now = self._clock()
        rows = []
        for event in events:
            self._log_ids += 1
            rows.append(replace(event, id=self._log_ids, created_at=now))
        return replace(saga, log=(*saga.log, *rows))

    def _signed(self, lease: Lease, transition: Transition) -> list[LogEntry]:
        return [replace(event, version=lease.version, worker=lease.owner) for event in transition.events]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before, outbox = dict(self._sagas), dict(self._outbox)
        try:
            yield
        except BaseException:
            self._sagas, self._outbox = before, outbox
            raise


class _StepInMemory(StepTransaction):
    """The transaction of a step on a test database, next to sagas in memory."""

    def __init__(
        self, storage: MemorySagaStorage, lease: Lease, step: str, session: AbstractContextManager[Any]
    ) -> None:
        self._storage = storage
        self._lease = lease
        self._step = step
        self._session: AbstractContextManager[Any] | None = session
        opened = session.__enter__()
        self.arguments = () if opened is None else (opened,)

    def apply(
        self, transition: Transition, then: Suspended | Ended | None = None, following: NextStep | None = None
    ) -> Applied:
        try:
            self._storage.require_held(self._lease, self._step)
        except LeaseLost:
            self.roll_back()
            raise
        session, self._session = self._session, None
        assert session is not None
        try:
            session.__exit__(None, None, None)
        except Exception as error:
            raise StepRolledBack(f"the database did not commit step {self._step} ({error}).", error) from error
        applied = self._storage.apply(self._lease, transition)
        with suppress(InboxMoved):
            applied = applied if then is None else applied.followed_by(self._storage.apply(self._lease, then))
        return applied

    def roll_back(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            error = _RolledBack()
            with suppress(Exception):
                session.__exit__(_RolledBack, error, None)


class _RolledBack(Exception):
    """Has a session roll back."""
