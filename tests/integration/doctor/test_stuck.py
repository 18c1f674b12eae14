"""What is told of sagas that wait for somebody."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from sagas.doctor import Installation
from sagas.doctor.stuck import PAUSES, STUCK
from sagas.storage.XXX import PAUSED
from tests.integration.doctor.conftest import found_by

Installed = Callable[..., Installation]

INSERT = """
INSERT INTO saga_executions (id, name, context, status, lease_owner, available_at, last_error)
SELECT gen_random_uuid(), :name, '{}', :status, :owner, CAST(:available AS timestamptz), :error
FROM generate_series(1, :count)"""


@pytest.fixture
def store(sql: Callable[..., Any]) -> Callable[..., None]:
    """Stores sagas as given."""

    def insert(
        status: str, *, owner: str | None = None, available: str, count: int = 1, name: str = "trip", error: str = ""
    ) -> None:
        parameters = {"status": status, "owner": owner, "count": count, "name": name, "error": error or None}
        # A number is of seconds ago, so that it does not go by this machine's clock.
        statement = INSERT
        if re.fullmatch(r"-?\d+", available):
            statement = INSERT.replace("CAST(:available AS timestamptz)", f"now() - make_interval(secs => {available})")
        else:
            parameters["available"] = available
        sql(statement, **parameters)

    return insert


def test_what_goes_its_way_is_not_told(store: Callable[..., None], installation: Installed) -> None:
    store("RUNNING", owner="worker-1", available="-20")
    store("FAILED", available="-200")
    store("PENDING", available="3")
    store("PENDING", owner="queue", available="60")
    store("RUNNING", owner="queue", available="60")
    store("COMPLETED", available="infinity")
    store("FAILED", owner=PAUSED, available="infinity")
    assert not found_by(STUCK, installation())


def test_the_dead_are_told_by_name_with_an_example_and_its_reason(
    store: Callable[..., None], installation: Installed
) -> None:
    store("FAILED", available="infinity", count=3, error="bank is gone")
    store("FAILED", available="infinity", name="visit; rm")
    told = [each for each in STUCK.run(installation()) if not isinstance(each, str)]
    assert [each.id for each in told] == ["sagas-dead"] * 2
    assert re.fullmatch(r"3 sagas named 'trip' are dead, such as [0-9a-f-]{36}: bank is gone", told[0].what)
    assert re.fullmatch(r"1 saga named 'visit; rm' is dead, such as [0-9a-f-]{36}: no error was kept", told[1].what)
    assert "`sagas retry --dead --name trip`" in told[0].cure
    assert "`sagas retry --dead --name 'visit; rm'`" in told[1].cure


def test_leases_that_ran_out_are_told_with_a_holder(store: Callable[..., None], installation: Installed) -> None:
    store("RUNNING", owner="worker-1/17.4", available="1000", count=2)
    (finding,) = found_by(STUCK, installation()).values()
    assert finding.id == "leases-expired"
    assert finding.what == "the leases of 2 sagas ran out, the first 16 min ago (of worker-1/17.4)."


@pytest.mark.parametrize("status", ["PENDING", "FAILED", "COMPENSATING"])
def test_sagas_that_are_due_and_that_nobody_sends_are_told(
    store: Callable[..., None], installation: Installed, status: str
) -> None:
    store(status, available="1000")
    (finding,) = found_by(STUCK, installation()).values()
    assert finding.id == "sagas-overdue"
    assert finding.what == "1 saga is due, the first since 16 min."
    assert not found_by(STUCK, installation(scan_interval_seconds=600))


def test_sagas_that_wait_long_in_a_queue_are_told_with_its_name(
    store: Callable[..., None], installation: Installed
) -> None:
    store("PENDING", owner="queue", available="1000", count=2)
    store("FAILED", owner="queue", available="500")
    told = [each for each in STUCK.run(installation()) if not isinstance(each, str)]
    assert [each.id for each in told] == ["queue-slow"] * 2
    assert {each.what for each in told} == {
        "2 sagas wait in sagas.run, the first for 16 min.",
        "1 saga waits in sagas.recover, the first for 8 min.",
    }


def test_a_crowd_is_told_as_at_least_so_many(store: Callable[..., None], installation: Installed) -> None:
    store("FAILED", available="infinity", count=10_050)
    (finding,) = found_by(STUCK, installation()).values()
    assert finding.what.startswith("at least 10000 sagas named 'trip' are dead")


def test_a_name_that_was_paused_long_ago_is_told_with_who_and_why(
    installation: Installed, sql: Callable[..., Any]
) -> None:
    pause = "INSERT INTO saga_pauses VALUES (:name, 'ada@host', :why, now() - make_interval(hours => :hours))"
    sql(pause, name="trip", why="the bank is away", hours=50)
    sql(pause, name="visit", why="a moment", hours=20)
    (finding,) = found_by(PAUSES, installation()).values()
    assert finding.id == "name-paused"
    assert finding.what == "'trip' was paused 2 d ago by ada@host: the bank is away"
    assert "`sagas resume trip`" in finding.cure
