"""The checks of scans and of unfinished sagas, on rows in a real database."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sagas.storage.XXX import PAUSED, QUEUE

from sagas import PostgresSagaStorage
from sagas.definition import AnySaga
from sagas.doctor import Installation, inspector
from sagas.doctor.unfinished import DEFINITIONS, SCANS, STUCK
from sagas.ids import new_saga_id
from sagas.storage.records import NewSaga
from tests.sagas.doctor.conftest import findings_of, found_by
from tests.sagas.samples import Stage

Installed = Callable[..., Installation]

SCANNED = "INSERT INTO saga_scans (worker, at) VALUES (:worker, clock_timestamp() - make_interval(secs => :ago))"
STORED = """
INSERT INTO saga_executions (id, name, context, status, lease_owner, available_at, last_error)
SELECT gen_random_uuid(), :name, '{}', :status, :owner, now() - make_interval(secs => :ago), :error
FROM generate_series(1, :count)"""
DEAD = STORED.replace("now() - make_interval(secs => :ago)", "'infinity'")


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def start(storage: PostgresSagaStorage) -> Callable[..., None]:
    """Stores so many sagas that were started with a class."""

    def start(saga: AnySaga, count: int = 1, owner: str | None = None) -> None:
        new = [
            NewSaga(id=new_saga_id(), name=saga.name, context="{}", definition_version=saga.definition_version)
            for _ in range(count)
        ]
        storage.create_sagas(new, owner=owner, for_seconds=60)

    return start


@pytest.fixture
def store(sql: Callable[..., Any]) -> Callable[..., None]:
    """Stores sagas that have been due for so many seconds, or never are."""

    def insert(
        status: str, *, ago: float | None, owner: str | None = None, count: int = 1, name: str = "trip", error: str = ""
    ) -> None:
        parameters = {"status": status, "owner": owner, "count": count, "name": name, "error": error or None}
        if ago is None:
            sql(DEAD, **parameters)
        else:
            sql(STORED, ago=ago, **parameters)

    return insert


# -- scans


def test_a_database_that_was_never_scanned_is_reported(installation: Installed) -> None:
    (finding,) = findings_of(SCANS, installation())
    assert (finding.id, finding.what) == ("scan-late", "no scan ever ran on this database.")


def test_only_the_latest_scan_counts_and_is_reported_when_it_is_late(installation: Installed, sql: Any) -> None:
    here = installation(scan_interval_seconds=5)
    sql(SCANNED, worker="eu-1", ago=1000)
    (finding,) = findings_of(SCANS, here)
    assert finding.what == "the last scan ran 16 min ago, on eu-1; one is due every 5 s."
    # An installation that scans every ten minutes is not late.
    assert not findings_of(SCANS, installation(scan_interval_seconds=600))
    sql(SCANNED, worker="eu-2", ago=1)
    (fact,) = SCANS.run(here)
    assert isinstance(fact, str)
    assert fact.endswith("on eu-2")


# -- definitions


def test_sagas_that_fit_are_counted(stage: Stage, start: Callable[..., None], installation: Installed) -> None:
    saga = stage.saga("hotel", "flight")
    start(saga, 2)
    start(saga, 3, owner="worker-1")
    start(saga, 4, owner=QUEUE)
    assert [*DEFINITIONS.run(installation(sagas=[saga]))] == ["9 unfinished, 1 definition"]


def test_an_unknown_name_is_reported(stage: Stage, start: Callable[..., None], installation: Installed) -> None:
    start(stage.saga("hotel", name="old-trip"), 3)
    (finding,) = findings_of(DEFINITIONS, installation(sagas=[stage.saga("hotel")]))
    assert finding.id == "definition-changed"
    assert finding.what.startswith("3 sagas named 'old-trip': no saga named 'old-trip' is known here")
    assert not found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel", aliases=["old-trip"])]))


def test_a_version_that_no_class_continues_is_reported(
    stage: Stage, start: Callable[..., None], installation: Installed
) -> None:
    start(stage.saga("hotel"))
    (finding,) = findings_of(DEFINITIONS, installation(sagas=[stage.saga("hotel", version=2)]))
    assert finding.what.startswith("1 saga named 'trip': no class here goes on with version 1")
    assert not found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel", version=2, continues=[1])]))


def test_changed_steps_are_reported_once_for_all_sagas_that_they_concern(
    stage: Stage, start: Callable[..., None], installation: Installed
) -> None:
    start(stage.saga("hotel", "flight"), 2)
    start(stage.saga("hotel", "car"))
    start(stage.saga("flight"), 4)
    (finding,) = findings_of(DEFINITIONS, installation(sagas=[stage.saga("flight", "car")]))
    assert finding.what.startswith("3 sagas named 'trip': step 1 of the 2 that this saga was started with")
    assert re.search(r"`sagas show [0-9a-f-]{36}`", finding.cure)


def test_declined_sagas_are_reported_with_the_reason(
    stage: Stage, start: Callable[..., None], installation: Installed, sql: Any
) -> None:
    saga = stage.saga("hotel")
    start(saga, 2)
    start(saga, owner="worker-1")  # which has the code
    sql("UPDATE saga_executions SET last_error = 'declined: the context does not validate'")
    (finding,) = findings_of(DEFINITIONS, installation(sagas=[saga]))
    assert finding.id == "sagas-declined"
    assert finding.what == "2 sagas named 'trip': declined: the context does not validate"


# -- stuck


def test_sagas_that_make_progress_are_not_reported(store: Callable[..., None], installation: Installed) -> None:
    store("RUNNING", owner="worker-1", ago=20)
    store("FAILED", ago=-200)
    store("PENDING", ago=-3)
    store("PENDING", owner=QUEUE, ago=-60)
    store("RUNNING", owner=QUEUE, ago=1000)
    store("COMPLETED", ago=None)
    store("FAILED", owner=PAUSED, ago=None)
    assert not findings_of(STUCK, installation())


def test_dead_sagas_are_reported_by_name_with_an_example(store: Callable[..., None], installation: Installed) -> None:
    store("FAILED", ago=None, count=3, error="bank is gone")
    store("FAILED", ago=None, name="visit; rm")
    trip, visit = findings_of(STUCK, installation())
    assert (trip.id, visit.id) == ("sagas-dead", "sagas-dead")
    assert re.fullmatch(r"3 sagas named 'trip' are dead, such as [0-9a-f-]{36}: bank is gone", trip.what)
    assert re.fullmatch(r"1 saga named 'visit; rm' is dead, such as [0-9a-f-]{36}: no error was kept", visit.what)
    assert "`sagas retry --dead --name trip`" in trip.cure
    assert "`sagas retry --dead --name 'visit; rm'`" in visit.cure


def test_due_sagas_and_expired_leases_that_no_worker_acquires_are_reported(
    store: Callable[..., None], installation: Installed
) -> None:
    for status, owner in [("PENDING", None), ("FAILED", None), ("COMPENSATING", None), ("RUNNING", "worker-1/17.4")]:
        store(status, owner=owner, ago=1000, name=status.lower())
    (finding,) = findings_of(STUCK, installation())
    assert finding.id == "sagas-overdue"
    assert re.fullmatch(r"4 sagas are due, the first since 16 min, such as [0-9a-f-]{36}\.", finding.what)
    assert not findings_of(STUCK, installation(scan_interval_seconds=600))


def test_a_crowd_is_counted_as_at_least_so_many(
    store: Callable[..., None], installation: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "LIMIT", 20)
    monkeypatch.setattr("sagas.doctor.unfinished.LIMIT", 20)
    # Dead and paused sagas share an end of an index.
    store("FAILED", owner=PAUSED, ago=None, count=100)
    store("FAILED", ago=None, count=100)
    (finding,) = findings_of(STUCK, installation())
    assert re.match(r"at least \d\d sagas named 'trip' are dead", finding.what)


def test_only_partial_indexes_are_read(database_url: str) -> None:
    """However many sagas are finished, the question about the unfinished reads none of them."""
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context, status, available_at, finished_at) SELECT "
            "gen_random_uuid(), 'trip', '{}', 'COMPLETED', 'infinity', now() FROM generate_series(1, 20000)"
        )
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context, status, lease_owner, available_at) SELECT "
            "gen_random_uuid(), 'trip', '{}', (ARRAY['PENDING', 'RUNNING', 'FAILED'])[mod(n, 3) + 1], "
            "(ARRAY[NULL, 'queue', 'worker-1'])[mod(n / 3, 3) + 1], "
            "CASE mod(n, 2) WHEN 0 THEN 'infinity' ELSE now() - interval '1 day' END FROM generate_series(1, 900) n"
        )
        connection.exec_driver_sql("VACUUM ANALYZE saga_executions")
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {inspector.UNFINISHED}"
        explained = connection.exec_driver_sql(statement, {"limit": 100, "seconds": 60.0}).scalar_one()
    engine.dispose()

    read, left = set(), [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        if "Scan" in node["Node Type"] and node["Node Type"] not in ("Subquery Scan", "CTE Scan"):
            read.add(node.get("Index Name", node["Node Type"]))
    read.discard("Bitmap Heap Scan")  # of what the index below it found
    assert read
    assert read <= {"saga_executions_due", "saga_executions_unstarted", "saga_executions_queued"}
