"""The memory storage keeps the contract, on a clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sagas.ids import new_saga_id
from sagas.storage import ISagaStorage, MemorySagaStorage
from sagas.storage.records import NewSaga
from sagas.testing import FakeClock, StorageContract


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(clock: FakeClock) -> MemorySagaStorage:
    return MemorySagaStorage(clock)


class TestMemorySagaStorage(StorageContract):
    a_while = 60.0

    @pytest.fixture(autouse=True)
    def _clock(self, clock: FakeClock) -> None:
        self.clock = clock

    def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
        self.clock.advance(seconds)


def test_no_transaction_of_the_callers_can_be_joined(storage: MemorySagaStorage) -> None:
    new = NewSaga(id=new_saga_id(), name="order", context="{}")

    with pytest.raises(TypeError, match="without a connection"):
        storage.create_sagas([new], connection=object())


def test_without_a_clock_of_the_tests_time_is_the_real_one() -> None:
    storage = MemorySagaStorage()
    new = NewSaga(id=new_saga_id(), name="order", context="{}")
    before = datetime.now(UTC)

    storage.create_sagas([new])

    assert before <= storage.load(new.id).created_at <= datetime.now(UTC)
