"""The checks of scans and of unfinished sagas, on rows in a real database."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from sagas import PostgresSagaStorage
from sagas.definition import AnySaga
from sagas.doctor import Installation
from sagas.doctor.unfinished import DEFINITIONS, SCANS, STUCK
from sagas.ids import new_saga_id
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import Definition, NewSaga
from tests.integration.doctor.conftest import findings_of, found_by
from tests.samples import Stage

Installed = Callable[..., Installation]

LEASE = LeaseRequest(owner="worker-1", seconds=60)
SCANNED = "INSERT INTO saga_scans (worker, at) VALUES (:worker, clock_timestamp() - make_interval(secs => :ago))"
STORED = """
INSERT INTO saga_executions (id, name, context, status, state, lease_owner, available_at, last_error)
SELECT gen_random_uuid(), :name, '{}', :status, :state, :owner, now() - make_interval(secs => :ago), :error
FROM generate_series(1, :count)"""
NEVER = STORED.replace("now() - make_interval(secs => :ago)", "'infinity'")


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def start(storage: PostgresSagaStorage) -> Callable[..., None]:
    """Stores so many sagas that were started with a class."""

    def start(saga: AnySaga, count: int = 1, **how: Any) -> None:
        graph = saga.graph
        storage.register_definition(Definition(hash=graph.hash, name=graph.saga, graph=graph.text))
        new = [NewSaga(id=new_saga_id(), name=saga.name, context="{}", definition=graph.hash) for _ in range(count)]
        storage.create_sagas(new, **how)

    return start


@pytest.fixture
def store(sql: Callable[..., Any]) -> Callable[..., None]:
    """Stores sagas that have been due for so many seconds, or never are."""

    def insert(
        status: str, state: str, *, ago: float | None, count: int = 1, name: str = "trip", error: str = ""
    ) -> None:
        owner = "worker-1/17.4" if state == "running" else None
        values = {"status": status, "state": state, "owner": owner, "count": count, "name": name}
        if ago is None:
            sql(NEVER, **values, error=error or None)
        else:
            sql(STORED, **values, error=error or None, ago=ago)

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
    start(saga, 3, lease=LEASE)
    start(saga, 4, queued=True)
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
    assert finding.what.startswith("3 sagas named 'trip': step 'hotel', which this saga was started with,")
    assert re.search(r"`sagas show [0-9a-f-]{36}`", finding.cure)


def test_declined_sagas_are_reported_with_the_reason(
    stage: Stage, start: Callable[..., None], installation: Installed, sql: Any
) -> None:
    saga = stage.saga("hotel")
    start(saga, 2)
    start(saga, lease=LEASE)  # which has the code
    sql("UPDATE saga_executions SET last_error = 'declined: the context does not validate'")
    (finding,) = findings_of(DEFINITIONS, installation(sagas=[saga]))
    assert finding.id == "sagas-declined"
    assert finding.what == "2 sagas named 'trip': declined: the context does not validate"


# -- stuck


def test_sagas_that_make_progress_are_not_reported(store: Callable[..., None], installation: Installed) -> None:
    store("RUNNING", "running", ago=20)
    store("FAILED", "ready", ago=-200)
    store("PENDING", "ready", ago=-3)
    store("PENDING", "queued", ago=-60)
    store("RUNNING", "queued", ago=1000)
    store("RUNNING", "waiting", ago=-86_400)
    store("RUNNING", "waiting", ago=None)
    store("COMPLETED", "finished", ago=None)
    store("FAILED", "paused", ago=1000)
    assert not findings_of(STUCK, installation())


def test_dead_sagas_are_reported_by_name_with_an_example(store: Callable[..., None], installation: Installed) -> None:
    store("FAILED", "dead", ago=None, count=3, error="bank is gone")
    store("FAILED", "dead", ago=None, name="visit; rm")
    trip, visit = findings_of(STUCK, installation())
    assert (trip.id, visit.id) == ("sagas-dead", "sagas-dead")
    assert re.fullmatch(r"3 sagas named 'trip' are dead, such as [0-9a-f-]{36}: bank is gone", trip.what)
    assert re.fullmatch(r"1 saga named 'visit; rm' is dead, such as [0-9a-f-]{36}: no error was kept", visit.what)
    assert "`sagas retry --dead --name trip`" in trip.cure
    assert "`sagas retry --dead --name 'visit; rm'`" in visit.cure


def test_due_sagas_and_expired_leases_that_no_worker_acquires_are_reported(
    store: Callable[..., None], installation: Installed
) -> None:
    for status, state in [
        ("PENDING", "ready"),
        ("FAILED", "ready"),
        ("COMPENSATING", "waiting"),
        ("RUNNING", "running"),
    ]:
        store(status, state, ago=1000, name=status.lower())
    (finding,) = findings_of(STUCK, installation())
    assert finding.id == "sagas-overdue"
    assert re.fullmatch(r"4 sagas are due, the first since 16 min, such as [0-9a-f-]{36}\.", finding.what)
    assert not findings_of(STUCK, installation(scan_interval_seconds=600))
