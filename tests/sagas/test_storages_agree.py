"""Any sequence of calls leaves the memory storage and PostgreSQL with the same answers and the same records.

Times are whole hundreds of seconds, and PostgreSQL's are set anew after every call to what they are in memory, so that
the two clocks, of which one stands still, never drift apart: what is compared is due in both or in neither, and of two
sagas the same is the older. SAGAS_TEST_EXAMPLES sets how many sequences are tried; 1000 take some minutes.
"""

from __future__ import annotations

import json
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
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from sagas.errors import LeaseLost, SagaNotFound
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage import MemorySagaStorage, SqlAlchemySagaStorage
from sagas.storage.base import (
    QUEUE,
    Claim,
    ClaimResult,
    Hold,
    LogEntry,
    NewSaga,
    Refused,
    Release,
    SagaFilter,
    SagaRecord,
    Taken,
)

_EXAMPLES: Final = int(os.environ.get("SAGAS_TEST_EXAMPLES", "50"))
_UNIT: Final = 100.0
_UNKNOWN: Final = UUID(int=0)
_EVERYTHING: Final = SagaFilter(limit=1000)
_TIMES: Final = ("available_at", "created_at", "updated_at", "finished_at")

_seconds = st.sampled_from([0.0, _UNIT, 2 * _UNIT])
_leases = st.sampled_from([_UNIT, 2 * _UNIT])
_names = st.sampled_from(["order", "trip"])
_workers = st.sampled_from(["worker-1", "worker-2"])
_maximum = st.integers(1, 3)
_limits = st.integers(1, 3)
_contexts = st.none() | st.sampled_from(['{"n": 1}', '{"n": 2, "text": "ü"}'])
_errors = st.sampled_from([None, "lost its nerve"])
_steps = st.sampled_from(["hotel", "car"])

_releases = st.builds(
    Release,
    status=st.sampled_from([SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED]),
    after_seconds=_seconds,
    interrupted=st.booleans(),
    to_queue=st.booleans(),
    last_error=_errors,
) | st.builds(
    Release,
    status=st.just(SagaStatus.FAILED),
    after_seconds=_seconds,
    failed_attempt=st.just(True),
    max_recovery_attempts=_maximum,
    interrupted=st.booleans(),
    last_error=_errors,
)
_completions = st.builds(
    LogEntry,
    step=_steps,
    action=st.sampled_from(Action),
    status=st.just(EntryStatus.COMPLETED),
    attempt=st.integers(1, 2),
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
_standing = st.sampled_from([SagaStatus.RUNNING, SagaStatus.COMPENSATING])
_ends = st.sampled_from([SagaStatus.COMPLETED, SagaStatus.COMPENSATED])


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

    sagas = Bundle("sagas")
    holds = Bundle("holds")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE saga_executions CASCADE")
            self.apart = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one() - datetime.now(UTC)
        self.clock = Clock()
        self.memory = MemorySagaStorage(self.clock)
        self.postgres = SqlAlchemySagaStorage(self.engine)
        self.created = 0
        self.agreed: list[SagaRecord] = []

    # -- starting and reading ---------------------------------------------------------------------------------

    @rule(
        target=sagas,
        keys=st.lists(st.sampled_from([None, None, "key"]), min_size=1, max_size=3),
        name=_names,
        owner=st.sampled_from([None, QUEUE]),
        seconds=_seconds,
    )
    def start(self, keys: Sequence[str | None], name: str, owner: str | None, seconds: float) -> Any:
        new = [self._new(name, key) for key in keys]
        return multiple(*(saga_id for saga_id, _ in self.both("create_sagas", new, owner=owner, for_seconds=seconds)))

    @rule(target=holds, name=_names, key=st.sampled_from([None, "key"]), owner=_workers, seconds=_leases)
    def run(self, name: str, key: str | None, owner: str, seconds: float) -> Any:
        ((saga_id, is_new),) = self.both("create_sagas", [self._new(name, key)], owner=owner, for_seconds=seconds)
        return Hold(saga_id, 1, owner) if is_new else multiple()

    @rule(saga_id=sagas)
    def load(self, saga_id: UUID) -> None:
        self.both("load", saga_id)

    @rule(
        statuses=st.lists(st.sampled_from(SagaStatus), max_size=2),
        name=st.none() | _names,
        dead=st.none() | st.booleans(),
        limit=_limits,
    )
    def find(self, statuses: list[SagaStatus], name: str | None, dead: bool | None, limit: int) -> None:
        self.both("find", SagaFilter(statuses=statuses, name=name, dead=dead, limit=limit))

    # -- holding ----------------------------------------------------------------------------------------------

    @rule(
        target=holds,
        saga_id=sagas,
        owner=_workers,
        lease=_leases,
        maximum=_maximum,
        version=st.none() | st.integers(0, 3),
        by_hand=st.booleans(),
    )
    def take(self, saga_id: UUID, owner: str, lease: float, maximum: int, version: int | None, by_hand: bool) -> Any:
        return self._take(saga_id, owner, lease, maximum, version, by_hand)

    @rule(target=holds, claim=claims, owner=_workers, lease=_leases, maximum=_maximum)
    def receive(self, claim: Claim, owner: str, lease: float, maximum: int) -> Any:
        return self._take(claim.saga_id, owner, lease, maximum, claim.version, False)

    @rule(target=holds, hold=holds, owner=_workers, lease=_leases, maximum=_maximum, by_hand=st.booleans())
    def take_over(self, hold: Hold, owner: str, lease: float, maximum: int, by_hand: bool) -> Any:
        return self._take(hold.saga_id, owner, lease, maximum, None, by_hand)

    @rule(target=sagas, hold=holds)
    def remember(self, hold: Hold) -> UUID:
        return hold.saga_id

    @rule(hold=holds, entry=_completions | _failures, status=_standing | _ends, context=_contexts)
    def checkpoint(self, hold: Hold, entry: LogEntry, status: SagaStatus, context: str | None) -> None:
        self.both("checkpoint", hold, entry, status=status, context=context)
        self.load(hold.saga_id)

    @rule(hold=holds, entry=_completions | _failures, context=_contexts, release=_releases)
    def checkpoint_and_release(self, hold: Hold, entry: LogEntry, context: str | None, release: Release) -> None:
        self.both("checkpoint", hold, entry, status=release.status, context=context, release=release)
        self.load(hold.saga_id)

    @rule(hold=holds, status=_ends)
    def end(self, hold: Hold, status: SagaStatus) -> None:
        self.both("checkpoint", hold, None, status=status)

    @rule(hold=holds, lease=_leases)
    def renew(self, hold: Hold, lease: float) -> None:
        self.both("renew", hold, lease)

    @rule(hold=holds, release=_releases)
    def release(self, hold: Hold, release: Release) -> None:
        self.both("release", hold, release)

    @rule(hold=holds, version=st.integers(-1, 1), owner=_workers | st.just(QUEUE))
    def renew_what_is_not_held(self, hold: Hold, version: int, owner: str) -> None:
        self.both("renew", Hold(hold.saga_id, hold.version + version, owner), _UNIT)

    # -- dispatching ------------------------------------------------------------------------------------------

    @rule(target=claims, pending=st.booleans(), limit=_limits, maximum=_maximum, waiting=st.integers(0, 3))
    def claim(self, pending: bool, limit: int, maximum: int, waiting: int) -> Any:
        result = self.both(
            "claim_sagas",
            pending=pending,
            limit=limit,
            max_recovery_attempts=maximum,
            mark_seconds=_UNIT,
            messages_waiting=waiting,
        )
        return multiple(*result.claims)

    @rule(owner=_workers | st.sampled_from([QUEUE, "nobody"]), maximum=_maximum)
    def seize_orphans(self, owner: str, maximum: int) -> None:
        self.both("seize_orphans", owner, max_recovery_attempts=maximum)

    @rule(some=st.lists(claims, max_size=2))
    def unclaim(self, some: list[Claim]) -> None:
        self.both("unclaim", some)

    # -- recovery by other means ------------------------------------------------------------------------------

    @rule(
        limit=_limits, maximum=_maximum, stale=st.none() | st.sampled_from([0.0, _UNIT, 2.5]), name=st.none() | _names
    )
    def look(self, limit: int, maximum: int, stale: float | None, name: str | None) -> None:
        self.both("get_sagas_for_recovery", limit, maximum, stale, name)

    @rule(saga_id=sagas | st.just(_UNKNOWN), status=st.none() | st.sampled_from(SagaStatus))
    def increment(self, saga_id: UUID, status: SagaStatus | None) -> None:
        self.both("increment_recovery_attempts", saga_id, status)

    @rule(saga_id=sagas | st.just(_UNKNOWN), attempts=st.integers(-1, 3))
    def set_attempts(self, saga_id: UUID, attempts: int) -> None:
        self.both("set_recovery_attempts", saga_id, attempts)

    # -- housekeeping -----------------------------------------------------------------------------------------

    @rule(units=st.integers(0, 2), limit=st.integers(0, 2))
    def prune(self, units: int, limit: int) -> None:
        self.both("prune", older_than_seconds=units * _UNIT, limit=limit)

    @rule(units=st.integers(1, 3))
    def time_passes(self, units: int) -> None:
        self.clock.now += timedelta(seconds=units * _UNIT)
        self._set_times()

    # -- both at once -----------------------------------------------------------------------------------------

    def both(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method of both; return what they agree on."""
        ours = _outcome(self.memory, method, *args, **kwargs)
        theirs = _outcome(self.postgres, method, *args, **kwargs)
        assert self._plain_memory(ours) == self._plain_postgres(theirs), f"{method}() answers differ"
        in_memory, in_postgres = self.memory.find(_EVERYTHING), self.postgres.find(_EVERYTHING)
        assert self._plain_memory(in_memory) == self._plain_postgres(in_postgres), f"{method}() leaves other records"
        if in_memory != self.agreed:
            self._set_times()
        return None if isinstance(ours, Exception) else ours

    def _take(self, saga_id: UUID, owner: str, lease: float, maximum: int, version: int | None, by_hand: bool) -> Any:
        result = self.both(
            "take",
            saga_id,
            owner=owner,
            lease_seconds=lease,
            max_recovery_attempts=maximum,
            version=version,
            by_hand=by_hand,
        )
        return result.hold if isinstance(result, Taken) else multiple()

    def _new(self, name: str, key: str | None) -> NewSaga:
        self.created += 1
        return NewSaga(id=UUID(int=self.created), name=name, context='{"n": 0}', idempotency_key=key)

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


_SET: Final = f"""
UPDATE saga_executions e SET
    {", ".join(f"{name} = statement_timestamp() + make_interval(secs => t.{name})" for name in _TIMES[1:])},
    available_at = COALESCE(statement_timestamp() + make_interval(secs => t.available_at), 'infinity')
FROM unnest(CAST(%(id)s AS uuid[]), {", ".join(f"CAST(%({name})s AS float8[])" for name in _TIMES)})
    AS t(id, {", ".join(_TIMES)})
WHERE e.id = t.id"""


def _outcome(storage: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return getattr(storage, method)(*args, **kwargs)
    except (LeaseLost, SagaNotFound, ValueError) as error:
        return error


def _plain(value: Any, now: datetime) -> Any:
    """The value as it is to be the same in both, its times as hundreds of seconds from now."""
    match value:
        case Exception():
            return type(value), str(value)
        case datetime():
            return round((value - now).total_seconds() / _UNIT)
        case SagaRecord():
            plain = {f.name: _plain(getattr(value, f.name), now) for f in fields(value)}
            return plain | {"context": json.loads(value.context)}
        case LogEntry():
            return replace(value, id=0, created_at=None)
        case Taken(hold=hold, record=record, status_before=status):
            return hold, _plain(record, now), status
        case Refused(why=why, record=record):
            return why, _plain(record, now)
        case ClaimResult(claims=claims, died=died, missing=missing):
            return sorted(claims, key=lambda claim: claim.saga_id), sorted(died), missing
        case list() | tuple():
            return [_plain(item, now) for item in value]
        case _:
            return value


@pytest.fixture(autouse=True)
def _moments_are_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a saga rests whose message is missing: long enough that no slow machine makes a difference."""
    monkeypatch.setattr("sagas.storage.memory._IN_HAND", timedelta(seconds=_UNIT))
    monkeypatch.setattr("sagas.storage.sqlalchemy._IN_HAND_SECONDS", _UNIT)


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
