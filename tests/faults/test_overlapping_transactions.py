"""Test every two operations on one saga that overlap on a real server: the second begins while the first holds locks.

The first operation runs in a transaction that stays open until the second has finished or, according to the server,
waits for the first. Then the transaction is committed or rolled back. Mutants of the statements show that the test
finds errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from sagas.errors import LeaseLost
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage, rules
from sagas.storage.postgres import storage as module
from sagas.storage.postgres.queries import query
from sagas.storage.records import Acquired, Claim, Lease, LeaseRequest, SagaRecord, SagaState, completed
from sagas.storage.transitions import Ended, GaveBack, Progressed
from tests.calls import DEADLINE_SECONDS, new_saga
from tests.contract.one_transaction import rolled_back
from tests.databases import database, empty

_DONE: Final = completed("reserve", Action.ACT)
_RUNNING: Final = SagaStatus.RUNNING


@dataclass
class World:
    """One saga: the lease that a process may still use, the first claim, and each successful acquire."""

    lease: Lease
    claim: Claim
    acquired: list[Acquired] = field(default_factory=list)

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
    "pause": lambda _, storage: storage.pause("order", by="ann", because="why"),
    "resume": lambda _, storage: storage.resume("order"),
}
#: The saga's state at the beginning: under an expired lease, queued, or queued and overdue.
_STATES: Final = {
    "expired": (SagaState.RUNNING, -60),
    "queued": (SagaState.QUEUED, 60),
    "overdue": (SagaState.QUEUED, -60),
}


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
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE saga_executions SET available_at = clock_timestamp() + make_interval(secs => %s)", (seconds,)
        )
    return World(lease, Claim(saga.id, 1))


def _overlap(engine: sa.Engine, state: str, first: str, second: str, *, commits: bool) -> World:
    """Run the second operation while the first holds its locks; return the results of both."""
    world = _world(engine, state)
    before = len(world.acquired)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        storage, cursor = stack.enter_context(rolled_back(engine))
        _attempt(_OPERATIONS[first], world, storage)
        seen = world.acquired[before:]
        second_ran = pool.submit(_attempt, _OPERATIONS[second], world, PostgresSagaStorage(engine))
        _wait(second_ran, cursor.connection, engine)
        if commits:
            cursor.connection.commit()
        else:
            cursor.connection.rollback()
            world.acquired = [acquired for acquired in world.acquired if acquired not in seen]
        second_ran.result(DEADLINE_SECONDS)
    return world


def _attempt(operation: Operation, world: World, storage: PostgresSagaStorage) -> None:
    with suppress(LeaseLost, IndexError):  # the operation came too late, which is legal
        operation(world, storage)


def _wait(second: Future[None], first: psycopg.Connection[Any], engine: sa.Engine) -> None:
    """Wait until the second operation has finished or waits for the first."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
        while not second.done():
            if watcher.exec_driver_sql(blocked, (first.info.backend_pid,)).scalar_one():
                return
            try:
                second.result(0.002)
            except NotYet:
                continue


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
    for first, second in product(_OPERATIONS, repeat=2):
        world = _overlap(own_engine, state, first, second, commits=commits)
        try:
            _check(own_engine, world)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{state}: {first}, then {second}: {error}") from error


#: A statement, the part to remove from it, and the resulting error.
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
}


@pytest.mark.parametrize("mutant", _MUTANTS)
def test_a_mutant_of_a_statement_is_found(own_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    name, text, instead, (state, first, second) = _MUTANTS[mutant]
    assert text in query(name)
    monkeypatch.setattr(
        module, "query", lambda asked: query(asked).replace(text, instead) if asked == name else query(asked)
    )
    world = _overlap(own_engine, state, first, second, commits=True)
    if mutant.startswith("claims"):
        # A scan skips locked rows, so the version matters to an operation that comes a moment later.
        _OPERATIONS[second](world, PostgresSagaStorage(own_engine))

    with pytest.raises((AssertionError, ValueError)):
        _check(own_engine, world)
