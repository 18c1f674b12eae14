"""The clock that a test moves by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sagas import MemorySagaStorage
from sagas.ids import new_saga_id
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga
from sagas.testing.clock import FakeClock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(datetime(2031, 5, 1, tzinfo=UTC))

    assert clock() == clock() == datetime(2031, 5, 1, tzinfo=UTC)
    clock.advance(0.5)
    clock.advance(60)
    assert clock() == datetime(2031, 5, 1, 0, 1, 0, 500_000, tzinfo=UTC)


def test_storage_takes_its_time_from_the_clock() -> None:
    clock = FakeClock()
    storage = MemorySagaStorage(clock=clock)
    saga = NewSaga(id=new_saga_id(), name="trip", context="{}")
    storage.create_sagas([saga], lease=LeaseRequest(owner="a-worker-that-dies", seconds=30))

    clock.advance(29.9)
    assert storage.get_sagas_for_recovery(limit=1) == []
    clock.advance(0.1)
    assert storage.get_sagas_for_recovery(limit=1) == [saga.id]
    acquired = storage.acquire(saga.id, LeaseRequest(owner="another", seconds=30), max_recovery_attempts=5)
    assert isinstance(acquired, Acquired)
    assert acquired.record.available_at == clock() + timedelta(seconds=30)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_time_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="time does not go back; give 0 or more"):
        FakeClock().advance(seconds)


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="give it a time zone"):
        FakeClock(datetime(2031, 5, 1))
