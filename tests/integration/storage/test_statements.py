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
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage import statements as sql
from sagas.storage.base import Hold, NewSaga, Release, SagaFilter, completed, failed, note
from tests.calls import DEADLINE_SECONDS, new_saga
from tests.samples import Stage, Trip

RUNNING: Final = SagaStatus.RUNNING

Operation = Callable[[SqlAlchemySagaStorage, Hold], Any]


def _hold(storage: SqlAlchemySagaStorage) -> Hold:
    saga = new_saga("held")
    storage.create_sagas([saga], owner="worker-1", for_seconds=60)
    return Hold(saga.id, 1, "worker-1")


def _take(storage: SqlAlchemySagaStorage, hold: Hold) -> Any:
    storage.release(hold, Release(status=RUNNING))
    return storage.take(hold.saga_id, owner="worker-2", lease_seconds=60, max_recovery_attempts=5)


#: How many statements each operation may run; for `take`, the release before it included.
COSTS: Final[dict[str, tuple[Operation, int]]] = {
    "get_sagas_for_recovery": (lambda storage, _: storage.get_sagas_for_recovery(10), 1),
    "increment_recovery_attempts": (lambda storage, hold: storage.increment_recovery_attempts(hold.saga_id), 1),
    "set_recovery_attempts": (lambda storage, hold: storage.set_recovery_attempts(hold.saga_id, 0), 1),
    "create": (lambda storage, _: storage.create_sagas([new_saga(), new_saga("key")], owner=None), 1),
    "create, existing": (lambda storage, _: storage.create_sagas([new_saga("held")], owner=None), 2),
    "load": (lambda storage, hold: storage.load(hold.saga_id), 1),
    "find": (lambda storage, _: storage.find(SagaFilter()), 1),
    "release and take": (_take, 2),
    "take, refused": (
        lambda storage, hold: storage.take(
            hold.saga_id, owner="worker-2", lease_seconds=60, max_recovery_attempts=5, by_hand=True
        ),
        2,
    ),
    "checkpoint, completed": (
        lambda storage, hold: storage.checkpoint(hold, completed("a", Action.ACT), status=RUNNING, context='{"n": 2}'),
        1,
    ),
    "checkpoint, failed": (
        lambda storage, hold: storage.checkpoint(hold, failed("a", Action.ACT, Verdict.RETRY), status=RUNNING),
        1,
    ),
    "checkpoint, the last": (
        lambda storage, hold: storage.checkpoint(hold, completed("a", Action.ACT), status=SagaStatus.COMPLETED),
        1,
    ),
    "checkpoint, giving back": (
        lambda storage, hold: storage.checkpoint(
            hold, failed("a", Action.ACT, Verdict.RETRY), status=RUNNING, release=Release(status=RUNNING)
        ),
        1,
    ),
    "end": (lambda storage, hold: storage.checkpoint(hold, None, status=SagaStatus.COMPENSATED), 1),
    "checkpoint, a note": (
        lambda storage, hold: storage.checkpoint(hold, note("retry", by="ann", because="why"), status=RUNNING),
        1,
    ),
    "renew": (lambda storage, hold: storage.renew(hold, 60), 1),
    "release": (lambda storage, hold: storage.release(hold, Release(status=RUNNING)), 1),
    "claim": (
        lambda storage, _: storage.claim_sagas(pending=True, limit=9, max_recovery_attempts=5, mark_seconds=4),
        4,
    ),
    "seize_orphans": (lambda storage, _: storage.seize_orphans("worker-1", max_recovery_attempts=5), 1),
    "unclaim": (lambda storage, _: storage.unclaim([]), 1),
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
    storage = SqlAlchemySagaStorage(own)
    hold = _hold(storage)
    ran.clear()
    call, statements = COSTS[operation]

    call(storage, hold)

    own.dispose()
    assert len(ran) == statements, ran


def test_the_first_operation_looks_once_whether_the_layout_fits(engine: sa.Engine) -> None:
    own, ran = _counting(engine.url)
    with own.connect():
        ran.clear()  # what SQLAlchemy asks for itself on its first connection
    storage = SqlAlchemySagaStorage(own)

    for _ in range(3):
        storage.find(SagaFilter())

    own.dispose()
    assert len(ran) == 2 + 3


def test_a_saga_costs_a_statement_more_than_it_has_steps_and_a_recovered_one_too(engine: sa.Engine) -> None:
    own, ran = _counting(engine.url)
    storage = SqlAlchemySagaStorage(own)
    storage.check_schema()
    runner, trip = SagaEngine(storage), Stage().saga("flight", "hotel", "car")

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

    class Watched(SqlAlchemySagaStorage):
        def checkpoint(self, *arguments: Any, context: str | None = None, **options: Any) -> None:
            written.append(context)
            super().checkpoint(*arguments, context=context, **options)

    storage = Watched(engine)
    runner, trip = SagaEngine(storage), Stage().saga("flight", "hotel")
    saga_id = runner.start(trip, Trip(["before"]))

    runner.recover(saga_id)

    assert written == [None, None], "jsonb has other spaces than what was dumped, and that is all"


@pytest.mark.skipif(sys.platform != "linux", reason="libpq traces on Linux only")
@pytest.mark.parametrize(
    ("operation", "round_trips"), [("checkpoint, completed", 1), ("renew", 1), ("release and take", 2), ("load", 1)]
)
def test_what_a_step_costs_is_one_round_trip(
    engine: sa.Engine, tmp_path: Path, operation: str, round_trips: int
) -> None:
    own = sa.create_engine(engine.url, pool_size=1, max_overflow=0)
    storage = SqlAlchemySagaStorage(own)
    call, _ = COSTS[operation]
    for _ in range(8):  # until psycopg has prepared the statement, which costs one round trip once
        call(storage, _hold_again(storage, engine))
    hold = _hold_again(storage, engine)

    with (tmp_path / "trace").open("w+") as trace:
        connection = own.raw_connection()
        connection.driver_connection.pgconn.trace(trace.fileno())  # type: ignore[union-attr]
        connection.close()
        call(storage, hold)
        own.dispose()
        messages = [line.split("\t") for line in Path(trace.name).read_text().splitlines()]

    asked = [message[3] for message in messages if message[1:2] == ["F"] and message[3] in ("Sync", "Query")]
    assert len(asked) == round_trips, messages


def _hold_again(storage: SqlAlchemySagaStorage, engine: sa.Engine) -> Hold:
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_executions; DELETE FROM saga_logs")
    return _hold(storage)


def test_a_checkpoint_rewrites_its_row_in_its_page_without_touching_an_index(database_url: str) -> None:
    own = sa.create_engine(database_url)
    storage = SqlAlchemySagaStorage(own)
    sagas = [new_saga() for _ in range(240)]
    storage.create_sagas(sagas, owner="worker-1", for_seconds=60)
    # Of the thirty in a page some have moved on before old versions are cleared away: the fill factor leaves the room.
    written = sagas[::6]
    for saga in written:
        entry = completed("reserve", Action.ACT)
        storage.checkpoint(Hold(saga.id, 1, "worker-1"), entry, status=RUNNING, context='{"n": 2}')
    storage.close()  # a session reports what it did at its end

    counted = _updates(own, at_least=len(written))

    own.dispose()
    assert counted == (len(written), len(written))


def _updates(engine: sa.Engine, *, at_least: int) -> tuple[int, int]:
    """How many updates of the table the server counted, and how many of them were heap-only."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'saga_executions'"
    while True:
        with engine.connect() as connection:
            updates, heap_only = connection.exec_driver_sql(query).one()
        if updates >= at_least:
            return updates, heap_only
        assert time.monotonic() < deadline, f"the server counted {updates} updates only"
        time.sleep(0.01)


# -- plans ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(module_engine: sa.Engine) -> Iterator[sa.Connection]:
    """20,000 finished sagas, a backlog of 10,000 of each kind, and a queue of 500; nothing of it is committed."""
    rows = """
        INSERT INTO saga_executions (id, name, status, context, version, lease_owner, available_at, finished_at)
        SELECT gen_random_uuid(), 'order', '{status}', '{{}}', 1, {owner}, {available_at}, {finished_at}
        FROM generate_series(1, {count}) AS n"""
    some_time_ago = "now() - n * interval '1 second'"
    with module_engine.connect() as connection:
        for status, count, owner, available_at, finished_at in (
            ("COMPLETED", 20_000, "NULL", "'infinity'", some_time_ago),
            ("RUNNING", 10_000, "NULL", some_time_ago, "NULL"),
            ("PENDING", 10_000, "NULL", some_time_ago, "NULL"),
            ("RUNNING", 500, "'queue'", some_time_ago, "NULL"),
            ("PENDING", 500, "'queue'", some_time_ago, "NULL"),
        ):
            connection.exec_driver_sql(
                rows.format(status=status, count=count, owner=owner, available_at=available_at, finished_at=finished_at)
            )
        connection.exec_driver_sql("""
            INSERT INTO saga_logs (saga_id, step_name, action, status)
            SELECT id, 'flight', 'act', 'completed' FROM saga_executions WHERE status = 'COMPLETED'""")
        connection.exec_driver_sql("ANALYZE saga_executions, saga_logs")
        yield connection
        connection.rollback()


@pytest.mark.parametrize(("pending", "index"), [(False, "saga_executions_due"), (True, "saga_executions_unstarted")])
def test_a_claim_reads_its_limit_from_the_partial_index_and_sorts_nothing(
    history: sa.Connection, pending: bool, index: str
) -> None:
    parameters = {"limit": 600, "max_attempts": 5, "seconds": 60.0, "next_owner": "queue"}

    nodes = _plan(history, sql.CLAIM[pending], parameters)

    assert {node["Node Type"] for node in nodes} & {"Seq Scan", "Sort", "Incremental Sort"} == set(), nodes
    (scan,) = (node for node in nodes if node.get("Index Name") == index)
    # 500 wait in the queue already, so there is room for 100, and one row more tells that the limit is reached.
    assert scan["Actual Rows"] <= 101


@pytest.mark.parametrize("pending", [False, True])
def test_missing_messages_are_found_without_reading_history(history: sa.Connection, pending: bool) -> None:
    parameters = {"limit": 100, "waiting": 450, "grace": 2.0}

    nodes = _plan(history, sql.FREE_MISSING[pending], parameters)

    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert "saga_executions_queued" in {node.get("Index Name") for node in nodes}


def test_pruning_reads_its_limit_from_the_partial_index(history: sa.Connection) -> None:
    nodes = _plan(history, sql.PRUNE, {"age": 0.0, "limit": 100})

    assert {node["Node Type"] for node in nodes} & {"Seq Scan", "Sort", "Incremental Sort"} == set(), nodes
    (scan,) = (node for node in nodes if node.get("Index Name") == "saga_executions_finished")
    assert scan["Actual Rows"] <= 101


def test_pruning_does_not_read_the_whole_table_when_the_server_plans_it_for_any_limit(history: sa.Connection) -> None:
    statement = sql.PRUNE.replace("%(age)s", "$1").replace("%(limit)s", "$2")
    with history.begin_nested() as savepoint:
        history.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        history.exec_driver_sql(f"PREPARE prune (float8, bigint) AS {statement}")
        nodes = _plan(history, "EXECUTE prune(0, 100)", {})
        history.exec_driver_sql("DEALLOCATE prune")
        savepoint.rollback()

    assert "Seq Scan" not in {node["Node Type"] for node in nodes}, nodes


def test_a_prune_deletes_the_logs_of_what_it_deletes_and_no_others(engine: sa.Engine) -> None:
    storage = SqlAlchemySagaStorage(engine)
    pruned, kept = _hold(storage), Hold(new_saga_id(), 1, "worker-1")
    storage.create_sagas([NewSaga(id=kept.saga_id, name="order", context="{}")], owner="worker-1", for_seconds=60)
    storage.checkpoint(pruned, completed("a", Action.ACT), status=SagaStatus.COMPLETED)
    storage.checkpoint(kept, completed("a", Action.ACT), status=RUNNING)

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
