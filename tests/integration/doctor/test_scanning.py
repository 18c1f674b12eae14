"""What is told of the last scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagas.doctor import Installation
from sagas.doctor.scanning import SCANS
from tests.integration.doctor.conftest import found_by

SCANNED = "INSERT INTO saga_scans (worker, at) VALUES (:worker, clock_timestamp() - make_interval(secs => :ago))"


def test_a_database_that_was_never_scanned_is_told(installation: Callable[..., Installation]) -> None:
    assert set(found_by(SCANS, installation())) == {"scan-never"}


def test_only_the_latest_scan_counts_and_is_told_with_its_age_when_it_is_old(
    installation: Callable[..., Installation], sql: Callable[..., Any]
) -> None:
    here = installation(scan_interval_seconds=5)
    sql(SCANNED, worker="eu-1", ago=1000)
    assert found_by(SCANS, here)["scan-late"].what == ("the last scan ran 16 min ago, on eu-1; one is due every 5 s.")
    # An installation that scans every ten minutes has nothing to worry about.
    assert not found_by(SCANS, installation(scan_interval_seconds=600))
    sql(SCANNED, worker="eu-2", ago=1)
    (fact,) = SCANS.run(here)
    assert isinstance(fact, str)
    assert fact.endswith("on eu-2")
