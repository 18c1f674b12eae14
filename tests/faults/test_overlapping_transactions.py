"""Test every two operations on one saga that overlap on a real server: the second begins while the first holds locks.

The first operation runs in a transaction that stays open until the second has finished or, according to the server,
waits for the first. Then the transaction is committed or rolled back. In another test both operations begin while a
third transaction has the row, so that the snapshot of either is older than what the other writes. Mutants of the
statements show that the tests find errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import pytest
import sqlalchemy as sa

from sagas.errors import InboxMoved, LeaseLost
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage, rules
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.postgres.queries import query
from sagas.storage.records import Claim, SagaRecord, SagaState, Signal, completed
from sagas.storage.transitions import Ended, GaveBack, Progressed, Suspended, Transition
from tests.calls import DEADLINE_SECONDS, new_saga
from tests.contract.one_transaction import rolled_back
from tests.databases import database, empty
from tests.patches import patch_storages

_DONE: Final = completed("reserve", Action.ACT)
_RUNNING: Final = SagaStatus.RUNNING


@dataclass
class World:
    """One saga, and what two operations did to it.

    Attributes:
        lease: the lease that a process may still use.
        claim: the first claim.
        acquired: each successful acquire.
        woken: each claim of a delivery that woke the saga.
        seeing: for each write that depends on the inbox, whether it was refused because more was delivered.
        blocked: whether the second operation had to wait for the first.
    """

    lease: Lease
    claim: Claim
    acquired: list[Acquired] = field(default_factory=list)
    woken: list[Claim] = field(default_factory=list)
    seeing: list[bool] = field(default_factory=list)
    blocked: bool = False

    def signal(self, signal_id: str) -> Signal:
        return Signal(saga_id=self.lease.saga_id, name="courier", signal_id=signal_id)

    def apply(self, storage: PostgresSagaStorage, transition: Transition) -> None:
        try:
            storage.apply(self.lease, transition)
        except InboxMoved:
            self.seeing.append(True)
        else:
            self.seeing.append(False)

    def deliver(self, storage: PostgresSagaStorage) -> None:
        claims = storage.deliver([self.lease.saga_id])
        self.woken.extend(claims)

    def post(self, storage: PostgresSagaStorage) -> None:
        _, claims = storage.post_signal(self.signal("posted"))
        self.woken.extend(claims)

    def acquire(self, storage: PostgresSagaStorage, owner: str, version: int | None = None) -> None:
        request = LeaseRequest(owner=owner, seconds=600)
        found = storage.acquire(self.lease.saga_id, request, max_recovery_attempts=9, version=version)
        if isinstance(found, Acquired):
            self.acquired.append(found)


Operation = Callable[[World, PostgresSagaStorage], Any]


def _hand_over(world: World, storage: PostgresSagaStorage) -> None:
    """Acquire the saga by its message, and give it back with another message."""
    world.acquire(storage, "fast")
    storage.apply(world.acquired.pop().lease, GaveBack(status=_RUNNING, queued=True))


_OPERATIONS: Final[dict[str, Operation]] = {
    "apply": lambda world, storage: storage.apply(
        world.lease, Progressed(events=(_DONE,), status=_RUNNING, in_flight=("charge",))
    ),
    "give back": lambda world, storage: storage.apply(world.lease, GaveBack(status=_RUNNING, events=(_DONE,))),
    "end": lambda world, storage: storage.apply(world.lease, Ended(events=(_DONE,), status=SagaStatus.COMPLETED)),
    "acquire": lambda world, storage: world.acquire(storage, "anybody"),
    "acquire by message": lambda world, storage: world.acquire(storage, "worker", world.claim.version),
    "hand over": _hand_over,
    "scan": lambda _, storage: storage.claim_sagas(pending=False, limit=9, max_recovery_attempts=9),
    "release claims": lambda world, storage: storage.release_claims([world.claim]),
    "pause": lambda _, storage: storage.pause("order", actor="ann", reason="why"),
    "resume": lambda _, storage: storage.resume("order"),
}
#: What comes from outside, and what must not miss it. One signal is stored at the beginning, and not delivered.
_OUTSIDE: Final[dict[str, Operation]] = {
    "add a signal": lambda world, storage: storage.add_signal(world.signal("added")),
    "deliver": lambda world, storage: world.deliver(storage),
    "post a signal": lambda world, storage: world.post(storage),
    "suspend": lambda world, storage: world.apply(
        storage, Suspended(events=(), status=_RUNNING, after_seconds=None, waiting=True, seen=0)
    ),
    "time out": lambda world, storage: world.apply(storage, Progressed(events=(_DONE,), status=_RUNNING, seen=0)),
    "end by itself": lambda world, storage: world.apply(
        storage, Ended(events=(_DONE,), status=SagaStatus.COMPLETED, seen=0)
    ),
}
_EVERY: Final = _OPERATIONS | _OUTSIDE
_DELIVERING: Final = ("deliver", "post a signal")
_SEEING: Final = ("suspend", "time out", "end by itself")
#: The saga's state at the beginning: under an expired lease, queued, or queued and overdue; held, or waiting.
_STATES: Final = {
    "expired": (SagaState.RUNNING, -60),
    "queued": (SagaState.QUEUED, 60),
    "overdue": (SagaState.QUEUED, -60),
    "held": (SagaState.RUNNING, 600),
    "waiting": (SagaState.WAITING, 600),
}


def _pairs(state: str) -> Iterator[tuple[str, str]]:
    """Return the pairs of operations that may meet in this state: with what comes from outside, or without."""
    outside = state in ("held", "waiting")
    for first, second in product(_EVERY, repeat=2):
        alike = outside and {first, second} & {"acquire by message", "hand over", "resume"}
        if ((first in _OUTSIDE) or (second in _OUTSIDE)) is outside and not alike:
            yield first, second


@pytest.fixture(scope="module")
def own_engine(server_url: sa.URL, template: str) -> Iterator[sa.Engine]:
    with database(server_url, f"TEMPLATE {template}") as engine:
        yield engine


def _world(engine: sa.Engine, state: str) -> World:
    storage, saga, request = PostgresSagaStorage(engine), new_saga(), LeaseRequest(owner="holder", seconds=60)
    stored, seconds = _STATES[state]
    with engine.begin() as connection:
        empty(connection)
    storage.create_sagas([saga], lease=request)
    lease = Lease(saga.id, 1, request.owner, request.token)
    if stored is SagaState.QUEUED:
        storage.apply(lease, GaveBack(status=_RUNNING, queued=True))
    if stored is SagaState.WAITING:
        storage.apply(lease, Suspended(events=(), status=_RUNNING, after_seconds=600, waiting=True))
    storage.add_signal(Signal(saga_id=saga.id, name="courier", signal_id="before"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE saga_executions SET available_at = clock_timestamp() + make_interval(secs => %s)", (seconds,)
        )
    return World(lease, Claim(saga.id, 1))


def _overlap(engine: sa.Engine, state: str, first: str, second: str, *, commits: bool) -> World:
    """Run the second operation while the first holds its locks; return the results of both."""
    world = _world(engine, state)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        storage, cursor = stack.enter_context(rolled_back(engine))
        _attempt(_EVERY[first], world, storage)
        seen, woken = list(world.acquired), list(world.woken)
        second_ran = pool.submit(_attempt, _EVERY[second], world, PostgresSagaStorage(engine))
        world.blocked = _wait(second_ran, cursor.connection.info.backend_pid, engine)
        if commits:
            cursor.connection.commit()
        else:
            cursor.connection.rollback()
            world.acquired = [acquired for acquired in world.acquired if acquired not in seen]
            world.woken = [claim for claim in world.woken if claim not in woken]
        second_ran.result(DEADLINE_SECONDS)
    return world


def _begin_together(engine: sa.Engine, state: str, first: str, second: str) -> World:
    """Begin both operations while a third transaction has the saga's row; then let them go on, the first one first."""
    world = _world(engine, state)
    with ThreadPoolExecutor(2) as pool, engine.connect() as third:
        third.exec_driver_sql("SELECT FROM saga_executions FOR UPDATE")
        pid = third.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        running = []
        for operation in (first, second):
            running.append(pool.submit(_attempt, _EVERY[operation], world, PostgresSagaStorage(engine)))
            _wait(running[-1], pid, engine, waiting=len([each for each in running if not each.done()]))
        third.rollback()
        for each in running:
            each.result(DEADLINE_SECONDS)
    return world


def _attempt(operation: Operation, world: World, storage: PostgresSagaStorage) -> None:
    with suppress(LeaseLost, IndexError):  # the operation came too late, which is legal
        operation(world, storage)


def _wait(second: Future[None], first: int, engine: sa.Engine, *, waiting: int = 1) -> bool:
    """Wait until the second operation has finished, or so many wait for the first process. Return whether they do."""
    blocked = """
        WITH RECURSIVE waiting (pid) AS (
            VALUES (CAST(%s AS int))
            UNION
            SELECT a.pid FROM waiting w, pg_stat_activity a
            WHERE a.datname = current_database() AND w.pid = ANY (pg_blocking_pids(a.pid))
        )
        SELECT count(*) - 1 FROM waiting"""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
        while not second.done():
            if watcher.exec_driver_sql(blocked, (first,)).scalar_one() >= waiting:
                return True
            try:
                second.result(0.002)
            except NotYet:
                continue
    return False


def _check(engine: sa.Engine, world: World) -> None:
    """Make sure that the row is legal, that it has one holder at most, and that each acquirer saw the whole log."""
    storage = PostgresSagaStorage(engine)
    saga = storage.load(world.lease.saga_id)
    rules.check_legal(saga)
    for acquired in world.acquired:
        earlier = [entry.id for entry in saga.log if entry.version < acquired.lease.version]
        assert [entry.id for entry in acquired.record.log] == earlier, "rows of the log were lost to who acquired it"
    newest = max((acquired.lease for acquired in world.acquired), key=lambda lease: lease.version, default=None)
    for lease in (world.lease, *(acquired.lease for acquired in world.acquired)):
        assert _holds(storage, lease) is (saga.state is SagaState.RUNNING and lease.token == saga.lease_token)
    if newest is not None and newest.version > world.lease.version:
        assert _holds(storage, newest), "a live lease was ended by somebody else"
    _was_queued_once(saga, world)
    delivered = _delivered(engine)
    assert saga.inbox == delivered, f"the inbox counts {saga.inbox} of {delivered} signals"
    assert saga.state is not SagaState.WAITING or not delivered, "it waits beside a signal that was delivered"


def _check_order(world: World, first: str, second: str, *, commits: bool) -> None:
    """Make sure that the second saw what the first had committed, and that a signal that is only stored is no lock."""
    if "add a signal" in (first, second) and first != second:
        assert not world.blocked, "a signal in a caller's transaction holds up others, or waits for them"
    if first in _DELIVERING and second in _SEEING and world.seeing:
        assert world.seeing == [commits], "it was put down, timed out or ended beside a signal that was delivered"
    if first in _DELIVERING and second in _DELIVERING:
        assert len(world.woken) <= 1, "two deliveries woke it"


def _delivered(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.exec_driver_sql("SELECT count(*) FROM saga_signals WHERE delivered").scalar_one()
    return count


def _was_queued_once(saga: SagaRecord, world: World) -> None:
    if saga.version > world.claim.version and not world.acquired:
        assert saga.state in (SagaState.QUEUED, SagaState.PAUSED), "a claim of an older version was released"


def _holds(storage: PostgresSagaStorage, lease: Lease) -> bool:
    try:
        storage.renew(lease, 60)
    except LeaseLost:
        return False
    return True


@pytest.mark.slow(5)
@pytest.mark.parametrize("state", _STATES)
@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_any_two_operations_may_overlap(own_engine: sa.Engine, state: str, commits: bool) -> None:
    for first, second in _pairs(state):
        world = _overlap(own_engine, state, first, second, commits=commits)
        try:
            _check_all(own_engine, world, first, second, commits=commits)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{state}: {first}, then {second}: {error}") from error


@pytest.mark.slow(5)
@pytest.mark.parametrize("state", ["expired", "held", "waiting"])
def test_any_two_operations_may_begin_while_a_third_has_the_row(own_engine: sa.Engine, state: str) -> None:
    for first, second in _pairs(state):
        world = _begin_together(own_engine, state, first, second)
        try:
            _check(own_engine, world)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{state}: {first}, together with {second}: {error}") from error


#: A statement, the part to replace, what replaces it, and the pair that shows it.
_MUTANTS: Final = {
    "acquire does not look whether the row moved": (
        "acquire",
        "WHEN place <> (SELECT seen.ctid FROM saga_executions seen WHERE seen.id = saga.id) THEN 'moved'",
        "",
        ("expired", "apply", "acquire"),
    ),
    "a scan locks nothing": ("claim_due", "FOR UPDATE SKIP LOCKED", "", ("expired", "acquire", "scan")),
    "claims are released at any version": (
        "release_claims",
        "AND e.version = claim.version",
        "",
        ("queued", "hand over", "release claims"),
    ),
    "deliver judges the saga as it was before it was locked": (
        "deliver",
        "FROM saga JOIN counted",
        "FROM saga_executions saga JOIN counted",
        ("held", "suspend", "deliver"),
    ),
    "deliver locks nothing": ("deliver", "FOR UPDATE", "", ("held", "suspend", "deliver")),
    "a post judges the saga as it was before it was locked": (
        "post_signal",
        "FROM saga, new",
        "FROM saga_executions saga, new WHERE saga.id = CAST(%(saga)s AS uuid)",
        ("held", "suspend", "post a signal"),
    ),
    "apply does not look at the inbox": (
        "apply",
        "AND (asked.seen IS NULL OR e.inbox = asked.seen)",
        "",
        ("held", "deliver", "suspend"),
    ),
    "apply counts the signals instead": (
        "apply",
        "e.inbox = asked.seen",
        "(SELECT count(*) FROM saga_signals s WHERE s.saga_id = e.id AND s.delivered) = asked.seen",
        ("held", "post a signal", "time out"),
    ),
    "the end does not look at the inbox": (
        "apply_end",
        "AND (CAST(%(seen)s AS bigint) IS NULL OR inbox = %(seen)s)",
        "",
        ("held", "deliver", "end by itself"),
    ),
    "a signal locks its saga": (
        "add_signal",
        "CAST(CAST(%(saga)s AS text) AS uuid),",
        "(SELECT id FROM saga_executions WHERE id = CAST(CAST(%(saga)s AS text) AS uuid) FOR UPDATE),",
        ("held", "add a signal", "apply"),
    ),
}


@pytest.mark.parametrize("mutant", _MUTANTS)
def test_a_mutant_of_a_statement_is_found(own_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    name, text, instead, (state, first, second) = _MUTANTS[mutant]
    assert text in query(name)
    patch_storages(
        monkeypatch, "query", lambda asked: query(asked).replace(text, instead) if asked == name else query(asked)
    )
    world = _overlap(own_engine, state, first, second, commits=True)
    if mutant.startswith("claims"):
        # A scan skips locked rows, so the version matters to an operation that comes a moment later.
        _OPERATIONS[second](world, PostgresSagaStorage(own_engine))

    with pytest.raises((AssertionError, ValueError)):
        _check_all(own_engine, world, first, second)


def _check_all(engine: sa.Engine, world: World, first: str, second: str, *, commits: bool = True) -> None:
    _check(engine, world)
    _check_order(world, first, second, commits=commits)


def test_a_reference_from_signals_to_their_sagas_is_found(own_engine: sa.Engine) -> None:
    reference = "CONSTRAINT mutant FOREIGN KEY (saga_id) REFERENCES saga_executions (id)"
    with own_engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_signals")
        connection.exec_driver_sql(f"ALTER TABLE saga_signals ADD {reference} NOT VALID")
    try:
        world = _overlap(own_engine, "held", "add a signal", "deliver", commits=True)
    finally:
        with own_engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE saga_signals DROP CONSTRAINT mutant")

    with pytest.raises(AssertionError, match="holds up others"):
        _check_order(world, "add a signal", "deliver", commits=True)
