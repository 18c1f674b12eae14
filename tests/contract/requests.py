"""Every request that one saga can get, and what the rules make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Any, Final
from uuid import UUID

from sagas.errors import ActionRefused, InboxMoved, LeaseLost, SagaError
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage import ISagaStorage, rules
from sagas.storage.answers import Acquired, Applied, NotAcquired, Refusal
from sagas.storage.attempts import count_attempt, set_attempts
from sagas.storage.errors import lease_lost
from sagas.storage.leases import Lease, LeaseRequest, shared_owner
from sagas.storage.records import Claim, LogEntry, SagaRecord, SagaState, Signal, SignalKind, completed, failed, note
from sagas.storage.rules import Reclaimed
from sagas.storage.transitions import Ended, FailedAttempt, GaveBack, Progressed, Suspended, Transition
from tests.contract.rows import INBOX, MAXIMUM, OWNER, PAUSED, TOKEN, Kind, bare, bare_entry

#: What a request returned or raised, and the saga afterwards.
Outcome = tuple[Any, SagaRecord]


@dataclass(frozen=True)
class Request:
    """One request, to be made of every saga that it is meant for.

    Attributes:
        name: for messages.
        call: makes it of a storage.
        rule: what the rules say at a time.
        meant: for which rows.
    """

    name: str
    call: Callable[[ISagaStorage, SagaRecord], Any]
    rule: Callable[[SagaRecord, datetime], Outcome]
    meant: Callable[[Kind], bool] = lambda _: True


def outcome_of(call: Callable[[], Any]) -> Any:
    """Return what a call returns or raises, without what no two storages share."""
    try:
        result = call()
    except (SagaError, ValueError) as error:
        return type(error), str(error)
    match result:
        case Acquired():
            return replace(result, record=bare(result.record))
        case Applied():
            return replace(result, log=tuple(map(bare_entry, result.log)))
        case _:
            return result


# -- acquiring ------------------------------------------------------------------------------------------------


def acquires() -> Iterator[Request]:
    """Generate requests for a lease, of all kinds."""
    versions: dict[str, Callable[[SagaRecord], int | None]] = {
        "any version": lambda _: None,
        "its version": lambda record: record.version,
        "another version": lambda record: record.version + 1,
    }
    for (said, version), by_hand, owner in product(versions.items(), (False, True), ("new", shared_owner("new"))):
        yield _acquire(f"acquire {said}, by hand: {by_hand}, {owner}", version, by_hand=by_hand, owner=owner)


def _acquire(name: str, version: Callable[[SagaRecord], int | None], *, by_hand: bool, owner: str) -> Request:
    request = LeaseRequest(owner=owner, seconds=30.0, token=UUID(int=99))
    return Request(
        name,
        lambda storage, record: storage.acquire(
            record.id, request, max_recovery_attempts=MAXIMUM, version=version(record), by_hand=by_hand
        ),
        lambda record, now: acquired_by_rules(record, request, now, version=version(record), by_hand=by_hand),
        # Of an abort depends only as what a saga is acquired that may be, of what is in flight only the row of the log.
        lambda kind: sum([kind.aborted, bool(kind.in_flight), kind.suspect or kind.name == PAUSED]) < 2,
    )


def acquired_by_rules(
    record: SagaRecord, request: LeaseRequest, now: datetime, *, version: int | None, by_hand: bool
) -> Outcome:
    """Return what the rules make of a request for a lease."""
    why = rules.judge(
        record,
        request,
        now,
        max_recovery_attempts=MAXIMUM,
        version=version,
        by_hand=by_hand,
        name_paused=record.name == PAUSED,
    )
    if why is not None:
        after = logged(rules.refused(record, why, now, max_recovery_attempts=MAXIMUM))
        return NotAcquired(why, replace(after, log=())), after
    acquired, event = rules.acquire(record, request, now, max_recovery_attempts=MAXIMUM)
    after = acquired.record if event is None else logged(Reclaimed(acquired.record, event))
    return replace(acquired, record=bare(after)), after


def logged(changed: Reclaimed | SagaRecord) -> SagaRecord:
    """Return the record with the row that its log gets."""
    if isinstance(changed, Reclaimed):
        return replace(changed.record, log=(*changed.record.log, changed.event))
    return changed


# -- holding --------------------------------------------------------------------------------------------------

_DONE: Final = completed("reserve", Action.ACT)
_UNDONE: Final = completed("reserve", Action.COMPENSATE, 2)
_RETRY: Final = replace(
    failed("charge", Action.ACT, Verdict.RETRY, 3), error_type="Full", message="não", traceback="1\n2"
)
_DOUBT: Final = failed("charge", Action.ACT, Verdict.ABORT, in_doubt=True)
_SKIPPED: Final = LogEntry(
    step="charge", action=Action.COMPENSATE, status=EntryStatus.SKIPPED, actor="ann", reason='by "hand"'
)
_STOPPED: Final = LogEntry(
    step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=("a", 'b "c"'), message="stopped"
)
_NOTE: Final = note("retry", actor="ann", reason="why")
_EVENTS: Final = ((), (_DONE,), (_UNDONE,), (_RETRY,), (_DOUBT,), (_SKIPPED,), (_NOTE,), (_RETRY, _DONE), (_STOPPED,))


def transitions() -> Iterator[Transition]:
    """Generate transitions of every kind, with all that each may carry."""
    for events, (status, context) in product(_EVENTS, zip(_BEGUN, (None, '{"n":  2}'), strict=True)):
        for in_flight in (None, (), ("ship",), ("a\\b", 'c "d", é')) if events else ():
            yield Progressed(events=events, status=status, context=context, in_flight=in_flight)
        yield Suspended(events=events, status=status, after_seconds=60, context=context)
        yield Ended(events=events, status=_ENDS[status], context=context)
    for events, (maximum, last_error) in product(_EVENTS, zip((1, MAXIMUM, 5), (None, "não", None), strict=True)):
        yield FailedAttempt(events=events, after_seconds=60, max_recovery_attempts=maximum, last_error=last_error)
    for events, status, (queued, last_error) in product(_EVENTS, _GIVEN_BACK, ((False, "não"), (True, None))):
        after = 0.0 if queued else 60.0
        yield GaveBack(status=status, after_seconds=after, queued=queued, events=events, last_error=last_error)


def seeing() -> Iterator[Transition]:
    """Generate waits, and transitions that name the inbox: as it is, less and more; each as it may be written."""
    for seen, (status, context) in product(_SEEN, zip(_BEGUN, (None, '{"n":  2}'), strict=True)):
        for events in ((), (_DONE,), (_ARMED,), (_RETRY, _DONE)):
            for after in (None, 60.0):
                yield Suspended(
                    events=events, status=status, after_seconds=after, context=context, waiting=True, seen=seen
                )
            if seen is not None:
                yield Ended(events=events, status=_ENDS[status], context=context, seen=seen)
            if seen is not None and events:
                yield Progressed(events=events, status=status, context=context, in_flight=("ship",), seen=seen)
        yield Suspended(events=(_RETRY,), status=status, after_seconds=60, context=context, seen=seen)


_SEEN: Final = (INBOX, INBOX - 1, INBOX + 1, None)
_ARMED: Final = LogEntry(step="courier", action=Action.ACT, status=EntryStatus.ARMED, seconds=1.5)
_BEGUN: Final = (SagaStatus.RUNNING, SagaStatus.COMPENSATING)
_ENDS: Final = dict(zip(_BEGUN, (SagaStatus.COMPLETED, SagaStatus.COMPENSATED), strict=True))
_GIVEN_BACK: Final = (SagaStatus.PENDING, *_BEGUN, SagaStatus.FAILED)


def applies() -> Iterator[Request]:
    """Generate writes of holders under leases that hold: all on what they depend on, one of each kind on every row."""
    for number, transition in enumerate((*transitions(), *seeing())):
        yield _apply(f"apply {number}: {transition}", transition, _lease, _held)


def stale_applies() -> Iterator[Request]:
    """Generate writes of holders under leases that do not hold, and under that of whoever has none."""
    samples = {type(transition): transition for transition in transitions()}
    stale: dict[str, Callable[[SagaRecord], Lease]] = {
        "another token": lambda record: replace(_lease(record), token=UUID(int=78)),
        "an older version": lambda record: replace(_lease(record), version=record.version - 1),
        "a newer version": lambda record: replace(_lease(record), version=record.version + 1),
        "its own": _lease,
    }
    waits = Suspended(events=(), status=SagaStatus.RUNNING, after_seconds=None, waiting=True, seen=0)
    for transition in (
        *samples.values(),
        waits,
        Progressed(events=(_DONE,), status=SagaStatus.RUNNING, in_flight=("ship",)),
    ):
        for said, lease in stale.items():
            yield _apply(f"apply under {said}: {type(transition).__name__}", transition, lease, _plain)


def other_writes() -> Iterator[Request]:
    """Generate the other writes of holders."""
    for said, lease in (("its lease", _lease), ("another", lambda record: replace(_lease(record), token=UUID(int=78)))):
        yield Request(
            f"renew {said}",
            lambda storage, record, lease=lease: storage.renew(lease(record), 60.0),
            lambda record, now, lease=lease: _renewed(record, lease(record), now),
            lambda kind: not kind.aborted and not kind.suspect,
        )
        yield Request(
            f"set_definition {said}",
            lambda storage, record, lease=lease: storage.set_definition(lease(record), "abc"),
            lambda record, now, lease=lease: (
                (None, replace(record, definition="abc"))
                if rules.holds(record, lease(record))
                else (_lost(lease(record)), record)
            ),
            _plain,
        )


def _apply(
    name: str, transition: Transition, lease: Callable[[SagaRecord], Lease], meant: Callable[[Kind], bool]
) -> Request:
    return Request(
        name,
        lambda storage, record: storage.apply(lease(record), transition),
        lambda record, now: applied_by_rules(record, lease(record), transition, now),
        meant,
    )


def applied_by_rules(record: SagaRecord, lease: Lease, transition: Transition, now: datetime) -> Outcome:
    """Return what the rules make of a write of a holder."""
    if not rules.holds(record, lease):
        return _lost(lease), record
    if rules.unread(record, transition):
        return (InboxMoved, str(InboxMoved(record.inbox))), record
    log = tuple(replace(entry, version=lease.version, worker=lease.owner) for entry in transition.events)
    after = rules.apply(record, lease, transition, now)
    applied = Applied(
        status=after.status,
        state=after.state,
        recovery_attempts=after.recovery_attempts,
        available_at=None if after.state is SagaState.RUNNING else after.available_at,
        log=log,
        inbox=after.inbox,
    )
    return applied, replace(after, log=(*after.log, *log))


def _renewed(record: SagaRecord, lease: Lease, now: datetime) -> Outcome:
    if not rules.holds(record, lease):
        return _lost(lease), record
    return record.name == PAUSED, rules.renew(record, now, 60.0)


def _lost(lease: Lease) -> tuple[type[LeaseLost], str]:
    return LeaseLost, str(lease_lost(lease))


def _lease(record: SagaRecord) -> Lease:
    return Lease(record.id, record.version, record.lease_owner or "worker-1", TOKEN)


def _held(kind: Kind) -> bool:
    """Whether it differs from other held rows in what a write depends on."""
    return kind.owner == OWNER and kind.version == 2 and bool(kind.due) and _plain(kind._replace(suspect=False))


def _plain(kind: Kind) -> bool:
    return kind.name != PAUSED and not kind.aborted and not kind.suspect


# -- delivering -----------------------------------------------------------------------------------------------


def deliveries() -> Iterator[Request]:
    """Generate deliveries of signals, of requests to cancel, and of both."""
    signal, cancel = SignalKind.SIGNAL, SignalKind.CANCEL
    for sent in ((), (signal,), (cancel,), (signal, signal), (signal, cancel)):
        yield _deliver(f"deliver {', '.join(sent) or 'nothing'}", sent)
    for kind in (signal, cancel):
        yield _post(f"post {kind}", kind)


def _deliver(name: str, sent: tuple[SignalKind, ...]) -> Request:
    def call(storage: ISagaStorage, record: SagaRecord) -> list[Claim]:
        for number, kind in enumerate(sent):
            storage.add_signal(Signal(saga_id=record.id, kind=kind, signal_id=str(number)))
        return storage.deliver([record.id])

    return Request(name, call, lambda record, now: _delivered(record, sent, now), _differs_to_a_delivery)


def _post(name: str, kind: SignalKind) -> Request:
    def rule(record: SagaRecord, now: datetime) -> Outcome:
        claims, after = _delivered(record, (kind,), now)
        return (True, claims), after

    return Request(
        name,
        lambda storage, record: storage.post_signal(Signal(saga_id=record.id, kind=kind, signal_id="1")),
        rule,
        _differs_to_a_delivery,
    )


def _delivered(record: SagaRecord, sent: tuple[SignalKind, ...], now: datetime) -> Outcome:
    if not sent:
        return [], record
    after = rules.deliver(record, now, count=len(sent), cancels=SignalKind.CANCEL in sent)
    woken = after.state is not record.state
    return [Claim(record.id, record.version, record.status is SagaStatus.PENDING)] if woken else [], after


def _differs_to_a_delivery(kind: Kind) -> bool:
    """Whether it differs from other rows in what a delivery depends on: state, time, and the attempts of the dead."""
    return not kind.aborted and not kind.in_flight and (kind.suspect == (kind.name == PAUSED)) and kind.version < 2


# -- operating and counting -----------------------------------------------------------------------------------


def operations() -> Iterator[Request]:
    """Generate what an operator may decide, and a decision that fails."""
    decisions: dict[str, Transition | None] = {
        "retry": GaveBack(status=SagaStatus.RUNNING, events=(_NOTE,)),
        "skip": GaveBack(status=SagaStatus.COMPENSATING, events=(_SKIPPED,), queued=True),
        "resolve": Ended(events=(_NOTE,), status=SagaStatus.COMPENSATED),
        "refuse": None,
    }
    for name, transition in decisions.items():
        yield _operate(f"operate: {name}", transition)


def _operate(name: str, transition: Transition | None) -> Request:
    def decide(record: SagaRecord) -> Transition:
        if transition is None:
            raise ActionRefused(f"not {record.status} at {record.version}")
        return transition

    def rule(record: SagaRecord, now: datetime) -> Outcome:
        request = LeaseRequest(owner="ann", seconds=0.0, token=UUID(int=99))
        answer, held = acquired_by_rules(record, request, now, version=None, by_hand=True)
        if isinstance(answer, NotAcquired) and answer.why is Refusal.DIED:
            answer, held = acquired_by_rules(held, request, now, version=None, by_hand=True)
        if isinstance(answer, NotAcquired):
            return answer, held
        if transition is None:
            return (ActionRefused, f"not {held.status} at {held.version}"), record
        return applied_by_rules(held, answer.lease, transition, now)

    return Request(
        name,
        lambda storage, record: storage.operate(record.id, decide, owner="ann", max_recovery_attempts=MAXIMUM),
        rule,
        lambda kind: kind.name != PAUSED and not kind.suspect,
    )


def counts() -> Iterator[Request]:
    """Generate what counts and sets failed attempts."""
    for status in (None, *SagaStatus):
        yield Request(
            f"increment_recovery_attempts {status}",
            lambda storage, record, status=status: storage.increment_recovery_attempts(record.id, status),
            lambda record, now, status=status: _counted(record, status, now),
            lambda kind: kind.name != PAUSED and not kind.suspect,
        )
    for attempts in (0, MAXIMUM):
        yield Request(
            f"set_recovery_attempts {attempts}",
            lambda storage, record, attempts=attempts: storage.set_recovery_attempts(record.id, attempts),
            lambda record, now, attempts=attempts: (None, set_attempts(record, attempts, now=now)),
            lambda kind: kind.name != PAUSED and not kind.aborted,
        )


def _counted(record: SagaRecord, status: SagaStatus | None, now: datetime) -> Outcome:
    try:
        counted = count_attempt(record, status, now=now)
    except SagaError as error:
        return (type(error), str(error)), record
    return None, replace(counted.record, log=(*counted.record.log, *counted.events))
