"""Transactional steps as classes, nodes and plans; in memory with the sessions of a test database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from sagas import Call, ISagaStorage, MemorySagaStorage, PsycopgStep, Saga, SagaEngine, Step, TransactionalStep
from sagas.definition import ONCE
from sagas.errors import DefinitionError, LogDoesNotFit
from sagas.graph import Graph, Node
from sagas.plan import plan_for
from sagas.progress import Action, Entry, EntryStatus, Progress, SagaStatus, Verdict
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import completed, failed
from sagas.storage.step_transaction import StepTransaction
from sagas.testing import crash_matrix
from tests.samples import Clock, QuickEngine, Stage, Trip, saga_of


class Book(TransactionalStep[Trip]):
    retry = ONCE

    def act(self, trip: Trip, call: Call, session: Session) -> None:
        session.execute(sa.text("INSERT INTO trips VALUES ('booked')"))
        trip.booked.append(call.step_name)

    def compensate(self, trip: Trip, call: Call, session: Session) -> None:
        session.execute(sa.text("INSERT INTO trips VALUES ('undone')"))


class Refuse(Step[Trip]):
    retry = ONCE

    def act(self, trip: Trip, call: Call) -> None:
        raise ValueError("no")


# -- classes ------------------------------------------------------------------------------------------------------


def test_node_of_a_transactional_step_has_its_own_kind() -> None:
    saga = saga_of([Book, Refuse])

    assert [(node.name, node.kind, node.undoable) for node in saga.graph.nodes] == [
        ("book", "transaction", True),
        ("refuse", "step", False),
    ]
    assert Graph.parse(saga.graph.text) == saga.graph


@pytest.mark.parametrize("base", [TransactionalStep, PsycopgStep])
def test_step_that_defines_nothing_to_undo_cannot_be_undone(base: type[Step[Any]]) -> None:
    step = type("Only", (base,), {"act": lambda self, context, call, session: None})

    assert not step.can_compensate()
    with pytest.raises(DefinitionError, match=r"defines no act\(\)"):
        saga_of([type("Nothing", (base,), {})])


@pytest.mark.parametrize("base", [TransactionalStep, PsycopgStep])
@pytest.mark.parametrize("method", ["act", "compensate"])
def test_async_method_is_refused_when_the_class_is_made(base: type[Step[Any]], method: str) -> None:
    async def do(self: Any, context: Trip, call: Call, session: Any) -> None: ...

    with pytest.raises(DefinitionError, match=f"Wrong: {method} is async, and a transactional step holds"):
        type("Wrong", (base,), {method: do})


@pytest.mark.parametrize("method", ["act", "compensate"])
def test_method_that_takes_no_session_is_refused_when_the_class_is_made(method: str) -> None:
    with pytest.raises(DefinitionError, match=rf"Wrong: {method} must take \(self, context, call, session\)"):
        type("Wrong", (TransactionalStep,), {method: lambda self, context, call: None})


def test_saga_whose_step_became_transactional_is_declined() -> None:
    plain = saga_of([Stage().step("book", undo=None)])
    transactional = saga_of([type("Only", (TransactionalStep,), {"name": "book", "act": lambda *_: None})])

    with pytest.raises(LogDoesNotFit, match="Only was a step and became a transaction since this saga was started"):
        plan_for(transactional, plain.graph)
    with pytest.raises(LogDoesNotFit, match="was a transaction and became a step since"):
        plan_for(plain, transactional.graph)


# -- never in doubt -----------------------------------------------------------------------------------------------

GRAPH = Graph.chain("trip", 1, [Node(name="book", kind="transaction", undoable=True), Node(name="pay", undoable=True)])
LOST = Entry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=("book",))
ANYTHING_LOST = Entry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST)
OLD_ABORT = Entry(
    step="compensate", action=Action.OPERATOR, status=EntryStatus.FAILED, verdict=Verdict.ABORT, in_doubt=True
)


@pytest.mark.parametrize(
    "entry", [LOST, ANYTHING_LOST, OLD_ABORT, failed("book", Action.ACT, Verdict.ABORT, in_doubt=True)]
)
def test_transaction_is_never_in_doubt(entry: Entry) -> None:
    progress = Progress(GRAPH, [entry])

    assert progress.in_doubt == frozenset()
    aborted = failed("book", Action.ACT, Verdict.ABORT)
    assert Progress(GRAPH, [entry, aborted]).frontier().end is SagaStatus.COMPENSATED


@pytest.mark.parametrize("entry", [ANYTHING_LOST, failed("pay", Action.ACT, Verdict.RETRY, in_doubt=True)])
def test_plain_step_after_a_transaction_is_still_in_doubt(entry: Entry) -> None:
    assert Progress(GRAPH, [completed("book", Action.ACT), entry]).in_doubt == {"pay"}


# -- in memory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def database() -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE trips (what text)")
    return engine


def rows(database: sa.Engine) -> list[str]:
    with database.connect() as connection:
        return list(connection.exec_driver_sql("SELECT what FROM trips").scalars())


@pytest.fixture
def engine(database: sa.Engine) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(Clock(), sessions=sessionmaker(database).begin))


@pytest.mark.parametrize("run_async", [False, True])
def test_step_writes_to_a_test_database_while_sagas_are_in_memory(
    engine: QuickEngine, database: sa.Engine, run_async: bool
) -> None:
    def run(*steps: type[Step[Any]]) -> Any:
        saga = saga_of(steps)
        return asyncio.run(engine.run_async(saga, Trip())) if run_async else engine.run(saga, Trip())

    class Fails(Book):
        def act(self, trip: Trip, call: Call, session: Session) -> None:
            super().act(trip, call, session)
            raise ValueError("no")

    assert run(Book).outcome == "completed"
    assert rows(database) == ["booked"]
    assert run(Book, Refuse).outcome == "compensated"
    assert rows(database) == ["booked", "booked", "undone"]
    assert run(Fails).outcome == "compensated"
    assert rows(database) == ["booked", "booked", "undone"]


def test_step_in_memory_without_sessions_is_told_what_it_needs() -> None:
    storage = MemorySagaStorage()
    report = SagaEngine(storage).run(saga_of([Book]), Trip())

    assert report.outcome == "compensated"
    assert "give MemorySagaStorage the sessions of a test database" in str(storage.load(report.saga_id).log[0].message)


def test_step_of_a_worker_that_was_replaced_is_rolled_back_in_memory(engine: QuickEngine, database: sa.Engine) -> None:
    class Replaced(Book):
        def act(self, trip: Trip, call: Call, session: Session) -> None:
            super().act(trip, call, session)
            engine.storage._clock.forward(31)  # type: ignore[attr-defined]
            request = LeaseRequest(owner="another", seconds=30)
            engine.storage.acquire(call.saga_id, request, max_recovery_attempts=3)

    assert engine.run(saga_of([Replaced]), Trip()).outcome == "lost"
    assert rows(database) == []


def test_commit_that_the_database_refuses_fails_the_step(database: sa.Engine) -> None:
    @contextmanager
    def refusing() -> Iterator[Session]:
        with Session(database) as session:
            yield session
            raise RuntimeError("constraint")

    storage = MemorySagaStorage(sessions=refusing)
    report = SagaEngine(storage).run(saga_of([Book]), Trip())

    assert (report.outcome, rows(database)) == ("compensated", [])
    assert storage.load(report.saga_id).log[0].error_type == "RuntimeError"


def test_awaitable_that_a_step_returns_is_refused_and_rolled_back(engine: QuickEngine, database: sa.Engine) -> None:
    async def later() -> None: ...

    class Returns(Book):
        def act(self, trip: Trip, call: Call, session: Session) -> Any:
            super().act(trip, call, session)
            return later()

    assert engine.run(saga_of([Returns]), Trip()).outcome == "compensated"
    assert rows(database) == []
    assert engine.stored().log[0].error_type == "DefinitionError"


def test_storage_without_transactions_of_steps_says_so() -> None:
    class Mine(MemorySagaStorage):
        def begin_step(self, *arguments: Any) -> StepTransaction:
            return ISagaStorage.begin_step(self, *arguments)

    storage = Mine()
    report = SagaEngine(storage).run(saga_of([Book]), Trip())

    assert "Mine cannot run the transactional step 'book'" in str(storage.load(report.saga_id).log[0].message)


def test_crash_matrix_refuses_transactional_steps() -> None:
    with pytest.raises(TypeError, match="crash_matrix has no database, whose transactions Book needs"):
        crash_matrix(saga_of([Book]), Trip)


def test_psycopg_step_is_typed_by_its_connection() -> None:
    class Direct(PsycopgStep[Trip]):
        def act(self, trip: Trip, call: Call, connection: psycopg.Connection[Any]) -> None:
            connection.execute("SELECT 1")

    class Once(Saga[Trip]):
        steps = [Direct]

    assert Once.graph.nodes[0].kind == "transaction"
