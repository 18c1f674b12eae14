"""What the PostgreSQL storage costs: statements, round trips, plans and rewrites, as the server counts them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pytest
import sqlalchemy as sa

from sagas import SagaEngine
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage import PostgresSagaStorage
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.lost_messages import OVERTAKING_SECONDS, PROBES
from sagas.storage.postgres.queries import query
from sagas.storage.records import NewSaga, completed, failed, note
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import (
    MOST_PROBE_SECONDS,
    PROBE_SECONDS,
    Ended,
    GaveBack,
    Progressed,
    Suspended,
    Transition,
)
from tests.calls import DEADLINE_SECONDS, new_saga
from tests.samples import Stage, Trip

RUNNING: Final = SagaStatus.RUNNING

Operation = Callable[[PostgresSagaStorage, Lease], Any]
ACTED: Final = completed("a", Action.ACT)
ANOTHER: Final = LeaseRequest(owner="worker-2", seconds=60)


def _held(storage: PostgresSagaStorage) -> Lease:
    saga, request = new_saga("held"), LeaseRequest(owner="worker-1", seconds=60)
    storage.create_sagas([saga], lease=request)
    return Lease(saga.id, 1, request.owner, request.token)


def _acquire(storage: PostgresSagaStorage, lease: Lease) -> Any:
    storage.apply(lease, GaveBack(status=RUNNING))
    return storage.acquire(lease.saga_id, ANOTHER, max_recovery_attempts=5)


def _applies(transition: Transition) -> tuple[Operation, int]:
    return lambda storage, lease: storage.apply(lease, transition), 1


#: How many statements each operation may run.
COSTS: Final[dict[str, tuple[Operation, int]]] = {
    "get_sagas_for_recovery": (lambda storage, _: storage.get_sagas_for_recovery(10), 1),
    "set_recovery_attempts": (lambda storage, lease: storage.set_recovery_attempts(lease.saga_id, 0), 1),
    "create": (lambda storage, _: storage.create_sagas([new_saga(), new_saga("key")]), 1),
    "create, existing": (lambda storage, _: storage.create_sagas([new_saga("held")]), 2),
    "load": (lambda storage, lease: storage.load(lease.saga_id), 1),
    "find": (lambda storage, _: storage.find(SagaFilter()), 1),
    "head": (lambda storage, lease: storage.head(lease.saga_id), 1),
    "give back and acquire": (_acquire, 2),
    "acquire, refused": (
        lambda storage, lease: storage.acquire(lease.saga_id, ANOTHER, max_recovery_attempts=5, by_hand=True),
        1,
    ),
    "progressed": _applies(Progressed(events=(ACTED,), status=RUNNING, context='{"n": 2}', in_flight=("b",))),
    "failed": _applies(Progressed(events=(failed("a", Action.ACT, Verdict.RETRY),), status=RUNNING)),
    "suspended": _applies(
        Suspended(events=(failed("a", Action.ACT, Verdict.RETRY),), status=RUNNING, after_seconds=60)
    ),
    "ended": _applies(Ended(events=(ACTED,), status=SagaStatus.COMPLETED)),
    "ended without an event": _applies(Ended(events=(), status=SagaStatus.COMPENSATED)),
    "a note": _applies(Progressed(events=(note("retry", actor="ann", reason="why"),), status=RUNNING)),
    "given back": _applies(GaveBack(status=RUNNING)),
    "renew": (lambda storage, lease: storage.renew(lease, 60), 1),
    "reclaim": (lambda storage, _: storage.reclaim("worker-1", max_recovery_attempts=5), 1),
    "release_claims": (lambda storage, _: storage.release_claims([]), 1),
    "prune": (lambda storage, _: storage.prune(older_than_seconds=0, limit=9), 1),
    "check_schema": (lambda storage, _: storage.check_schema(), 2),
}


def _counting(url: sa.URL) -> tuple[sa.Engine, list[str]]:
    """An engine, and the list of all statements that its connections run."""
    ran: list[str] = []

    class Counting(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
            ran.append(str(query))
            return super().execute(query, *arguments, **options)

    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "cursor_factory", Counting))
    return engine, ran


@pytest.mark.parametrize("operation", COSTS)
def test_an_operation_runs_no_more_statements_than_it_needs(engine: sa.Engine, operation: str) -> None:
    own, ran = _counting(engine.url)
    storage = PostgresSagaStorage(own)
    lease = _held(storage)
    ran.clear()
    call, statements = COSTS[operation]

    call(storage, lease)

    own.dispose()
    assert len(ran) == statements, ran


def test_the_first_operation_looks_once_whether_the_layout_fits(engine: sa.Engine) -> None:
    own, ran = _counting(engine.url)
    with own.connect():
        ran.clear()  # what SQLAlchemy asks for itself on its first connection
    storage = PostgresSagaStorage(own)

    for _ in range(3):
        storage.find(SagaFilter())

    own.dispose()
    assert len(ran) == 2 + 3


def test_a_saga_costs_a_statement_more_than_it_has_steps_and_a_recovered_one_too(engine: sa.Engine) -> None:
    own, ran = _counting(engine.url)
    storage = PostgresSagaStorage(own)
    storage.check_schema()
    runner, trip = SagaEngine(storage), Stage().saga("flight", "hotel", "car")

    runner.definitions.register(trip.graph)  # once a process
    ran.clear()
    runner.run(trip, Trip())
    assert len(ran) == 1 + 3, ran

    saga_id = runner.start(trip, Trip())
    ran.clear()
    runner.recover(saga_id)
    own.dispose()
    assert len(ran) == 1 + 3, ran


def test_a_recovered_saga_does_not_write_a_context_that_its_steps_left_as_it_was(engine: sa.Engine) -> None:
    written: list[str | None] = []

    class Watched(PostgresSagaStorage):
        def apply(self, lease: Lease, transition: Transition) -> Applied:
            written.append(getattr(transition, "context", None))
            return super().apply(lease, transition)

    storage = Watched(engine)
    runner, trip = SagaEngine(storage), Stage().saga("flight", "hotel")
    saga_id = runner.start(trip, Trip(["before"]))

    runner.recover(saga_id)

    assert written == [None, None]


@pytest.mark.skipif(sys.platform != "linux", reason="libpq traces on Linux only")
@pytest.mark.parametrize(
    ("operation", "round_trips"),
    [("progressed", 1), ("ended", 1), ("renew", 1), ("give back and acquire", 2), ("load", 1), ("head", 1)],
)
def test_what_a_step_costs_is_one_round_trip(
    engine: sa.Engine, tmp_path: Path, operation: str, round_trips: int
) -> None:
    own = sa.create_engine(engine.url, pool_size=1, max_overflow=0)
    storage = PostgresSagaStorage(own)
    call, _ = COSTS[operation]
    for _ in range(8):  # until psycopg has prepared the statement, which costs one round trip once
        call(storage, _held_again(storage, engine))
    lease = _held_again(storage, engine)

    with (tmp_path / "trace").open("w+") as trace:
        connection = own.raw_connection()
        connection.driver_connection.pgconn.trace(trace.fileno())  # type: ignore[union-attr]
        connection.close()
        call(storage, lease)
        own.dispose()
        messages = [line.split("\t") for line in Path(trace.name).read_text().splitlines()]

    asked = [message[3] for message in messages if message[1:2] == ["F"] and message[3] in ("Sync", "Query")]
    assert len(asked) == round_trips, messages


def _held_again(storage: PostgresSagaStorage, engine: sa.Engine) -> Lease:
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_executions; DELETE FROM saga_logs")
    return _held(storage)


def test_a_checkpoint_rewrites_its_row_in_its_page_without_touching_an_index(database_url: str) -> None:
    own = sa.create_engine(database_url)
    storage = PostgresSagaStorage(own)
    sagas = [new_saga() for _ in range(240)]
    request = LeaseRequest(owner="worker-1", seconds=60)
    storage.create_sagas(sagas, lease=request)
    # Of the thirty in a page some have moved on before old versions are cleared away: the fill factor leaves the room.
    written = sagas[::6]
    for saga in written:
        lease = Lease(saga.id, 1, request.owner, request.token)
        storage.apply(lease, Progressed(events=(ACTED,), status=RUNNING, context='{"n": 2}', in_flight=("b",)))
    storage.close()  # a session reports what it did at its end

    counted = _updates(own, at_least=len(written))

    own.dispose()
    assert counted == (len(written), len(written))


def _updates(engine: sa.Engine, *, at_least: int) -> tuple[int, int]:
    """How many updates of the table the server counted, and how many of them were heap-only."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    statistics = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'saga_executions'"
    while True:
        with engine.connect() as connection:
            updates, heap_only = connection.exec_driver_sql(statistics).one()
        if updates >= at_least:
            return updates, heap_only
        assert time.monotonic() < deadline, f"the server counted {updates} updates only"
        time.sleep(0.01)


# -- plans ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(module_engine: sa.Engine) -> Iterator[sa.Connection]:
    """20,000 finished sagas, a backlog of 10,000 of each kind, and a queue of 500; nothing of it is committed."""
    rows = """
        INSERT INTO saga_executions (id, name, status, state, context, version, available_at, finished_at)
        SELECT gen_random_uuid(), 'order', '{status}', '{state}', '{{}}', 1, {available_at}, {finished_at}
        FROM generate_series(1, {count}) AS n"""
    some_time_ago = "now() - n * interval '1 second'"
    with module_engine.connect() as connection:
        for status, state, count, available_at, finished_at in (
            ("COMPLETED", "finished", 20_000, "'infinity'", some_time_ago),
            ("RUNNING", "ready", 10_000, some_time_ago, "NULL"),
            ("PENDING", "ready", 10_000, some_time_ago, "NULL"),
            ("RUNNING", "queued", 500, some_time_ago, "NULL"),
            ("PENDING", "queued", 500, some_time_ago, "NULL"),
        ):
            connection.exec_driver_sql(
                rows.format(status=status, state=state, count=count, available_at=available_at, finished_at=finished_at)
            )
        connection.exec_driver_sql("""
            INSERT INTO saga_logs (saga_id, step_name, action, status)
            SELECT id, 'flight', 'act', 'completed' FROM saga_executions WHERE status = 'COMPLETED'""")
        connection.exec_driver_sql("ANALYZE saga_executions, saga_logs")
        yield connection
        connection.rollback()


#: What a scan's statements are given.
SCAN: Final = {
    "max_attempts": 5,
    "probe": PROBE_SECONDS,
    "most_probe": MOST_PROBE_SECONDS,
    "overtaking": OVERTAKING_SECONDS,
    "probes": PROBES,
}


@pytest.mark.parametrize(
    ("statement", "index"), [("claim_due", "saga_executions_due"), ("claim_new", "saga_executions_unstarted")]
)
def test_a_claim_reads_its_limit_from_the_partial_index_and_sorts_no_more_than_that(
    history: sa.Connection, statement: str, index: str
) -> None:
    nodes = _plan(history, query(statement), SCAN | {"limit": 600})

    assert {node["Node Type"] for node in nodes} & {"Seq Scan", "Incremental Sort"} == set(), nodes
    (order,) = (node for node in nodes if node["Node Type"] == "Sort")  # of what is returned
    assert order["Actual Rows"] <= 100
    (scan,) = (node for node in nodes if node.get("Index Name") == index)
    # 500 wait in the queue already, so there is room for 100, and one row more tells that the limit is reached.
    assert scan["Actual Rows"] <= 101


@pytest.mark.parametrize("pending", [False, True])
def test_lost_messages_are_found_without_reading_history(history: sa.Connection, pending: bool) -> None:
    statuses = ["PENDING"] if pending else ["RUNNING", "COMPENSATING", "FAILED"]
    parameters = SCAN | {"limit": 100, "pending": pending, "statuses": statuses}

    nodes = _plan(history, query("claim_lost"), parameters)

    scanned = [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert [node for node in scanned if node["Relation Name"] != "saga_deliveries"] == []
    assert "saga_executions_queued" in {node.get("Index Name") for node in nodes}


def test_pruning_reads_its_limit_from_the_partial_index(history: sa.Connection) -> None:
    nodes = _large(_plan(history, query("prune"), {"age": 0.0, "limit": 100}))

    assert {node["Node Type"] for node in nodes} & {"Seq Scan", "Sort", "Incremental Sort"} == set(), nodes
    (scan,) = (node for node in nodes if node.get("Index Name") == "saga_executions_finished")
    assert scan["Actual Rows"] <= 101


def test_pruning_does_not_read_the_whole_table_when_the_server_plans_it_for_any_limit(history: sa.Connection) -> None:
    statement = query("prune").replace("%(age)s", "$1").replace("%(limit)s", "$2")
    with history.begin_nested() as savepoint:
        history.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        history.exec_driver_sql(f"PREPARE prune (float8, bigint) AS {statement}")
        nodes = _plan(history, "EXECUTE prune(0, 100)", {})
        history.exec_driver_sql("DEALLOCATE prune")
        savepoint.rollback()

    nodes = _large(nodes)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}, nodes


def _large(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what reads the table of signals, which is empty here."""
    return [node for node in nodes if node.get("Relation Name") != "saga_signals"]


def test_a_prune_deletes_the_logs_of_what_it_deletes_and_no_others(engine: sa.Engine) -> None:
    storage = PostgresSagaStorage(engine)
    request = LeaseRequest(owner="worker-1", seconds=60)
    pruned, kept = _held(storage), Lease(new_saga_id(), 1, request.owner, request.token)
    storage.create_sagas([NewSaga(id=kept.saga_id, name="order", context="{}")], lease=request)
    storage.apply(pruned, Ended(events=(ACTED,), status=SagaStatus.COMPLETED))
    storage.apply(kept, Progressed(events=(ACTED,), status=RUNNING))

    assert storage.prune(older_than_seconds=0, limit=9) == 1

    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT saga_id FROM saga_logs").scalars().all()
    assert left == [kept.saga_id]


def _plan(connection: sa.Connection, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the statement, undo it, and return every node of the plan it ran by."""
    with connection.begin_nested() as savepoint:
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
        savepoint.rollback()
    nodes, left = [], [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        if node.get("Relation Name") != "saga_pauses":  # a handful of rows, always read whole
            nodes.append(node)
    return nodes
