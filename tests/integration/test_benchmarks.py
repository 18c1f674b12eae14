"""The benchmarks that are called by others measure what they say, on few sagas."""

from __future__ import annotations

import pytest

from benchmarks import prune
from sagas.storage import PostgresSagaStorage
from sagas.storage.records import NewSaga
from sagas.storage.saga_filter import SagaFilter
from tests.calls import new_saga


def test_the_prune_is_measured_with_live_writes_before_and_during_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BASELINE_SECONDS", 0.2)

    measured = prune.measure(database_url, 2500)

    assert measured["batches"] == 3, "of 1000 at most"
    assert measured["rows_per_second"] == 4 * measured["sagas_per_second"] > 0
    assert measured["slowest_live_write_seconds"] >= measured["median_live_write_seconds"] > 0
    assert measured["baseline_slowest_live_write_seconds"] >= measured["baseline_median_live_write_seconds"] > 0


def test_a_database_with_sagas_is_not_measured_in(database_url: str, storage: PostgresSagaStorage) -> None:
    saga: NewSaga = new_saga()
    storage.create_sagas([saga])

    with pytest.raises(ValueError, match="use an empty one"):
        prune.measure(database_url, 1)

    assert [kept.id for kept in storage.find(SagaFilter())] == [saga.id]
