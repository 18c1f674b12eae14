"""Any sequence of calls leaves the memory storage and PostgreSQL with the same answers and the same records.

Times are whole hundreds of seconds, and PostgreSQL's are set anew after every call to what they are in memory, so that
the two clocks, of which one stands still, never drift apart: what is compared is due in both or in neither, and of two
sagas the same is the older. SAGAS_TEST_EXAMPLES sets how many sequences are tried; `make proofs` tries 500.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from sagas.errors import ActionRefused, InboxMoved, LeaseLost, SagaNotFound
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage import MemorySagaStorage, PostgresSagaStorage
from sagas.storage.answers import Acquired, Applied, ClaimResult, NotAcquired
from sagas.storage.leases import Lease, LeaseRequest, shared_owner
from sagas.storage.records import Claim, LogEntry, NewSaga, Pause, SagaRecord, SagaState, Signal, SignalKind
from sagas.storage.rules import check_legal
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Ended, FailedAttempt, GaveBack, Progressed, Suspended, Transition
from tests.patches import patch_storages

_EXAMPLES: Final = int(os.environ.get("SAGAS_TEST_EXAMPLES", "100"))
_UNIT: Final = 100.0
_UNKNOWN: Final = UUID(int=0)
_EVERYTHING: Final = SagaFilter(limit=1000)
_TIMES: Final = ("available_at", "created_at", "updated_at", "finished_at", "deadline_at")

_seconds = st.sampled_from([0.0, _UNIT, 2 * _UNIT])
_leases = st.sampled_from([_UNIT, 2 * _UNIT])
_names = st.sampled_from(["order", "trip"])
_workers = st.sampled_from(["worker-1", "worker-2", shared_owner("worker-3")])
_maximum = st.sampled_from([2, 2, 1, 3])
_waits = st.sampled_from([0, 0, 1, 2])
_picks = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
_limits = st.integers(1, 3)
_contexts = st.none() | st.sampled_from(['{"n": 1}', '{"n":2,  "a": "ü"}'])
_errors = st.sampled_from([None, "lost its nerve"])
_steps = st.sampled_from(["hotel", "car"])
_seen = st.sampled_from([None, None, 0, 0, 1, 2])

_completions = st.builds(
    LogEntry,
    step=_steps,
    action=st.sampled_from(Action),
    status=st.just(EntryStatus.COMPLETED),
    attempt=st.integers(1, 2),
    message=st.sampled_from([None, None, "seen to"]),
)
_failures = st.builds(
    LogEntry,
    step=_steps,
    action=st.sampled_from(Action),
    status=st.just(EntryStatus.FAILED),
    verdict=st.sampled_from(Verdict),
    in_doubt=st.booleans(),
    error_type=st.just("Full"),
    message=st.sampled_from(["no room", "não"]),
    traceback=st.none() | st.just("line 1\nline 2"),
)
_doings = st.builds(
    LogEntry,
    step=_steps,
    action=st.sampled_from(Action),
    status=st.sampled_from([EntryStatus.COMPLETED, EntryStatus.SKIPPED]),
    actor=st.just("ann"),
    reason=st.just("não"),
    signal=st.sampled_from([None, {"id": 1, "payload": '{"a":  1.50}'}]),
)
_beginnings = st.builds(
    LogEntry,
    step=_steps,
    action=st.just(Action.ACT),
    status=st.just(EntryStatus.ARMED),
    seconds=st.sampled_from([None, 1.5]),
)
_entry = _completions | _failures | _doings
_one_or_two = st.tuples(_entry) | st.tuples(_entry) | st.tuples(_entry, _entry)
_events = st.just(()) | _one_or_two
_standing = st.sampled_from([SagaStatus.RUNNING, SagaStatus.COMPENSATING])
_transitions: st.SearchStrategy[Transition] = st.one_of(
    st.builds(
        Progressed,
        events=_one_or_two,
        status=_standing,
        context=_contexts,
        in_flight=st.sampled_from([None, (), ("hotel",), ("hotel",), ("car", 'b "c" \\ ü')]),
        seen=st.none() | _seen,
    ),
    st.builds(
        Suspended,
        events=_events | st.tuples(_beginnings),
        status=_standing,
        after_seconds=st.none() | _seconds,
        context=_contexts,
        waiting=st.just(True),
        seen=_seen,
    ),
    st.builds(Suspended, events=_events, status=_standing, after_seconds=_seconds, context=_contexts, seen=_seen),
    st.builds(
        GaveBack,
        status=st.sampled_from([SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED]),
        after_seconds=_seconds,
        queued=st.booleans(),
        events=_events,
        last_error=_errors,
    ),
    st.builds(
        FailedAttempt,
        events=_events,
        after_seconds=_seconds,
        max_recovery_attempts=_maximum,
        last_error=_errors,
    ),
    st.builds(
        Ended,
        events=_events,
        status=st.sampled_from([SagaStatus.COMPLETED, SagaStatus.COMPENSATED]),
        context=_contexts,
        seen=_seen,
    ),
)


class Clock:
    """Stands still but for a little at every look, so that of two things the later is later."""

    def __init__(self) -> None:
        self.now = datetime(2031, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=10)
        return self.now


class Storages(RuleBasedStateMachine):
    """Both storages, and everything that may be handed to them: of now, of long ago, and of nobody."""

    engine: sa.Engine

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "TRUNCATE saga_executions, saga_logs, saga_pauses, saga_asks, saga_deliveries, saga_signals"
            )
            self.apart = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one() - datetime.now(UTC)
        self.clock = Clock()
        self.memory = MemorySagaStorage(self.clock)
        self.postgres = PostgresSagaStorage(self.engine)
        self.agreed: list[SagaRecord] = []
        # The newest first, so that the simplest choice is the one that still counts for something.
        self.ids = [_UNKNOWN]
        self.leases: list[Lease] = []
        self.tokens = 0
        self.claims: list[Claim] = []

    # -- starting and reading ---------------------------------------------------------------------------------

    @initialize(begins=st.lists(st.sampled_from(["ready", "queued", "worker-1"]), min_size=1, max_size=3))
    def begin(self, begins: Sequence[str]) -> None:
        for how in begins:
            self.start([None], "order", how, _UNIT)

    @precondition(lambda self: len(self.ids) < 9)
    @rule(
        keys=st.lists(st.sampled_from([None, "key"]), min_size=1, max_size=2),
        name=_names,
        how=st.sampled_from(["ready", "queued"]) | _workers,
        seconds=_seconds,
        deadline=st.sampled_from([None, None, _UNIT]),
        later=st.sampled_from([None, None, "after", "at"]),
    )
    def start(
        self,
        keys: Sequence[str | None],
        name: str,
        how: str,
        seconds: float,
        deadline: float | None = None,
        later: str | None = None,
    ) -> None:
        first = len(self.ids)
        new = [
            NewSaga(
                id=UUID(int=first + number),
                name=name,
                context='{"n": 0}',
                idempotency_key=key,
                tags=key and {"key": key},
                deadline_seconds=deadline,
            )
            for number, key in enumerate(keys)
        ]
        self.ids[:0] = reversed([saga.id for saga in new])
        request = None if how in ("ready", "queued") else self._request(how, seconds)
        times: dict[str, Any] = {}
        if how == "ready" and later is not None:
            times = {"after_seconds": seconds} if later == "after" else {"at": timedelta(seconds=seconds - _UNIT)}
        for saga_id, is_new in self.both("create_sagas", new, queued=how == "queued", lease=request, **times):
            if is_new and request is not None:
                self.leases.insert(0, Lease(saga_id, 1, request.owner, request.token))

    @rule(
        method=st.sampled_from(["load", "find", "find_id", "get_sagas_for_recovery"]),
        pick=_picks,
        statuses=st.lists(st.sampled_from(SagaStatus), max_size=2),
        name=st.none() | _names,
        states=st.lists(st.sampled_from(SagaState), max_size=2),
        key=st.sampled_from([None, None, "key"]),
        tags=st.sampled_from([None, None, {"key": "key"}, {"key": "other"}]),
        after=st.none() | _picks,
        limit=_limits,
        maximum=_maximum,
        stale=st.sampled_from([None, 0.0, _UNIT, 2.5 * _UNIT]),
    )
    def read(
        self,
        method: str,
        pick: int,
        statuses: list[SagaStatus],
        name: str | None,
        states: list[SagaState],
        key: str | None,
        tags: dict[str, str] | None,
        after: int | None,
        limit: int,
        maximum: int,
        stale: float | None,
    ) -> None:
        match method:
            case "load":
                self.both("load", _pick(self.ids, pick))
            case "find_id":
                self.both("find_id", name or "order", key or "other")
            case "find":
                # Not by times: the two storages have different ones.
                wanted = SagaFilter(
                    statuses=statuses,
                    states=states,
                    name=name,
                    key=key,
                    tags=tags,
                    after=None if after is None else _pick(self.ids, after),
                    limit=limit,
                )
                self.both("find", wanted)
            case _:
                self.both("get_sagas_for_recovery", limit, maximum, stale, name)

    # -- signals ----------------------------------------------------------------------------------------------

    @rule(
        pick=_picks,
        kind=st.sampled_from([SignalKind.SIGNAL, SignalKind.SIGNAL, SignalKind.CANCEL]),
        name=st.sampled_from(["courier", "call"]),
        signal_id=st.sampled_from(["1", "1", "2"]),
        payload=st.sampled_from([None, '{"n":1,  "a": "ü"}']),
        how=st.sampled_from(["post", "deliver", "leave"]),
    )
    def send(self, pick: int, kind: SignalKind, name: str, signal_id: str, payload: str | None, how: str) -> None:
        saga_id = _pick(self.ids, pick)
        signal = Signal(saga_id=saga_id, kind=kind, name=name, signal_id=signal_id, payload=payload, actor="Zoë")
        # A storage that posts in one statement leaves what others left.
        left = {signal.saga_id for signal in self.memory._undelivered}
        if how == "post" and saga_id in {saga.id for saga in self.agreed} - left:
            _, claims = self.both("post_signal", signal)
            self.claims[:0] = claims
        else:
            self.both("add_signal", signal)
        self._set_times()
        if how == "deliver":
            self.deliver([pick])
        self.both("signals", saga_id)

    @rule(picks=st.lists(_picks, max_size=2))
    def deliver(self, picks: list[int]) -> None:
        claims = self.both("deliver", [_pick(self.ids, pick) for pick in picks])
        self.claims[:0] = claims

    @rule(units=st.integers(0, 2))
    def forgotten(self, units: int) -> None:
        self.both("undelivered", older_than_seconds=(units - 0.5) * _UNIT, limit=1000)

    # -- holding ----------------------------------------------------------------------------------------------

    @rule(
        after=_waits,
        pick=_picks,
        owner=_workers,
        lease=_leases,
        maximum=_maximum,
        by=st.sampled_from(["anybody", "message", "late message", "hand"]),
    )
    def acquire(self, after: int, pick: int, owner: str, lease: float, maximum: int, by: str) -> None:
        self.time_passes(after)
        saga_id = _pick(self.ids, pick)
        known = {saga.id: saga.version for saga in self.agreed}.get(saga_id, 0)
        version = {"message": known, "late message": known - 1}.get(by)
        self._acquire(saga_id, owner, lease, maximum, version=version, by_hand=by == "hand")

    @precondition(lambda self: self.claims)
    @rule(pick=_picks, owner=_workers, lease=_leases, maximum=_maximum, arrives=st.booleans())
    def receive(self, pick: int, owner: str, lease: float, maximum: int, arrives: bool) -> None:
        claim = _pick(self.claims, pick)
        if arrives:
            self._note_delivery(claim)
        self._acquire(claim.saga_id, owner, lease, maximum, version=claim.version)

    @precondition(lambda self: self.leases)
    @rule(
        pick=_picks,
        transition=_transitions,
        later=st.sampled_from([0, 0, 0, 1, -1]),
        forged=st.sampled_from([0, 0, 0, 1]),
    )
    def apply(self, pick: int, transition: Transition, later: int, forged: int) -> None:
        lease = self._lease(pick, later, forged)
        self.both("apply", lease, transition)
        self.both("load", lease.saga_id)

    @precondition(lambda self: len(self.leases) > 1)
    @rule(picks=st.lists(_picks, max_size=3), transitions=st.tuples(_transitions, _transitions, _transitions))
    def apply_many(self, picks: list[int], transitions: tuple[Transition, ...]) -> None:
        asked = {_pick(self.leases, pick).saga_id: _pick(self.leases, pick) for pick in picks}
        self.both("apply_many", list(zip(asked.values(), transitions, strict=False)))
        for saga_id in asked:
            self.both("load", saga_id)

    @precondition(lambda self: self.leases)
    @rule(pick=_picks, seconds=_leases, later=st.sampled_from([0, 0, 1, -1]), forged=st.sampled_from([0, 0, 1]))
    def renew(self, pick: int, seconds: float, later: int, forged: int) -> None:
        lease = self._lease(pick, later, forged)
        self.both("renew", lease, seconds)
        self.both("set_definition", lease, f"{later}{forged}")

    @rule(pick=_picks, transition=_transitions, maximum=_maximum, refuses=st.sampled_from([False, False, True]))
    def operate(self, pick: int, transition: Transition, maximum: int, refuses: bool) -> None:
        def decide(record: SagaRecord) -> Transition:
            if refuses or isinstance(transition, Progressed):
                raise ActionRefused("not now")
            return replace(transition, seen=None) if isinstance(transition, Suspended | Ended) else transition

        self.both("operate", _pick(self.ids, pick), decide, owner="ann", max_recovery_attempts=maximum)

    # -- dispatching ------------------------------------------------------------------------------------------

    @rule(after=_waits, pending=st.booleans(), limit=_limits, maximum=_maximum)
    def claim(self, after: int, pending: bool, limit: int, maximum: int) -> None:
        self.time_passes(after)
        result = self.both("claim_sagas", pending=pending, limit=limit, max_recovery_attempts=maximum)
        self.claims[:0] = result.claims

    @rule(picks=st.lists(_picks, max_size=2, unique=True))
    def claim_by_id(self, picks: list[int]) -> None:
        claims = self.both("claim_by_id", list({_pick(self.ids, pick): None for pick in picks}))
        self.claims[:0] = claims

    @rule(owner=_workers, maximum=_maximum)
    def reclaim(self, owner: str, maximum: int) -> None:
        self.both("reclaim", owner, max_recovery_attempts=maximum)

    @precondition(lambda self: self.claims)
    @rule(picks=st.lists(_picks, max_size=2))
    def release_claims(self, picks: list[int]) -> None:
        self.both("release_claims", [_pick(self.claims, pick) for pick in picks])

    # -- pausing ----------------------------------------------------------------------------------------------

    @rule(name=_names, actor=st.sampled_from(["ann", "bob"]))
    def pause(self, name: str, actor: str) -> None:
        self.both("pause", name, actor=actor, reason="why")
        self.both("pauses")

    @rule(name=_names)
    def resume(self, name: str) -> None:
        self.both("resume", name)
        self.both("pauses")

    @rule(pick=_picks, seconds=st.sampled_from([0, 1e6]))
    def request_yield(self, pick: int, seconds: float) -> None:
        self.both("request_yield", _pick(self.ids, pick), actor="ann", for_seconds=seconds)

    # -- recovery by other means, housekeeping, time ----------------------------------------------------------

    @rule(pick=_picks, status=st.none() | st.sampled_from(SagaStatus))
    def increment(self, pick: int, status: SagaStatus | None) -> None:
        self.both("increment_recovery_attempts", _pick(self.ids, pick), status)

    @rule(pick=_picks, attempts=st.integers(-1, 3))
    def set_attempts(self, pick: int, attempts: int) -> None:
        self.both("set_recovery_attempts", _pick(self.ids, pick), attempts)

    @rule(units=st.integers(0, 2), limit=st.integers(0, 2))
    def prune(self, units: int, limit: int) -> None:
        self.both("prune", older_than_seconds=units * _UNIT, limit=limit)

    @rule(units=st.integers(1, 3))
    def time_passes(self, units: int) -> None:
        if units:
            self.clock.now += timedelta(seconds=units * _UNIT)
            self._set_times()

    # -- both at once -----------------------------------------------------------------------------------------

    def both(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method of both; return what they agree on."""
        # A time is given as from now, by the clock of either.
        now = {"at": self.clock.now + kwargs["at"]} if "at" in kwargs else {}
        ours = _outcome(self.memory, method, *args, **kwargs | now)
        now = {"at": datetime.now(UTC) + self.apart + kwargs["at"]} if "at" in kwargs else {}
        theirs = _outcome(self.postgres, method, *args, **kwargs | now)
        if method == "undelivered":
            ours, theirs = sorted(ours), sorted(theirs)  # their order is nobody's promise
        assert self._plain_memory(ours) == self._plain_postgres(theirs), f"{method}() answers differ"
        in_memory, in_postgres = self.memory.find(_EVERYTHING), self.postgres.find(_EVERYTHING)
        assert self._plain_memory(in_memory) == self._plain_postgres(in_postgres), f"{method}() leaves other records"
        if in_memory != self.agreed:
            self._set_times()
        for saga in in_postgres:
            check_legal(saga)
        return None if isinstance(ours, Exception) else ours

    def _acquire(
        self, saga_id: UUID, owner: str, seconds: float, maximum: int, *, version: int | None, by_hand: bool = False
    ) -> None:
        request = self._request(owner, seconds)
        result = self.both("acquire", saga_id, request, max_recovery_attempts=maximum, version=version, by_hand=by_hand)
        if isinstance(result, Acquired):
            self.leases.insert(0, result.lease)

    def _request(self, owner: str, seconds: float) -> LeaseRequest:
        self.tokens += 1
        return LeaseRequest(owner=owner, seconds=seconds, token=UUID(int=self.tokens))

    def _lease(self, pick: int, later: int, forged: int) -> Lease:
        lease = _pick(self.leases, pick)
        return replace(lease, version=lease.version + later, token=UUID(int=lease.token.int + forged))

    def _note_delivery(self, claim: Claim) -> None:
        assert claim.queued_at is not None
        self.memory.note_delivery(claim)
        now = datetime.now(UTC) + self.apart
        self.postgres.note_delivery(replace(claim, queued_at=now + (claim.queued_at - self.clock.now)))
        with self.engine.begin() as connection:
            found = connection.exec_driver_sql("SELECT pending, queued_at, at FROM saga_deliveries").fetchall()
        in_memory = self._plain_memory(sorted((key, *times) for key, times in self.memory._deliveries.items()))
        assert in_memory == self._plain_postgres(sorted(map(tuple, found)))
        self._set_times()

    def _plain_memory(self, value: Any) -> Any:
        return _plain(value, self.clock.now)

    def _plain_postgres(self, value: Any) -> Any:
        return _plain(value, datetime.now(UTC) + self.apart)

    def _set_times(self) -> None:
        """Let PostgreSQL's times be as far from now as those in memory, of which no two are the same."""
        for number, saga in enumerate(self.memory.find(_EVERYTHING)):
            # What one call changed together has one time; the order among equals is nobody's promise.
            later = timedelta(microseconds=number)
            self.memory._sagas[saga.id] = replace(
                self.memory.load(saga.id),
                updated_at=saga.updated_at + later,
                available_at=saga.available_at and saga.available_at + later,
            )
        self.agreed = self.memory.find(_EVERYTHING)
        times: dict[str, list[Any]] = {"id": [saga.id for saga in self.agreed]}
        for name in _TIMES:
            stored = [getattr(saga, name) for saga in self.agreed]
            times[name] = [time and (time - self.clock.now).total_seconds() for time in stored]
        with self.engine.begin() as connection:
            connection.exec_driver_sql(_SET, times)
            sent = [(*_key(signal), signal.sent_at) for each in self.memory._signals.values() for signal in each]
            for saga_id, kind, name, signal_id, sent_at in sent:
                seconds = (sent_at - self.clock.now).total_seconds() if sent_at else 0
                connection.exec_driver_sql(_SET_SENT, (seconds, saga_id, kind, name, signal_id))
            for pending, delivered in self.memory._deliveries.items():
                queued_at, at = [time and (time - self.clock.now).total_seconds() for time in delivered]
                connection.exec_driver_sql(_SET_DELIVERIES, {"pending": pending, "queued_at": queued_at, "at": at})


_SET: Final = f"""
UPDATE saga_executions e SET
    {", ".join(f"{name} = transaction_timestamp() + make_interval(secs => t.{name})" for name in _TIMES[1:])},
    available_at = COALESCE(transaction_timestamp() + make_interval(secs => t.available_at), 'infinity')
FROM unnest(CAST(%(id)s AS uuid[]), {", ".join(f"CAST(%({name})s AS float8[])" for name in _TIMES)})
    AS t(id, {", ".join(_TIMES)})
WHERE e.id = t.id"""


_SET_DELIVERIES: Final = """
UPDATE saga_deliveries SET
    at = transaction_timestamp() + make_interval(secs => %(at)s),
    queued_at = transaction_timestamp() + make_interval(secs => %(queued_at)s)
WHERE pending = %(pending)s"""


_SET_SENT: Final = """
UPDATE saga_signals SET sent_at = transaction_timestamp() + make_interval(secs => %s)
WHERE saga_id = %s AND kind = %s AND name = %s AND signal_id = %s"""


def _key(signal: Signal) -> tuple[UUID, str, str, str]:
    return signal.saga_id, signal.kind.value, signal.name, signal.signal_id


def _pick(some: list[Any], number: int) -> Any:
    return some[number % len(some)]


def _outcome(storage: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return getattr(storage, method)(*args, **kwargs)
    except (ActionRefused, InboxMoved, LeaseLost, SagaNotFound, ValueError) as error:
        return error


def _plain(value: Any, now: datetime) -> Any:
    """The value as it is to be the same in both, its times as hundreds of seconds from now."""
    match value:
        case Exception():
            return type(value), str(value)
        case datetime():
            return round((value - now).total_seconds() / _UNIT)
        case SagaRecord():
            return {f.name: _plain(getattr(value, f.name), now) for f in fields(value)}
        case LogEntry():
            return replace(value, id=0, created_at=None)
        case Signal():
            return replace(value, id=0, sent_at=None), _plain(value.sent_at, now)
        case Pause():
            return value.name, value.actor, value.reason
        case Acquired(lease=lease, record=record, status_before=status):
            return lease, _plain(record, now), status
        case NotAcquired(why=why, record=record):
            return why, _plain(record, now)
        case Applied():
            return {f.name: _plain(getattr(value, f.name), now) for f in fields(value)}
        case Claim():
            return value.saga_id, value.version, value.pending, _plain(value.queued_at, now)
        case ClaimResult(claims=claims, died=died, lost=lost):
            return sorted(_plain(claim, now) for claim in claims), sorted(died), lost
        case list() | tuple():
            return [_plain(item, now) for item in value]
        case _:
            return value


@pytest.fixture(autouse=True)
def _moments_are_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a message may take: long enough that no slow machine makes a difference."""
    moments = {"PROBE_SECONDS": _UNIT, "MOST_PROBE_SECONDS": 4 * _UNIT, "OVERTAKING_SECONDS": _UNIT / 2, "PROBES": 2}
    for name, value in moments.items():
        patch_storages(monkeypatch, name, value)


@pytest.mark.slow(15)
@pytest.mark.timeout(900)  # to make a failure short takes minutes
def test_memory_and_postgresql_agree_on_any_sequence_of_calls(database_url: str):
    engine = sa.create_engine(database_url)
    machine = type("Machine", (Storages,), {"engine": engine})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    engine.dispose()
