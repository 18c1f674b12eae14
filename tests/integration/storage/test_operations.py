"""What operators ask of the database: the answers, and by which plans the server finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas.errors import QuestionTooLong
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage import operator_statements as sql
from sagas.storage.operations import Operations
from sagas.storage.operator_answers import DryRun, Listing, ScanVerdict
from sagas.storage.records import Lease, completed
from tests.calls import held_saga, new_saga
from tests.databases import database

V: Final = ScanVerdict
DUE: Final = "now() - interval '1 minute'"
LATER: Final = "now() + interval '1 minute'"
NEVER: Final = "'infinity'"
#: Of a saga whose name is paused.
PAUSED: Final = {"name": "'parcel'"}

#: Each way in which an unfinished saga can stand, as its row has it, and what a scan does with it.
STANDINGS: Final[dict[str, tuple[dict[str, str], ScanVerdict]]] = {
    "never ran, due": ({"status": "'PENDING'", "available_at": DUE}, V.DISPATCHED),
    "never ran, just freed": ({"status": "'PENDING'", "available_at": LATER}, V.SLEEPING),
    "never ran, in the queue": ({"status": "'PENDING'", "lease_owner": "'queue'", "available_at": LATER}, V.QUEUED),
    "never ran, long in the queue": ({"status": "'PENDING'", "lease_owner": "'queue'", "available_at": DUE}, V.OVERDUE),
    "never ran, name paused": ({"status": "'PENDING'", "available_at": DUE, **PAUSED}, V.PARKS),
    "never ran, parked": (
        {"status": "'PENDING'", "lease_owner": "'paused'", "available_at": NEVER, **PAUSED},
        V.PAUSED,
    ),
    "due": ({"available_at": DUE}, V.DISPATCHED),
    "due, turning back": ({"status": "'COMPENSATING'", "available_at": DUE}, V.DISPATCHED),
    "due, its attempts spent": ({"status": "'FAILED'", "recovery_attempts": "5", "available_at": DUE}, V.DIES),
    "due, one attempt left": ({"status": "'FAILED'", "recovery_attempts": "4", "available_at": DUE}, V.DISPATCHED),
    "held": ({"lease_owner": "'w/1.1'", "available_at": LATER}, V.HELD),
    "lease ran out": ({"lease_owner": "'w/1.1'", "available_at": DUE, "recovery_attempts": "4"}, V.DISPATCHED),
    "lease ran out once too often": (
        {"lease_owner": "'w/1.1'", "available_at": DUE, "recovery_attempts": "4", "version": "2"},
        V.DIES,
    ),
    "lease ran out, name paused": ({"lease_owner": "'w/1.1'", "available_at": DUE, **PAUSED}, V.PARKS),
    "lease ran out once too often, name paused": (
        {"lease_owner": "'w/1.1'", "available_at": DUE, "recovery_attempts": "4", "version": "2", **PAUSED},
        V.DIES,
    ),
    "held, name paused": ({"lease_owner": "'w/1.1'", "available_at": LATER, **PAUSED}, V.HELD),
    "backing off": ({"status": "'FAILED'", "available_at": LATER}, V.BACKING_OFF),
    "sleeping until a retry": ({"available_at": LATER, "last_error": "'pay, act, attempt 1: E: e'"}, V.SLEEPING),
    "declined": ({"available_at": LATER, "last_error": "'declined: no saga named x'"}, V.DECLINED),
    "in the queue": ({"lease_owner": "'queue'", "available_at": LATER}, V.QUEUED),
    "long in the queue": ({"lease_owner": "'queue'", "available_at": DUE}, V.OVERDUE),
    "parked": ({"lease_owner": "'paused'", "available_at": NEVER, **PAUSED}, V.PAUSED),
    "parked after a failure": (
        {"status": "'FAILED'", "lease_owner": "'paused'", "available_at": NEVER, **PAUSED},
        V.PAUSED,
    ),
    "dead": ({"status": "'FAILED'", "available_at": NEVER, "recovery_attempts": "5"}, V.DEAD),
    "dead, name paused": ({"status": "'FAILED'", "available_at": NEVER, **PAUSED}, V.DEAD),
}


@pytest.fixture
def operations(storage: PostgresSagaStorage) -> Operations:
    return Operations(storage)


@pytest.fixture
def insert(engine: sa.Engine) -> Iterator[Callable[..., UUID]]:
    """Inserts a saga with these SQL expressions for its columns, RUNNING at version 1 unless they say otherwise."""

    def insert(**columns: str) -> UUID:
        saga = new_saga()
        row = {
            "id": f"'{saga.id}'",
            "name": "'order'",
            "status": "'RUNNING'",
            "context": "'{}'",
            "version": "1",
        } | columns
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO saga_executions ({', '.join(row)}) VALUES ({', '.join(row.values())})"
            )
        return saga.id

    yield insert
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_pauses; DELETE FROM saga_scans; DELETE FROM saga_asks")


def dry_run(operations: Operations, limit: int = 100) -> DryRun:
    return operations.dry_run(limit=limit, max_recovery_attempts=5, shown=1000)


def foreseen(run: DryRun) -> dict[ScanVerdict, list[UUID]]:
    return {verdicts.verdict: [judged.id for judged in verdicts.first] for verdicts in run.verdicts}


def scan(storage: PostgresSagaStorage, limit: int = 100) -> tuple[set[UUID], set[UUID]]:
    """Claim as one scan does, no message being lost; return what is dispatched and what died."""
    results = [
        storage.claim_sagas(
            pending=pending, limit=limit, max_recovery_attempts=5, mark_seconds=60, messages_waiting=1_000_000
        )
        for pending in (True, False)
    ]
    return {claim.saga_id for result in results for claim in result.claims}, {i for r in results for i in r.died}


def rows(engine: sa.Engine) -> Mapping[UUID, Any]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT id, status, lease_owner, available_at::text, recovery_attempts, version FROM saga_executions"
        )
        return {row.id: row for row in found}


# -- the dry run of a scan ------------------------------------------------------------------------------------


def test_a_dry_run_foresees_what_the_scan_right_after_it_does_with_a_saga_in_every_standing(
    operations: Operations, storage: PostgresSagaStorage, engine: sa.Engine, insert: Callable[..., UUID]
) -> None:
    ids = {standing: insert(**columns) for standing, (columns, _) in STANDINGS.items()}
    insert(status="'COMPLETED'", available_at=NEVER, finished_at="now()")
    with engine.begin() as connection:
        # As a pause does, but for what it parks at once: a scan then meets them.
        connection.exec_driver_sql("INSERT INTO saga_pauses (name, by, because) VALUES ('parcel', 'me', 'why')")
    before = rows(engine)

    told = foreseen(dry_run(operations))
    dispatched, died = scan(storage)

    by_id = {saga_id: verdict for verdict, sagas in told.items() for saga_id in sagas}
    assert {standing: by_id[ids[standing]] for standing in STANDINGS} == {s: v for s, (_, v) in STANDINGS.items()}
    assert set(by_id) == set(ids.values()), "the finished are passed over"
    after = rows(engine)
    assert (dispatched, died) == (set(told[V.DISPATCHED]), set(told[V.DIES]))
    parked = {i for i in after if after[i].lease_owner == "paused" and before[i].lease_owner != "paused"}
    assert parked == set(told[V.PARKS])
    assert {i for i in after if after[i] != before[i]} == dispatched | died | parked


def test_a_dry_run_picks_the_longest_due_up_to_what_the_limit_leaves_beside_the_queue(
    operations: Operations, storage: PostgresSagaStorage, insert: Callable[..., UUID]
) -> None:
    insert(lease_owner="'queue'", available_at=LATER)
    waiting = [insert(available_at=f"now() - interval '{age} s'") for age in (30, 10, 20)]
    pending = [insert(status="'PENDING'", available_at=f"now() - interval '{age} s'") for age in (5, 6, 7, 8)]

    told = foreseen(dry_run(operations, limit=3))
    dispatched, _ = scan(storage, limit=3)

    assert told[V.DISPATCHED] == [waiting[0], waiting[2], pending[3], pending[2], pending[1]]
    assert set(told[V.BEYOND_LIMIT]) == {pending[0], waiting[1]}
    assert dispatched == set(told[V.DISPATCHED])


def test_a_dry_run_counts_all_and_shows_the_first_and_changes_nothing(
    operations: Operations, engine: sa.Engine, insert: Callable[..., UUID]
) -> None:
    ids = [insert(available_at=f"now() - interval '{10 - age} s'") for age in range(5)]
    before = rows(engine)

    (verdicts,) = operations.dry_run(limit=100, max_recovery_attempts=5, shown=2).verdicts

    assert (verdicts.verdict, verdicts.sagas) == (V.DISPATCHED, 5)
    assert [judged.id for judged in verdicts.first] == ids[:2]
    assert rows(engine) == before


# -- listing --------------------------------------------------------------------------------------------------


def test_pages_follow_each_other_without_a_gap(operations: Operations, insert: Callable[..., UUID]) -> None:
    ids = sorted((insert() for _ in range(5)), reverse=True)
    pages, after = [], None
    while True:
        page = operations.list_sagas(Listing(limit=2, after=after))
        pages.append([record.id for record in page.records])
        if not page.more:
            break
        after = pages[-1][-1]

    assert pages == [ids[:2], ids[2:4], ids[4:]]


def test_an_age_is_the_databases_even_if_the_clock_that_made_the_id_was_half_an_hour_wrong(
    operations: Operations, engine: sa.Engine, insert: Callable[..., UUID]
) -> None:
    saga_id = insert()  # with an id of now
    for minutes in (29, -29):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE saga_executions SET created_at = now() - %s", (timedelta(minutes=minutes),)
            )

        def listed(minutes: int = minutes, **ages: float) -> list[UUID]:
            return [
                r.id for r in operations.list_sagas(Listing(**{k: v + minutes * 60 for k, v in ages.items()})).records
            ]

        assert listed(newer_than_seconds=60) == listed(older_than_seconds=-60) == [saga_id]
        assert listed(newer_than_seconds=-60) == listed(older_than_seconds=60) == []


def test_the_age_of_a_lifetime_lists_everything(operations: Operations, insert: Callable[..., UUID]) -> None:
    saga_id = insert()

    assert [r.id for r in operations.list_sagas(Listing(newer_than_seconds=3.2e9)).records] == [saga_id]
    assert operations.list_sagas(Listing(older_than_seconds=3.2e9)).records == ()


def test_what_a_node_or_an_owner_holds_is_listed_and_no_namesakes(
    operations: Operations, insert: Callable[..., UUID]
) -> None:
    first, second, other = (insert(lease_owner=f"'{owner}'") for owner in ("w/1.5", "w/2.7", "w2/1.5"))
    insert()

    def held_by(owner: str) -> list[UUID]:
        return [record.id for record in operations.list_sagas(Listing(leased_by=owner)).records]

    assert set(held_by("w")) == {first, second}
    assert held_by("w/1.5") == [first]
    assert held_by("w2") == [other]
    assert held_by("%") == []


@pytest.mark.parametrize(
    ("wanted", "reads"),
    [
        (Listing(), set()),
        (Listing(statuses=[SagaStatus.FAILED, SagaStatus.RUNNING]), {"unfinished"}),
        (Listing(statuses=[SagaStatus.FAILED, SagaStatus.COMPLETED]), set()),
        (Listing(leased_by="w"), {"unfinished"}),
        (Listing(statuses=[SagaStatus.FAILED], dead=True), {"dead"}),
    ],
)
def test_a_listing_that_only_unfinished_sagas_can_be_in_reads_only_those(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, wanted: Listing, reads: set[str]
) -> None:
    asked: list[list[str]] = []
    listing = sql.listing
    monkeypatch.setattr(sql, "listing", lambda filters: asked.append(filters) or listing(filters))

    operations.list_sagas(wanted)

    assert set(asked[0]) & {"unfinished", "dead"} == reads


# -- what everybody does --------------------------------------------------------------------------------------


def test_what_ended_after_being_taken_more_than_once_was_recovered(
    operations: Operations, storage: PostgresSagaStorage
) -> None:
    straight, taken_over = held_saga(storage), held_saga(storage, for_seconds=0)
    storage.take(taken_over.saga_id, owner="worker-2", lease_seconds=60, max_recovery_attempts=5)
    for hold in (straight, Lease(taken_over.saga_id, 2, "worker-2")):
        storage.checkpoint(hold, completed("a", Action.ACT), status=SagaStatus.COMPLETED)

    (ended,) = operations.statistics().ended_lately

    assert (ended.name, ended.status, ended.sagas, ended.recovered) == ("order", SagaStatus.COMPLETED, 2, 1)


def test_what_failed_or_died_within_the_hour_is_counted_and_what_did_before_is_not(
    operations: Operations, insert: Callable[..., UUID]
) -> None:
    before = "now() - interval '61 minutes'"
    for updated_at in ("now() - interval '59 minutes'", "now()", before):
        insert(status="'FAILED'", available_at=NEVER, updated_at=updated_at)
    for updated_at in ("now()", before):
        insert(status="'FAILED'", available_at=LATER, updated_at=updated_at)
    insert(status="'FAILED'", lease_owner="'paused'", available_at=NEVER, updated_at=before)
    insert(status="'COMPLETED'", available_at=NEVER, finished_at=before)

    statistics = operations.statistics()

    (count,) = statistics.unfinished
    assert (count.sagas, count.dead, count.died_lately, count.failed_lately, count.parked) == (6, 3, 2, 1, 1)
    assert statistics.ended_lately == ()
    assert statistics.finished_in_total is None
    assert operations.statistics(whole=True).finished_in_total == {SagaStatus.COMPLETED: 1}


def test_the_oldest_recoverable_is_the_longest_due_and_neither_held_nor_dead_nor_pending(
    operations: Operations, insert: Callable[..., UUID]
) -> None:
    insert(available_at=DUE)
    oldest = insert(lease_owner="'w/1'", available_at="now() - interval '2 minutes'")
    for columns, verdict in STANDINGS.values():
        if verdict not in (V.DISPATCHED, V.DIES, V.PARKS):
            insert(**columns)
    insert(status="'PENDING'", available_at="now() - interval '1 hour'")

    statistics = operations.statistics()

    assert statistics.oldest_recoverable is not None
    assert statistics.oldest_recoverable.id == oldest
    assert timedelta(seconds=119) < statistics.now - statistics.oldest_recoverable.due_since < timedelta(minutes=5)


def test_holders_queue_and_parked_are_told_apart(
    operations: Operations, storage: PostgresSagaStorage, insert: Callable[..., UUID]
) -> None:
    for owner, name in (("w/1", "order"), ("w/1", "parcel"), ("w/2", "order")):
        insert(lease_owner=f"'{owner}'", name=f"'{name}'", available_at=LATER)
    insert(lease_owner="'w/1'", available_at=DUE)
    insert(lease_owner="'queue'", available_at=DUE)
    insert(lease_owner="'queue'", status="'PENDING'", available_at=LATER)
    insert(name="'parcel'", available_at=DUE)
    insert(status="'FAILED'", name="'parcel'", available_at=NEVER)
    storage.pause("parcel", by="me", because="a strike")
    storage.pause("idle", by="you", because="so")

    holdings = operations.holdings()

    held = [(h.owner, h.sagas, h.names, h.expired) for h in holdings.holders]
    assert held == [("w/1", 3, ["order", "parcel"], 1), ("w/2", 1, ["order"], 0)]
    assert [(q.pending, q.sagas, q.overdue) for q in holdings.queue] == [(True, 1, 0), (False, 1, 1)]
    assert [(p.name, p.sagas, p.by, p.because) for p in holdings.parked] == [
        ("idle", 0, "you", "so"),
        ("parcel", 1, "me", "a strike"),
    ]


def test_a_saga_that_is_asked_back_or_paused_is_known_to_be(
    operations: Operations, storage: PostgresSagaStorage, insert: Callable[..., UUID]
) -> None:
    saga_id = insert()
    assert operations.look_up(saga_id)[1].pause is None

    storage.pause("order", by="me", because="a strike")
    storage.ask_back(saga_id, by="you", for_seconds=60)
    record, surroundings = operations.look_up(saga_id)

    assert record == storage.load(saga_id)
    assert surroundings.pause is not None
    assert (surroundings.pause.because, surroundings.asked_back_by) == ("a strike", "you")
    storage.ask_back(saga_id, by="you", for_seconds=-1)
    assert operations.look_up(saga_id)[1].asked_back_by is None


# -- bounds ---------------------------------------------------------------------------------------------------


def test_a_question_that_takes_too_long_is_withdrawn_and_the_next_one_is_answered(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    impatient, patient = Operations(storage, answer_seconds=0.2), Operations(storage)
    with engine.begin() as migration:
        migration.exec_driver_sql("LOCK TABLE saga_executions IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(QuestionTooLong) as told:
            impatient.list_sagas(Listing())

    assert str(told.value) == (
        "the database did not answer within 0.2 seconds, so the question was withdrawn rather than left to burden it: "
        "narrow it by --name, --status or --newer-than, or ask again when it has less to do."
    )
    assert patient.list_sagas(Listing()).records == ()


def test_a_question_can_write_nothing(operations: Operations, engine: sa.Engine, insert: Callable[..., UUID]) -> None:
    saga_id = insert()

    with pytest.raises(Exception, match="read-only transaction"), operations._asking() as question:
        question.all("DELETE FROM saga_executions RETURNING id")

    assert list(rows(engine)) == [saga_id]


def test_a_question_leaves_no_bound_on_its_connection(storage: PostgresSagaStorage, operations: Operations) -> None:
    operations.list_sagas(Listing())

    with storage.connections.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchall() == [{"statement_timeout": "0"}]
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchall() == [{"transaction_read_only": "off"}]


# -- plans ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(server_url: sa.URL, template: str) -> Iterator[sa.Connection]:
    """20,000 sagas that finished within the last two weeks, and 400 unfinished ones, started before them."""
    v7 = "CAST(rpad(lpad(to_hex(CAST(1000 * extract(epoch FROM {at}) AS bigint)), 12, '0'), 32, md5(n::text)) AS uuid)"
    started = "now() - n * interval '1 minute'"
    with database(server_url, f"TEMPLATE {template}") as engine, engine.connect() as connection:
        for status, owner, available_at, finished_at, first, last in (
            ("COMPLETED", "NULL", NEVER, started, 1, 20_000),
            ("RUNNING", "'w/1'", LATER, "NULL", 20_001, 20_100),
            ("FAILED", "NULL", NEVER, "NULL", 20_101, 20_200),
            ("PENDING", "NULL", DUE, "NULL", 20_201, 20_300),
            ("RUNNING", "'queue'", DUE, "NULL", 20_301, 20_400),
        ):
            connection.exec_driver_sql(f"""
                INSERT INTO saga_executions
                    (id, name, status, context, version, lease_owner, available_at, created_at, finished_at)
                SELECT {v7.format(at=started)}, 'order', '{status}', '{{}}', 1, {owner}, {available_at}, {started},
                    {finished_at}
                FROM generate_series({first}, {last}) AS n""")
        connection.exec_driver_sql("ANALYZE saga_executions")
        yield connection


def _plan(connection: sa.Connection, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    nodes, left = [], [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        nodes.append(node)
    return nodes


SCAN: Final = {"limit": 50, "max_attempts": 5, "shown": 10}


@pytest.mark.parametrize(
    ("statement", "parameters", "indexes"),
    [
        (sql.listing([]), {"limit": 51}, {"saga_executions_pkey"}),
        (sql.listing(["after"]), {"limit": 51, "after": "f" * 32}, {"saga_executions_pkey"}),
        (sql.listing(["newer_than_seconds"]), {"limit": 51, "newer_than_seconds": 60}, {"saga_executions_pkey"}),
        (sql.listing(["older_than_seconds"]), {"limit": 51, "older_than_seconds": 6e5}, {"saga_executions_pkey"}),
        (sql.listing(["dead"]), {"limit": 51}, {"saga_executions_due"}),
        (sql.OLDEST_RECOVERABLE, {}, {"saga_executions_due"}),
        (sql.ENDED_LATELY, {}, {"saga_executions_finished"}),
        (sql.HOLDERS, {}, {"saga_executions_due"}),
        (sql.IN_QUEUE, {}, {"saga_executions_queued"}),
        (sql.PARKED, {}, {"saga_executions_due", "saga_executions_unstarted"}),
        (sql.PRUNABLE, {"age": 1e6}, {"saga_executions_finished"}),
    ],
    ids=[
        *("listing", "next page", "newer than", "older than", "dead"),
        *("oldest", "ended lately", "holders", "queue", "parked", "prunable"),
    ],
)
def test_a_question_is_answered_from_the_index_that_is_there_for_it(
    history: sa.Connection, statement: str, parameters: dict[str, Any], indexes: set[str]
) -> None:
    nodes = _plan(history, statement, parameters)

    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    read = [node for node in nodes if node.get("Relation Name") == "saga_executions"]
    assert used == indexes, nodes
    assert "Seq Scan" not in {node["Node Type"] for node in read}, nodes
    if "limit" in parameters:
        assert all(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 200 for node in read), read


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (sql.UNFINISHED, {}),
        (sql.DRY_RUN, SCAN),
        (sql.listing(["statuses", "unfinished"]), {"limit": 51, "statuses": ["FAILED"]}),
        (sql.listing(["leased_by", "unfinished"]), {"limit": 51, "leased_by": "w"}),
    ],
    ids=["statistics", "dry run", "listing by status", "listing by owner"],
)
def test_what_is_asked_about_the_unfinished_reads_none_of_the_finished(
    history: sa.Connection, statement: str, parameters: dict[str, Any]
) -> None:
    nodes = _plan(history, statement, parameters)

    read = [node for node in nodes if node.get("Relation Name") == "saga_executions"]
    assert "Seq Scan" not in {node["Node Type"] for node in read}, nodes
    assert all(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 500 for node in read), read
