"""What the inspector answers, and that a question stays within its bounds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import TypeAdapter

from sagas import errors
from sagas.errors import QueryTimeout
from sagas.inspection import Inspector
from sagas.inspection.models import (
    DryRun,
    Match,
    Page,
    PageFilter,
    PausedName,
    Pauses,
    SagaDetails,
    Statistics,
    Workers,
)
from sagas.progress import Action, SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga, SagaState, completed
from sagas.storage.rules import LEGAL
from sagas.storage.transitions import Ended
from tests.integration.inspection.conftest import Insert

DUE: Final = "now() - interval '1 minute'"
LATER: Final = "now() + interval '1 minute'"
NEVER: Final = "'infinity'"
HELD: Final = {"state": "'running'", "lease_owner": "'w/1'", "lease_token": "gen_random_uuid()"}
DEAD: Final = {"status": "'FAILED'", "state": "'dead'", "available_at": NEVER}


# -- pages ----------------------------------------------------------------------------------------------------


def listed(inspector: Inspector, **wanted: Any) -> list[UUID]:
    return [record.id for record in inspector.page(PageFilter(**wanted)).records]


def test_pages_follow_each_other_without_a_gap(inspector: Inspector, insert: Insert) -> None:
    ids = sorted((insert() for _ in range(5)), reverse=True)
    pages, after = [], None
    while True:
        page = inspector.page(PageFilter(limit=2, after=after))
        pages.append([record.id for record in page.records])
        if not page.more:
            break
        after = pages[-1][-1]

    assert pages == [ids[:2], ids[2:4], ids[4:]]


def test_an_age_is_by_the_database_even_if_the_clock_of_the_id_was_half_an_hour_wrong(
    inspector: Inspector, module_database: sa.Engine, insert: Insert
) -> None:
    saga_id = insert()  # with an id of now
    for minutes in (29, -29):
        with module_database.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE saga_executions SET created_at = now() - %s", (timedelta(minutes=minutes),)
            )
        age = minutes * 60
        assert listed(inspector, newer_than_seconds=age + 60) == [saga_id]
        assert listed(inspector, older_than_seconds=age - 60) == [saga_id]
        assert listed(inspector, newer_than_seconds=age - 60) == []
        assert listed(inspector, older_than_seconds=age + 60) == []


@pytest.mark.parametrize("age", [3.2e9, 1e15])
def test_the_age_of_a_lifetime_lists_everything(inspector: Inspector, insert: Insert, age: float) -> None:
    saga_id = insert()

    assert listed(inspector, newer_than_seconds=age) == [saga_id]
    assert listed(inspector, older_than_seconds=age) == []


def test_what_a_node_or_an_owner_holds_is_listed_and_no_namesakes(inspector: Inspector, insert: Insert) -> None:
    owners = ("w/1.5", "w/2.7", "w2/1.5")
    first, second, other = (insert(**HELD | {"lease_owner": f"'{owner}'"}) for owner in owners)
    insert()

    assert set(listed(inspector, leased_by="w")) == {first, second}
    assert listed(inspector, leased_by="w/1.5") == [first]
    assert listed(inspector, leased_by="w2") == [other]
    assert listed(inspector, leased_by="%") == []


def test_a_page_is_filtered_by_status_state_and_name(inspector: Inspector, insert: Insert) -> None:
    dead, finished = insert(**DEAD), insert(status="'COMPLETED'", state="'finished'", finished_at="now()")
    parcel, queued = insert(name="'parcel'"), insert(state="'queued'")

    assert listed(inspector, states=[SagaState.DEAD]) == [dead]
    assert set(listed(inspector, states=[SagaState.FINISHED, SagaState.QUEUED])) == {finished, queued}
    assert set(listed(inspector, statuses=[SagaStatus.RUNNING])) == {parcel, queued}
    assert set(listed(inspector, statuses=[SagaStatus.FAILED, SagaStatus.COMPLETED])) == {dead, finished}
    assert listed(inspector, name="parcel") == [parcel]


@pytest.mark.parametrize("state", SagaState)
def test_a_state_is_listed_with_every_status_that_it_can_have(
    inspector: Inspector, insert: Insert, state: SagaState
) -> None:
    finished_at = "now()" if state is SagaState.FINISHED else "NULL"
    ids = {status: insert(status=f"'{status}'", state=f"'{state}'", finished_at=finished_at) for status in LEGAL[state]}

    assert set(listed(inspector, states=[state])) == set(ids.values())
    for status, saga_id in ids.items():
        assert listed(inspector, statuses=[status]) == listed(inspector, states=[state], statuses=[status]) == [saga_id]


# -- one saga -------------------------------------------------------------------------------------------------


def test_details_tell_of_a_pause_and_of_a_requested_yield(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    saga_id = insert()
    assert inspector.details(saga_id).pause is None

    emptied_storage.pause("order", actor="me", reason="a strike")
    emptied_storage.request_yield(saga_id, actor="you", for_seconds=60)
    details = inspector.details(saga_id)

    assert details.record == emptied_storage.load(saga_id)
    assert details.pause == emptied_storage.pauses()[0]
    assert details.yield_requested_by == "you"
    emptied_storage.request_yield(saga_id, actor="you", for_seconds=-1)
    assert inspector.details(saga_id).yield_requested_by is None


def test_details_of_a_saga_that_is_not_there_are_an_error(inspector: Inspector) -> None:
    with pytest.raises(errors.SagaNotFound):
        inspector.details(UUID(int=7))


def test_names_are_those_of_unfinished_keyed_and_paused_sagas(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    finished = {"status": "'COMPLETED'", "state": "'finished'", "finished_at": "now()"}
    insert(name="'unfinished'")
    insert(name="'forgotten'", **finished)
    for key in ("1", "2"):
        insert(name="'keyed'", idempotency_key=f"'{key}'", **finished)
    emptied_storage.pause("paused", actor="me", reason="so")

    assert inspector.names() == ["keyed", "paused", "unfinished"]


# -- all sagas ------------------------------------------------------------------------------------------------


def test_what_ended_after_it_was_acquired_twice_was_recovered(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    for saga_id in (insert(version="0"), insert()):
        request = LeaseRequest(owner="w/1", seconds=60)
        acquired = emptied_storage.acquire(saga_id, request, max_recovery_attempts=5)
        assert isinstance(acquired, Acquired)
        ended = Ended(events=(completed("a", Action.ACT),), status=SagaStatus.COMPLETED)
        emptied_storage.apply(acquired.lease, ended)

    (count,) = inspector.statistics().ended

    assert (count.name, count.status, count.sagas, count.recovered) == ("order", SagaStatus.COMPLETED, 2, 1)


def test_only_what_was_written_or_ended_within_the_hour_is_counted_as_such(
    inspector: Inspector, insert: Insert
) -> None:
    before = "now() - interval '61 minutes'"
    for updated_at in ("now() - interval '59 minutes'", "now()", before):
        insert(**DEAD, updated_at=updated_at)
    for updated_at in ("now()", before):
        insert(status="'FAILED'", available_at=LATER, updated_at=updated_at)
    insert(status="'FAILED'", state="'paused'", updated_at=before)
    insert(status="'COMPLETED'", state="'finished'", available_at=NEVER, finished_at=before)

    statistics = inspector.statistics()

    counts = {count.state: (count.sagas, count.lately) for count in statistics.unfinished}
    assert counts == {SagaState.DEAD: (3, 2), SagaState.READY: (2, 1), SagaState.PAUSED: (1, 0)}
    assert statistics.ended == ()
    assert statistics.finished_in_total is None
    assert inspector.statistics(whole=True).finished_in_total == {SagaStatus.COMPLETED: 1}


def test_sagas_are_counted_by_state_and_definition_with_an_example(inspector: Inspector, insert: Insert) -> None:
    declined = insert(definition="'d1'", available_at=LATER, last_error="'declined: no saga named x'")
    insert(definition="'d1'", available_at=LATER, last_error="'pay, act, attempt 1: E: e'")
    late = insert(definition="'d2'", available_at="now() - interval '90 s'")
    insert(definition="'d2'", available_at="now() - interval '30 s'")

    counts = inspector.statistics(late_seconds=60).unfinished

    assert [(c.definition, c.declined, c.sagas, c.due) for c in counts] == [
        ("d1", False, 1, 0),
        ("d1", True, 1, 0),
        ("d2", False, 2, 1),
    ]
    assert (counts[1].example, counts[1].last_error) == (declined, "declined: no saga named x")
    assert counts[2].example == late
    assert inspector.statistics().unfinished[2].due == 2


def test_a_saga_is_queued_since_it_was_queued_however_often_it_was_probed(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, module_database: sa.Engine
) -> None:
    saga = NewSaga(id=UUID(int=1), name="order", context="{}")
    emptied_storage.create_sagas([saga], queued=True)
    waited = 0.0
    for wait in (5.0, 10.0, 20.0):
        with module_database.begin() as connection:  # as if it had waited until the probe
            connection.exec_driver_sql(
                "UPDATE saga_executions SET updated_at = updated_at - %(wait)s, available_at = available_at - %(wait)s",
                {"wait": timedelta(seconds=wait)},
            )
        waited += wait
        assert emptied_storage.claim_sagas(pending=True, limit=9, max_recovery_attempts=5).lost == 1

    statistics = inspector.statistics()

    assert statistics.queued_since is not None
    assert waited <= (statistics.now - statistics.queued_since).total_seconds() < waited + 60


def test_the_oldest_is_the_longest_due_and_neither_queued_nor_paused_nor_dead(
    inspector: Inspector, insert: Insert
) -> None:
    insert(available_at=DUE)
    oldest = insert(**HELD, available_at="now() - interval '2 minutes'")
    pending = insert(status="'PENDING'", available_at=DUE)
    for state in ("queued", "paused"):
        insert(state=f"'{state}'", available_at="now() - interval '1 hour'")
        insert(status="'PENDING'", state=f"'{state}'", available_at="now() - interval '1 hour'")
    insert(**DEAD)

    statistics = inspector.statistics()

    assert statistics.oldest_recoverable is not None
    assert statistics.oldest_pending is not None
    assert (statistics.oldest_recoverable.id, statistics.oldest_pending.id) == (oldest, pending)
    assert timedelta(seconds=119) < statistics.now - statistics.oldest_recoverable.due_since < timedelta(minutes=5)


def test_holders_queues_and_pauses_are_told_apart(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    for owner, name in (("w/1", "order"), ("w/1", "parcel"), ("w/2", "order")):
        insert(**HELD | {"lease_owner": f"'{owner}'"}, name=f"'{name}'", available_at=LATER)
    insert(**HELD, available_at=DUE)
    insert(state="'queued'", available_at=DUE)
    insert(status="'PENDING'", state="'queued'", available_at=LATER)
    insert(name="'parcel'", available_at=DUE)
    insert(**DEAD, name="'parcel'")
    insert(name="'resumed'", state="'paused'")
    emptied_storage.pause("parcel", actor="me", reason="a strike")
    emptied_storage.pause("idle", actor="you", reason="so")

    workers = inspector.workers()

    held = [(h.owner, h.sagas, h.names, h.expired) for h in workers.workers]
    assert held == [("w/1", 3, ["order", "parcel"], 1), ("w/2", 1, ["order"], 0)]
    assert [(q.pending, q.sagas, q.overdue) for q in workers.queue] == [(True, 1, 0), (False, 1, 1)]
    assert [(p.name, p.paused, p.actor, p.reason) for p in workers.paused] == [
        ("idle", 0, "you", "so"),
        ("parcel", 1, "me", "a strike"),
        ("resumed", 1, None, None),
    ]
    assert workers.paused[2] == PausedName(name="resumed", paused=1)


def test_what_is_prunable_ended_longer_ago(inspector: Inspector, insert: Insert) -> None:
    for age in ("1 hour", "3 hours", "5 hours"):
        insert(status="'COMPLETED'", state="'finished'", finished_at=f"now() - interval '{age}'")

    assert [inspector.prunable(hours * 3600) for hours in (0, 2, 4, 6)] == [3, 2, 1, 0]


# -- bounds ---------------------------------------------------------------------------------------------------


def test_a_question_that_takes_too_long_is_cancelled_and_the_next_one_is_answered(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, module_database: sa.Engine
) -> None:
    impatient = Inspector(emptied_storage, answer_seconds=0.2)
    with module_database.begin() as migration:
        migration.exec_driver_sql("LOCK TABLE saga_executions IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(QueryTimeout) as told:
            impatient.page(PageFilter())

    assert str(told.value) == (
        "the database did not answer within 0.2 seconds, so the query was cancelled: narrow the list by a name, a "
        "status or an age, or ask again when the database has less to do."
    )
    assert inspector.page(PageFilter()).records == ()


def test_the_former_name_of_the_error_is_deprecated() -> None:
    with pytest.deprecated_call():
        assert errors.QuestionTooLong is QueryTimeout


def test_a_question_can_write_nothing(inspector: Inspector, module_database: sa.Engine, insert: Insert) -> None:
    saga_id = insert()

    with pytest.raises(Exception, match="read-only transaction"), inspector._asking() as question:
        question.run("DELETE FROM saga_executions RETURNING id", {})

    assert listed(inspector) == [saga_id]


def test_a_question_reads_one_snapshot(inspector: Inspector, insert: Insert) -> None:
    with inspector._asking() as question:
        assert question.unfinished() == ()
        insert()
        assert question.unfinished() == ()
    assert len(inspector.statistics().unfinished) == 1


def test_a_question_leaves_no_bound_on_its_connection(
    inspector: Inspector, emptied_storage: PostgresSagaStorage
) -> None:
    inspector.page(PageFilter())

    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchall() == [{"statement_timeout": "0"}]
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchall() == [{"transaction_read_only": "off"}]


# -- JSON -----------------------------------------------------------------------------------------------------


def test_every_answer_is_json_and_back(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    saga_id = insert(**HELD, available_at=LATER)
    insert(state="'queued'"), insert(**DEAD), insert(name="'parcel'")
    emptied_storage.pause("parcel", actor="me", reason="so")
    emptied_storage.claim_sagas(pending=True, limit=1, max_recovery_attempts=5)
    answers: dict[Any, Any] = {
        Page: inspector.page(PageFilter()),
        SagaDetails: inspector.details(saga_id),
        list[Match]: inspector.matching(key=None, first=saga_id, last=saga_id, limit=1),
        Statistics: inspector.statistics(whole=True),
        Workers: inspector.workers(),
        Pauses: inspector.pauses(),
        DryRun: inspector.dry_run(limit=1, max_recovery_attempts=5, shown=1),
    }

    for kind, answer in answers.items():
        adapter = TypeAdapter(kind)
        assert adapter.validate_json(adapter.dump_json(answer)) == answer
