"""Sagas in this process's memory: for tests and examples; everything is gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sagas.errors import AlreadyStarted
from sagas.progress import RECOVERABLE, Action, EntryStatus, SagaStatus, turned_back
from sagas.storable import require_storable
from sagas.storage.attempts import count_attempt
from sagas.storage.base import (
    DEFAULT_MAX_RECOVERY_ATTEMPTS,
    MOST_ATTEMPTS,
    PAUSED,
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
    exists,
    lease_lost,
    not_found,
    require_attempts,
    require_counts,
    require_end,
    require_recovery_arguments,
    require_seconds,
)

_NEVER = datetime.max.replace(tzinfo=UTC)
_IN_HAND = timedelta(seconds=2)


class MemorySagaStorage(ISagaStorage):
    """Stores sagas in memory, with the same answers as PostgreSQL.

    Args:
        clock: the storage's idea of now; a test may give one that it moves by hand.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._sagas: dict[UUID, SagaRecord] = {}
        self._log_ids = 0
        self._pauses: dict[str, Pause] = {}
        self._resumes: set[str] = set()
        self._asks: dict[UUID, datetime] = {}

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
            stale = None if stale_after_seconds is None else now - timedelta(seconds=stale_after_seconds)
            found = [
                saga
                for saga in self._sagas.values()
                if saga.status in RECOVERABLE
                and _due(saga, now)
                and saga.recovery_attempts < max_recovery_attempts
                and (stale is None or saga.updated_at < stale)
                and saga_name in (None, saga.name)
            ]
            found.sort(key=lambda saga: (saga.updated_at, saga.id))
            return [saga.id for saga in found[:limit]]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        if new_status is not None:
            new_status = SagaStatus(new_status)
        with self._changing(saga_id) as saga:
            now = self._clock()
            counted = count_attempt(saga, new_status or saga.status, now=now)
            if counted.note is not None:
                saga = self._log(saga, counted.note)
            self._put(
                saga,
                recovery_attempts=min(saga.recovery_attempts + 1, MOST_ATTEMPTS),
                status=counted.status,
                interrupted=counted.interrupted,
                lease_owner=None if counted.frees else saga.lease_owner,
                available_at=now if counted.frees else saga.available_at,
                updated_at=now,
            )

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        with self._changing(saga_id) as saga:
            revived = saga.available_at is None and saga.lease_owner is None and saga.status in RECOVERABLE
            self._put(
                saga,
                recovery_attempts=attempts,
                available_at=self._clock() if revived else saga.available_at,
            )

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
        if connection is not None:
            raise TypeError("MemorySagaStorage takes part in no transaction: start the saga without a connection.")
        held = owner not in (None, QUEUE)
        answers: list[tuple[UUID, bool]] = []
        with self._lock, self._all_or_nothing():
            now = self._clock()
            for new in sagas:
                existing = self._by_key(new)
                answers.append((existing or new.id, existing is None))
                if existing is not None:
                    if on_conflict == "raise":
                        raise AlreadyStarted(existing, new.name, new.idempotency_key)
                    continue
                if new.id in self._sagas:
                    raise exists(new.id)
                self._sagas[new.id] = SagaRecord(
                    id=new.id,
                    name=new.name,
                    status=SagaStatus.RUNNING if held else SagaStatus.PENDING,
                    context=new.context,
                    version=1 if held else 0,
                    recovery_attempts=0,
                    lease_owner=owner,
                    available_at=now + timedelta(seconds=for_seconds),
                    last_error=None,
                    idempotency_key=new.idempotency_key,
                    definition_version=new.definition_version,
                    interrupted=False,
                    created_at=now,
                    updated_at=now,
                    finished_at=None,
                    traceparent=new.traceparent,
                )
        return answers

    def load(self, saga_id: UUID) -> SagaRecord:
        with self._changing(saga_id) as saga:
            return saga

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        require_counts(limit=wanted.limit)
        with self._lock:
            found = [
                replace(saga, log=())
                for saga in self._sagas.values()
                if (not wanted.statuses or saga.status in wanted.statuses)
                and wanted.name in (None, saga.name)
                and wanted.dead in (None, saga.dead)
            ]
        return sorted(found, key=lambda saga: saga.id, reverse=True)[: wanted.limit]

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
        with self._lock:
            saga = self._sagas.get(saga_id)
            if saga is None:
                return Refused(Refusal.NOT_FOUND)
            now = self._clock()
            paused = saga.name in self._pauses
            why = _why_not(saga, now, max_recovery_attempts, version=version, by_hand=by_hand, paused=paused)
            if why not in (None, Refusal.DIED):
                return Refused(why, saga)
            before = saga.status
            if _crashed(saga, now):
                saga = self._seize(saga, max_recovery_attempts)
            if why is Refusal.DIED:
                dead = {"status": SagaStatus.FAILED, "available_at": None, "version": saga.version + 1}
                return Refused(why, self._put(saga, **dead))
            if saga.status is SagaStatus.PENDING or saga.status is SagaStatus.FAILED:
                status = SagaStatus.COMPENSATING if turned_back(saga.log) else SagaStatus.RUNNING
            else:
                status = saga.status
            saga = self._put(
                saga,
                version=saga.version + 1,
                status=status,
                # Taken by hand although dead: it has one attempt left, whatever it had spent.
                recovery_attempts=min(saga.recovery_attempts, max_recovery_attempts - 1),
                lease_owner=owner,
                available_at=now + timedelta(seconds=lease_seconds),
                updated_at=now,
            )
            return Taken(Hold(saga_id, saga.version, owner), saga, before)

    def checkpoint(
        self,
        hold: Hold,
        entry: LogEntry | None,
        *,
        status: SagaStatus,
        context: str | None = None,
        release: Release | None = None,
    ) -> None:
        if entry is None:
            require_end(status, release)
        with self._held(hold) as saga:
            now = self._clock()
            if entry is not None:
                saga = self._log(saga, replace(entry, version=hold.version, worker=hold.owner))
                saga = self._put(saga, updated_at=now)
                if entry.action is Action.OPERATOR and release is None and not status.finished:
                    return
                saga = self._put(
                    saga,
                    last_error=describe(entry) or saga.last_error,
                    recovery_attempts=saga.recovery_attempts if entry.status is EntryStatus.FAILED else 0,
                )
            saga = self._put(
                saga,
                status=status,
                context=saga.context if context is None else context,
                interrupted=False,
                updated_at=now,
            )
            if release is not None:
                self._release(saga, release)
            elif status.finished:
                self._put(
                    saga,
                    recovery_attempts=0,
                    last_error=None if status is SagaStatus.COMPLETED else saga.last_error,
                    lease_owner=None,
                    available_at=None,
                    finished_at=now,
                )

    def renew(self, hold: Hold, lease_seconds: float) -> bool:
        with self._held(hold) as saga:
            now = self._clock()
            self._put(saga, available_at=now + timedelta(seconds=lease_seconds), updated_at=now)
            return saga.name in self._pauses or self._asks.get(saga.id, now) > now

    def ask_back(self, saga_id: UUID, *, by: str, for_seconds: float) -> None:
        with self._lock:
            self._asks[saga_id] = self._clock() + timedelta(seconds=for_seconds)

    def release(self, hold: Hold, release: Release) -> None:
        with self._held(hold) as saga:
            self._release(saga, release)

    def intervene(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Intervention],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Refused | None:
        take = partial(self.take, saga_id, owner=owner, lease_seconds=0.0, max_recovery_attempts=max_recovery_attempts)
        with self._lock:
            before = self._sagas.get(saga_id)
            try:
                taken = take(by_hand=True)
                if isinstance(taken, Refused) and taken.why is Refusal.DIED:
                    taken = take(by_hand=True)
                if isinstance(taken, Refused):
                    return taken
                made = decide(taken.record)
                self.checkpoint(taken.hold, made.entry, status=made.status, release=made.release)
            except BaseException:
                if before is not None:
                    self._sagas[saga_id] = before
                raise
            return None

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
        statuses = (SagaStatus.PENDING,) if pending else RECOVERABLE
        with self._lock:
            now = self._clock()
            queued = [s for s in self._sagas.values() if s.status in statuses and s.lease_owner == QUEUE]
            overdue = sorted((s for s in queued if _due(s, now)), key=_by_due_time)
            missing = overdue[: max(len(overdue) - messages_waiting, 0)][:limit]
            for saga in missing:
                self._put(saga, lease_owner=None, available_at=now + _IN_HAND)
            room = max(limit - (len(queued) - len(missing)), 0)
            due = [s for s in self._sagas.values() if s.status in statuses and s.lease_owner != QUEUE and _due(s, now)]
            claims, died = [], []
            for saga in sorted(due, key=_by_due_time)[:room]:
                seized = self._seize(saga, max_recovery_attempts)
                if seized.dead:
                    died.append(saga.id)
                    continue
                if saga.name in self._pauses:
                    self._put(seized, lease_owner=PAUSED, available_at=None)
                    continue
                self._put(seized, lease_owner=QUEUE, available_at=now + timedelta(seconds=mark_seconds))
                claims.append(Claim(saga.id, saga.version, pending))
            self._free_parked()
            return ClaimResult(claims=tuple(claims), died=tuple(died), missing=len(missing))

    def claim_by_id(self, saga_ids: Sequence[UUID], *, mark_seconds: float) -> list[Claim]:
        with self._lock:
            now = self._clock()
            found = [self._sagas[saga_id] for saga_id in dict.fromkeys(saga_ids) if saga_id in self._sagas]
            free = [s for s in found if s.status is SagaStatus.PENDING and s.lease_owner is None and _due(s, now)]
            for saga in free:
                self._put(saga, lease_owner=QUEUE, available_at=now + timedelta(seconds=mark_seconds))
            return [Claim(saga.id, saga.version, pending=True) for saga in free]

    def seize_orphans(self, owner: str, *, max_recovery_attempts: int) -> int:
        with self._lock:
            held = [s for s in self._sagas.values() if s.lease_owner not in (None, QUEUE, PAUSED)]
            orphans = [saga for saga in held if saga.status in RECOVERABLE and saga.lease_owner == owner]
            for saga in orphans:
                self._seize(saga, max_recovery_attempts)
            return len(orphans)

    def unclaim(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                saga = self._sagas.get(claim.saga_id)
                if saga is not None and saga.version == claim.version and saga.lease_owner == QUEUE:
                    self._put(saga, lease_owner=None, available_at=self._clock())

    # -- pausing ----------------------------------------------------------------------------------------------

    # In the pieces in which PostgreSQL does them, between which others may do theirs.

    def pause(self, name: str, *, by: str, because: str) -> int:
        require_storable(name=name, by=by, reason=because)
        with self._lock:
            self._begin_pause(name, by=by, because=because)
            return self._park(name)

    def resume(self, name: str) -> int:
        with self._lock:
            self._begin_resume(name)
            return self._free_parked()

    def _begin_pause(self, name: str, *, by: str, because: str) -> None:
        since = self._pauses[name].since if name in self._pauses else self._clock()
        self._pauses[name] = Pause(name=name, by=by, because=because, since=since)
        self._resumes.discard(name)

    def _park(self, name: str) -> int:
        with self._lock:
            if name not in self._pauses:
                return 0
            now = self._clock()
            unfinished = [s for s in self._sagas.values() if s.name == name and not s.status.finished]
            parked = [saga for saga in unfinished if saga.lease_owner is None and _due(saga, now)]
            for saga in parked:
                self._put(saga, lease_owner=PAUSED, available_at=None)
            return len(parked)

    def _begin_resume(self, name: str) -> None:
        self._pauses.pop(name, None)
        self._resumes.add(name)

    def _free_parked(self) -> int:
        with self._lock:
            parked = [s for s in self._sagas.values() if s.name in self._resumes and s.lease_owner == PAUSED]
            parked = [saga for saga in parked if not saga.status.finished]
            for saga in parked:
                self._put(saga, lease_owner=None, available_at=self._clock())
            self._resumes.clear()
            return len(parked)

    def pauses(self) -> list[Pause]:
        with self._lock:
            return sorted(self._pauses.values(), key=lambda pause: pause.name)

    # -- housekeeping -----------------------------------------------------------------------------------------

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        with self._lock:
            edge = self._clock() - timedelta(seconds=older_than_seconds)
            old = [s for s in self._sagas.values() if s.finished_at is not None and s.finished_at < edge]
            for saga in sorted(old, key=lambda s: s.finished_at or edge)[:limit]:
                del self._sagas[saga.id]
            return min(len(old), limit)

    def check_schema(self) -> None:
        return

    # -- rows -------------------------------------------------------------------------------------------------

    def _put(self, saga: SagaRecord, **changes: Any) -> SagaRecord:
        changed = self._sagas[saga.id] = replace(saga, **changes)
        return changed

    def _log(self, saga: SagaRecord, entry: LogEntry) -> SagaRecord:
        self._log_ids += 1
        return self._put(saga, log=(*saga.log, replace(entry, id=self._log_ids, created_at=self._clock())))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = dict(self._sagas)
        try:
            yield
        except BaseException:
            self._sagas = before
            raise

    def _by_key(self, new: NewSaga) -> UUID | None:
        if new.idempotency_key is None:
            return None
        same = (s.id for s in self._sagas.values() if (s.name, s.idempotency_key) == (new.name, new.idempotency_key))
        return next(same, None)

    @contextmanager
    def _changing(self, saga_id: UUID) -> Iterator[SagaRecord]:
        with self._lock:
            if saga_id not in self._sagas:
                raise not_found(saga_id)
            yield self._sagas[saga_id]

    @contextmanager
    def _held(self, hold: Hold) -> Iterator[SagaRecord]:
        with self._lock:
            saga = self._sagas.get(hold.saga_id)
            if saga is None or (saga.version, saga.lease_owner) != (hold.version, hold.owner):
                raise lease_lost(hold)
            yield saga

    def _release(self, saga: SagaRecord, release: Release) -> None:
        attempts = saga.recovery_attempts + release.failed_attempt
        dies = release.failed_attempt and attempts >= release.max_recovery_attempts
        now = self._clock()
        self._put(
            saga,
            status=release.status,
            recovery_attempts=attempts,
            interrupted=saga.interrupted or release.interrupted,
            last_error=release.last_error or saga.last_error,
            lease_owner=QUEUE if release.to_queue and not dies else None,
            available_at=None if dies else now + timedelta(seconds=release.after_seconds),
            updated_at=now,
        )

    def _seize(self, saga: SagaRecord, max_recovery_attempts: int) -> SagaRecord:
        """Free a saga: count its holder's crash, if it had one, and bury it at the maximum."""
        crashed = saga.lease_owner is not None
        attempts = saga.recovery_attempts + (crashed and saga.version >= 2)
        dies = saga.status is not SagaStatus.PENDING and attempts >= max_recovery_attempts
        now = self._clock()
        return self._put(
            saga,
            recovery_attempts=attempts,
            interrupted=saga.interrupted or crashed,
            last_error=f"worker {saga.lease_owner} died or was cut off while holding the lease"
            if crashed
            else saga.last_error,
            status=SagaStatus.FAILED if dies else saga.status,
            lease_owner=None,
            available_at=None if dies else now,
            updated_at=now,
        )


def _due(saga: SagaRecord, now: datetime) -> bool:
    return saga.available_at is not None and saga.available_at <= now


def _by_due_time(saga: SagaRecord) -> datetime:
    return saga.available_at or _NEVER


def _crashed(saga: SagaRecord, now: datetime) -> bool:
    return saga.lease_owner not in (None, QUEUE) and _due(saga, now)


def _why_not(
    saga: SagaRecord, now: datetime, max_attempts: int, *, version: int | None, by_hand: bool, paused: bool
) -> Refusal | None:
    if saga.status.finished:
        return Refusal.FINISHED
    crashed = _crashed(saga, now)
    if saga.lease_owner not in (None, QUEUE, PAUSED) and not crashed:
        return Refusal.HELD
    if version is not None and saga.version != version:
        return Refusal.OUTDATED
    if crashed and saga.version >= 2 and saga.recovery_attempts + 1 >= max_attempts:
        return Refusal.DIED
    if by_hand:
        return None
    buried = saga.available_at is None and saga.lease_owner is None
    if saga.status in RECOVERABLE and (saga.recovery_attempts >= max_attempts or buried):
        return Refusal.DEAD
    if paused:
        return Refusal.PAUSED
    if version is None and saga.lease_owner is None and not _due(saga, now):
        return Refusal.WAITING
    return None
