"""The check of schedules, on rows in a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sagas import Schedule
from sagas.doctor import Installation
from sagas.doctor.schedules import SCHEDULES
from tests.integration.doctor.conftest import findings_of, found_by
from tests.samples import Stage, Trip

NOTED = "INSERT INTO saga_schedules VALUES (:name, date_trunc('minute', now()) - make_interval(secs => :ago))"


@pytest.fixture
def scheduled(installation: Callable[..., Installation]) -> Installation:
    """An installation whose code has a schedule for every minute."""
    made = installation()
    made.registry.add_schedule(Schedule(Stage().saga("hotel"), "* * * * *", context=lambda tick: Trip()))
    return made


def test_a_schedule_whose_tick_was_not_dealt_with_is_late(scheduled: Installation, sql: Callable[..., Any]) -> None:
    sql(NOTED, name="trip", ago=600)

    late = found_by(SCHEDULES, scheduled)["schedule-late"]

    assert late.what.startswith("the schedule 'trip' was due at ")
    assert late.what.endswith("(9 min ago).")


def test_a_schedule_that_keeps_its_time_is_no_finding(scheduled: Installation, sql: Callable[..., Any]) -> None:
    sql(NOTED, name="trip", ago=0)

    assert findings_of(SCHEDULES, scheduled) == []
    assert list(SCHEDULES.run(scheduled)) == ["1 schedule"]


def test_a_schedule_that_no_scan_knows_is_a_warning(scheduled: Installation) -> None:
    unknown = found_by(SCHEDULES, scheduled)["schedule-unknown"]

    assert unknown.what == "no scan has seen the schedule 'trip' yet."
