"""The scheduling rules, as pure functions over a saga's record.

What a state implies (`check_legal` verifies it):

| state | status | lease | `available_at` |
|---|---|---|---|
| ready | PENDING, RUNNING, COMPENSATING, FAILED | none | when it is due |
| queued | the same | none | when a scan asks whether its message is lost |
| running | RUNNING, COMPENSATING | the holder's | when the lease expires |
| waiting | RUNNING, COMPENSATING | none | the earliest deadline, or infinity |
| paused | PENDING, RUNNING, COMPENSATING, FAILED | none | kept for resuming |
| dead | FAILED | none | infinity |
| finished | COMPLETED, COMPENSATED | none | infinity |

`MemorySagaStorage` runs these functions; PostgreSQL's statements are tested against them over the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sagas.progress import Action, EntryStatus, SagaStatus, aborted
from sagas.storage import dead_letters
from sagas.storage.answers import Acquired, Refusal
from sagas.storage.leases import Lease, LeaseRequest, is_shared
from sagas.storage.records import LogEntry, SagaRecord, SagaState
from sagas.storage.transitions import PROBE_SECONDS, Transition, change_of

_BEGUN: Final = (SagaStatus.RUNNING, SagaStatus.COMPENSATING)
_UNFINISHED: Final = (SagaStatus.PENDING, *_BEGUN, SagaStatus.FAILED)
#: The legal combinations of state and status.
LEGAL: Final = {
    SagaState.READY: _UNFINISHED,
    SagaState.QUEUED: _UNFINISHED,
    SagaState.RUNNING: _BEGUN,
    SagaState.WAITING: _BEGUN,
    SagaState.PAUSED: _UNFINISHED,
    SagaState.DEAD: (SagaStatus.FAILED,),
    SagaState.FINISHED: (SagaStatus.COMPLETED, SagaStatus.COMPENSATED),
}
#: States in which a saga is due once `available_at` has passed.
SCHEDULED: Final = (SagaState.READY, SagaState.RUNNING, SagaState.WAITING)


def check_legal(record: SagaRecord) -> None:
    """Make sure that a record is a row of the table above.

    Raises:
        ValueError: it is not. The message names the column that is wrong.
    """
    held = record.state is SagaState.RUNNING
    never = record.state in (SagaState.DEAD, SagaState.FINISHED)
    wrong = None
    if record.status not in LEGAL[record.state]:
        wrong = f"its status is {record.status}"
    elif held != (record.lease_owner is not None) or held != (record.lease_token is not None):
        wrong = f"its lease is owned by {record.lease_owner}"
    elif never != (record.available_at is None) and record.state is not SagaState.WAITING:
        wrong = f"it is available at {record.available_at}"
    elif record.in_flight is not None and not held:
        wrong = f"it has no holder, yet {', '.join(record.in_flight)} may be in flight"
    elif (record.state is SagaState.FINISHED) != (record.finished_at is not None):
        wrong = f"it finished at {record.finished_at}"
    if wrong is not None:
        raise ValueError(f"saga {record.id} cannot be {record.state}: {wrong}.")


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A saga whose holder was lost, and the row that its log gets."""

    record: SagaRecord
    event: LogEntry


def expired(record: SagaRecord, now: datetime) -> bool:
    """Whether the saga is running and its lease has expired: the holder crashed, froze or was cut off."""
    return record.state is SagaState.RUNNING and record.due(now)


def judge(
    record: SagaRecord,
    request: LeaseRequest,
    now: datetime,
    *,
    max_recovery_attempts: int,
    version: int | None,
    by_hand: bool,
    name_paused: bool,
) -> Refusal | None:
    """Return why a request may not acquire a saga, or None if it may."""
    lost = expired(record, now)
    died = lost and dead_letters.dies(record, max_recovery_attempts=max_recovery_attempts)
    spent = dead_letters.spent(record, max_recovery_attempts=max_recovery_attempts)
    suspect = record.suspect or (lost and is_shared(record.lease_owner))
    if record.state is SagaState.FINISHED:
        return Refusal.FINISHED
    if record.state is SagaState.RUNNING and not lost:
        return Refusal.HELD
    if version is not None and record.version != version:
        return Refusal.OUTDATED
    if died:
        return Refusal.DIED
    if not by_hand and (spent or record.state is SagaState.DEAD):
        return Refusal.DEAD
    if not by_hand and (record.state is SagaState.PAUSED or name_paused):
        return Refusal.PAUSED
    waits = record.state in (SagaState.READY, SagaState.WAITING) and not record.due(now)
    if not by_hand and version is None and waits:
        return Refusal.WAITING
    if suspect and is_shared(request.owner):
        return Refusal.SUSPECT
    return None


def acquire(
    record: SagaRecord, request: LeaseRequest, now: datetime, *, max_recovery_attempts: int
) -> tuple[Acquired, LogEntry | None]:
    """Return a saga that `judge` allows after it is acquired, and the row for its log if its holder was lost."""
    before, event = record.status, None
    if expired(record, now):
        reclaimed = reclaim(record, now, max_recovery_attempts=max_recovery_attempts)
        record, event = reclaimed.record, reclaimed.event
    status = before
    if before not in _BEGUN:
        status = SagaStatus.COMPENSATING if aborted(record.log) else SagaStatus.RUNNING
    record = replace(
        record,
        status=status,
        state=SagaState.RUNNING,
        version=record.version + 1,
        # A dead saga that an operator acquires has one attempt left, however many it has spent.
        recovery_attempts=min(record.recovery_attempts, max_recovery_attempts - 1),
        lease_owner=request.owner,
        lease_token=request.token,
        available_at=now + timedelta(seconds=request.seconds),
        in_flight=None,
        updated_at=now,
    )
    lease = Lease(record.id, record.version, request.owner, request.token)
    return Acquired(lease, record, before), event


def refused(record: SagaRecord, why: Refusal, now: datetime, *, max_recovery_attempts: int) -> Reclaimed | SagaRecord:
    """Return a saga after a refused request: one that died is dead, and one of a paused name is paused."""
    if why is Refusal.DIED:
        died = reclaim(record, now, max_recovery_attempts=max_recovery_attempts)
        return Reclaimed(replace(died.record, version=record.version + 1), died.event)
    if why is Refusal.PAUSED and record.state is not SagaState.PAUSED:
        return pause(record, now, max_recovery_attempts=max_recovery_attempts)
    return record


def reclaim(record: SagaRecord, now: datetime, *, max_recovery_attempts: int) -> Reclaimed:
    """Return a running saga after the loss of its holder: ready, or dead after the last attempt."""
    attempts = record.recovery_attempts + dead_letters.crash_counts(record)
    event = LogEntry(
        step="holder",
        action=Action.HOLDER,
        status=EntryStatus.LOST,
        in_flight=record.in_flight,
        version=record.version,
        worker=record.lease_owner,
    )
    changed = replace(
        record,
        recovery_attempts=attempts,
        suspect=record.suspect or is_shared(record.lease_owner),
        last_error=f"worker {record.lease_owner} died or was cut off while holding the lease",
        state=SagaState.READY,
        available_at=now,
        lease_owner=None,
        lease_token=None,
        in_flight=None,
        updated_at=now,
    )
    return Reclaimed(dead_letters.dead(changed, now) if attempts >= max_recovery_attempts else changed, event)


def pause(record: SagaRecord, now: datetime, *, max_recovery_attempts: int) -> Reclaimed | SagaRecord:
    """Return a saga of a paused name after it is paused. If its lease has expired, the log gets a row."""
    if record.state is SagaState.RUNNING:
        reclaimed = reclaim(record, now, max_recovery_attempts=max_recovery_attempts)
        if reclaimed.record.dead:
            return reclaimed
        return Reclaimed(replace(reclaimed.record, state=SagaState.PAUSED), reclaimed.event)
    if record.state is SagaState.QUEUED:
        return pause_queued(record, now)
    # A saga that waits only for a signal has no deadline to keep.
    return replace(record, state=SagaState.PAUSED, available_at=record.available_at or now, updated_at=now)


def pause_queued(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a queued saga of a paused name after it is paused. Its message arrived, is lost, or was probed in vain."""
    return replace(record, state=SagaState.PAUSED, available_at=now, updated_at=now)


def resume(record: SagaRecord) -> SagaRecord:
    """Return a paused saga after its name is resumed."""
    return replace(record, state=SagaState.READY)


def claim(
    record: SagaRecord, now: datetime, *, max_recovery_attempts: int, name_paused: bool
) -> Reclaimed | SagaRecord:
    """Return a due saga after a scan: queued, paused with its name, or dead."""
    event = None
    if record.state is SagaState.RUNNING:
        reclaimed = reclaim(record, now, max_recovery_attempts=max_recovery_attempts)
        record, event = reclaimed.record, reclaimed.event
    if record.state is not SagaState.DEAD:
        if dead_letters.spent(record, max_recovery_attempts=max_recovery_attempts):
            record = dead_letters.dead(record, now)
        elif name_paused:
            record = replace(record, state=SagaState.PAUSED, updated_at=now)
        else:
            record = queue(record, now)
    return record if event is None else Reclaimed(record, event)


def queue(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a saga for which a message is about to be sent."""
    return replace(record, state=SagaState.QUEUED, available_at=now + timedelta(seconds=PROBE_SECONDS), updated_at=now)


def release(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a queued saga for which no message could be sent."""
    return replace(record, state=SagaState.READY, available_at=now)


def apply(record: SagaRecord, lease: Lease, transition: Transition, now: datetime) -> SagaRecord:
    """Return a held saga after a transition. The transition's events are not added to the log here."""
    change = change_of(transition)
    attempts = (0 if change.resets else record.recovery_attempts) + change.counts
    dead = change.counts and attempts >= change.max_recovery_attempts
    state = SagaState.DEAD if dead else change.state
    held = state is SagaState.RUNNING
    if held:
        available_at = record.available_at
    elif state in (SagaState.DEAD, SagaState.FINISHED) or change.after_seconds is None:
        available_at = None
    else:
        available_at = now + timedelta(seconds=change.after_seconds)
    in_flight = change.in_flight if change.in_flight is not None else record.in_flight
    return replace(
        record,
        status=change.status,
        state=state,
        context=record.context if change.context is None else change.context,
        recovery_attempts=attempts,
        suspect=record.suspect and not change.resets,
        lease_owner=lease.owner if held else None,
        lease_token=lease.token if held else None,
        available_at=available_at,
        in_flight=in_flight if held else None,
        last_error=None if change.clears_error else change.last_error or record.last_error,
        finished_at=now if state is SagaState.FINISHED else None,
        updated_at=now,
    )


def unread(record: SagaRecord, transition: Transition) -> bool:
    """Whether more was delivered to a saga than the holder that asks for this transition has read."""
    seen = change_of(transition).seen
    return seen is not None and seen != record.inbox


def deliver(record: SagaRecord, now: datetime, *, count: int, cancels: bool) -> SagaRecord:
    """Return a saga after signals and requests were delivered to it.

    One that waits is queued. A request to cancel also ends a backoff, the wait for a start, and death.

    Args:
        record: the saga.
        now: the time.
        count: how many were delivered.
        cancels: whether one of them is a request to cancel.
    """
    record = replace(record, inbox=record.inbox + count)
    sleeps = record.state is SagaState.READY and not record.due(now)
    if record.state is SagaState.WAITING or (cancels and (sleeps or record.state is SagaState.DEAD)):
        attempts = 0 if record.state is SagaState.DEAD else record.recovery_attempts
        return replace(queue(record, now), recovery_attempts=attempts)
    return record


def renew(record: SagaRecord, now: datetime, seconds: float) -> SagaRecord:
    """Return a saga whose lease lasts this many seconds from now."""
    return replace(record, available_at=now + timedelta(seconds=seconds), updated_at=now)


def holds(record: SagaRecord, lease: Lease) -> bool:
    """Whether the lease still holds the saga."""
    return record.state is SagaState.RUNNING and (record.version, record.lease_token) == (lease.version, lease.token)


def due_first(records: Iterable[SagaRecord], now: datetime) -> list[SagaRecord]:
    """Return the records that are due, in the order in which they became due."""
    return sorted((r for r in records if r.due(now)), key=lambda r: r.available_at or now)
