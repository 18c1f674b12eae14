"""The dry run of a scan foresees what the scan right after it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas.inspection import Inspector
from sagas.inspection.models import DryRun, ScanVerdict
from sagas.storage import PostgresSagaStorage
from sagas.storage.lost_messages import PROBES
from tests.integration.inspection.conftest import Insert

V: Final = ScanVerdict
DUE: Final = "now() - interval '1 minute'"
LATER: Final = "now() + interval '1 minute'"
NEVER: Final = "'infinity'"
PENDING: Final = {"status": "'PENDING'", "version": "0"}
FAILED: Final = {"status": "'FAILED'"}
QUEUED: Final = {"state": "'queued'"}
HELD: Final = {"state": "'running'", "lease_owner": "'w/1.1'", "lease_token": "gen_random_uuid()"}
DEAD: Final = {"status": "'FAILED'", "state": "'dead'", "available_at": NEVER}
#: Of a saga whose name is paused.
PAUSED: Final = {"name": "'parcel'"}

#: Each way in which an unfinished saga can stand, as its row has it, and what a scan does with it. Of the queue of
#: sagas that begun a message was delivered a moment ago, of the other one none ever was.
STANDINGS: Final[dict[str, tuple[dict[str, str], ScanVerdict]]] = {
    "never ran, due": (PENDING | {"available_at": DUE}, V.DISPATCHED),
    "never ran, just freed": (PENDING | {"available_at": LATER}, V.SLEEPING),
    "never ran, in the queue": (PENDING | QUEUED | {"available_at": "now() + interval '4 s'"}, V.QUEUED),
    "never ran, long in the queue": (PENDING | QUEUED | {"available_at": DUE}, V.OVERDUE),
    "never ran, name paused": (PENDING | PAUSED | {"available_at": DUE}, V.PAUSES),
    "never ran, paused": (PENDING | PAUSED | {"state": "'paused'", "available_at": DUE}, V.PAUSED),
    "due": ({"available_at": DUE}, V.DISPATCHED),
    "due, turning back": ({"status": "'COMPENSATING'", "available_at": DUE}, V.DISPATCHED),
    "due, its attempts spent": (FAILED | {"recovery_attempts": "5", "available_at": DUE}, V.DIES),
    "due, one attempt left": (FAILED | {"recovery_attempts": "4", "available_at": DUE}, V.DISPATCHED),
    "waited, due": ({"state": "'waiting'", "available_at": DUE}, V.DISPATCHED),
    "waits": ({"state": "'waiting'", "available_at": LATER}, V.WAITING),
    "waits for ever": ({"state": "'waiting'", "available_at": NEVER}, V.WAITING),
    "waited after it was declined": (
        {"state": "'waiting'", "available_at": LATER, "last_error": "'declined: no saga named x'"},
        V.WAITING,
    ),
    "held": (HELD | {"available_at": LATER}, V.HELD),
    "lease ran out": (HELD | {"available_at": DUE, "recovery_attempts": "4"}, V.DISPATCHED),
    "lease ran out once too often": (HELD | {"available_at": DUE, "recovery_attempts": "4", "version": "2"}, V.DIES),
    "lease of a shared owner ran out": (
        HELD | {"lease_owner": "'w/1.1/shared'", "available_at": DUE, "recovery_attempts": "4", "version": "2"},
        V.DISPATCHED,
    ),
    "lease ran out, name paused": (HELD | PAUSED | {"available_at": DUE}, V.PAUSES),
    "lease ran out once too often, name paused": (
        HELD | PAUSED | {"available_at": DUE, "recovery_attempts": "4", "version": "2"},
        V.DIES,
    ),
    "held, name paused": (HELD | PAUSED | {"available_at": LATER}, V.HELD),
    "backing off": (FAILED | {"available_at": LATER}, V.BACKING_OFF),
    "sleeping until a retry": ({"available_at": LATER, "last_error": "'pay, act, attempt 1: E: e'"}, V.SLEEPING),
    "declined": ({"available_at": LATER, "last_error": "'declined: no saga named x'"}, V.DECLINED),
    "in the queue": (QUEUED | {"available_at": LATER}, V.QUEUED),
    "in the queue, asked about, and others are delivered": (QUEUED | {"available_at": "now()"}, V.QUEUED),
    "in the queue, and a later one is delivered": (QUEUED | {"available_at": DUE}, V.OVERDUE),
    "paused": (PAUSED | {"state": "'paused'", "available_at": DUE}, V.PAUSED),
    "paused after a failure": (FAILED | PAUSED | {"state": "'paused'", "available_at": LATER}, V.PAUSED),
    "dead": (DEAD | {"recovery_attempts": "5"}, V.DEAD),
    "dead, name paused": (DEAD | PAUSED, V.DEAD),
}


def dry_run(inspector: Inspector, limit: int = 100) -> DryRun:
    return inspector.dry_run(limit=limit, max_recovery_attempts=5, shown=1000)


def foreseen(run: DryRun) -> dict[ScanVerdict, list[UUID]]:
    return {verdicts.verdict: [judged.id for judged in verdicts.first] for verdicts in run.verdicts}


def scan(storage: PostgresSagaStorage, limit: int = 100) -> tuple[set[UUID], set[UUID]]:
    """Claim as a scan does; return what messages are sent for and what died."""
    results = [storage.claim_sagas(pending=pending, limit=limit, max_recovery_attempts=5) for pending in (True, False)]
    return {claim.saga_id for result in results for claim in result.claims}, {i for r in results for i in r.died}


def rows(engine: sa.Engine) -> Mapping[UUID, Any]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT id, status, state, lease_owner, available_at::text, recovery_attempts, version FROM saga_executions"
        )
        return {row.id: row for row in found}


def test_a_dry_run_foresees_the_scan_for_sagas_in_every_state(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, module_database: sa.Engine, insert: Insert
) -> None:
    ids = {standing: insert(**columns) for standing, (columns, _) in STANDINGS.items()}
    insert(status="'COMPLETED'", state="'finished'", available_at=NEVER, finished_at="now()")
    with module_database.begin() as connection:
        # As a pause does, but for what it pauses at once: a scan then meets them.
        connection.exec_driver_sql("INSERT INTO saga_pauses (name, by, because) VALUES ('parcel', 'me', 'why')")
        connection.exec_driver_sql("INSERT INTO saga_deliveries VALUES (false, now() - interval '30 s', now())")
    before = rows(module_database)

    told = foreseen(dry_run(inspector))
    sent, died = scan(emptied_storage)

    by_id = {saga_id: verdict for verdict, sagas in told.items() for saga_id in sagas}
    assert {standing: by_id[ids[standing]] for standing in STANDINGS} == {s: v for s, (_, v) in STANDINGS.items()}
    assert set(by_id) == set(ids.values()), "the finished are passed over"
    after = rows(module_database)
    assert (sent, died) == ({*told[V.DISPATCHED], *told[V.OVERDUE]}, set(told[V.DIES]))
    paused = {i for i in after if after[i].state == "paused" != before[i].state}
    assert paused == set(told[V.PAUSES])
    assert {i for i in after if after[i] != before[i]} == sent | died | paused


@pytest.mark.parametrize("pending", [True, False])
def test_a_dry_run_foresees_which_messages_are_lost_and_which_ones_are_probed(
    inspector: Inspector,
    emptied_storage: PostgresSagaStorage,
    module_database: sa.Engine,
    insert: Insert,
    pending: bool,
) -> None:
    kind = PENDING if pending else {}
    for age in range(25):
        insert(**kind | QUEUED, available_at=f"now() - interval '{age} min'")
    with module_database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO saga_deliveries VALUES (%s, now() - interval '20.5 min', now() - interval '19 min')",
            (pending,),
        )

    told = foreseen(dry_run(inspector))
    sent, _ = scan(emptied_storage)

    assert len(sent) == 4 + PROBES, "those from before the delivery, and the probes"
    assert set(told[V.OVERDUE]) == sent


def test_a_dry_run_picks_the_longest_due_up_to_what_the_queue_leaves_of_the_limit(
    inspector: Inspector, emptied_storage: PostgresSagaStorage, insert: Insert
) -> None:
    insert(**QUEUED, available_at=LATER)
    waiting = [insert(available_at=f"now() - interval '{age} s'") for age in (30, 10, 20)]
    pending = [insert(**PENDING, available_at=f"now() - interval '{age} s'") for age in (5, 6, 7, 8)]

    told = foreseen(dry_run(inspector, limit=3))
    sent, _ = scan(emptied_storage, limit=3)

    assert told[V.DISPATCHED] == [waiting[0], waiting[2], pending[3], pending[2], pending[1]]
    assert set(told[V.BEYOND_LIMIT]) == {pending[0], waiting[1]}
    assert sent == set(told[V.DISPATCHED])


def test_a_dry_run_counts_all_shows_the_first_and_changes_nothing(
    inspector: Inspector, module_database: sa.Engine, insert: Insert
) -> None:
    ids = [insert(available_at=f"now() - interval '{10 - age} s'") for age in range(5)]
    before = rows(module_database)

    (verdicts,) = inspector.dry_run(limit=100, max_recovery_attempts=5, shown=2).verdicts

    assert (verdicts.verdict, verdicts.sagas) == (V.DISPATCHED, 5)
    assert [judged.id for judged in verdicts.first] == ids[:2]
    assert rows(module_database) == before
