"""Contract tests of deleting old sagas, and of checking the tables' layout."""

from __future__ import annotations

import math
import re

import pytest

from sagas.errors import SagaNotFound
from sagas.progress import SagaStatus
from sagas.storage.contract import ISagaStorage
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Ended
from sagas.testing.storage_contract.base import COMPENSATING, DONE, FAILED, ContractBase, new


class HousekeepingContract(ContractBase):
    """`prune` and `check_schema`."""

    @pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
    def test_finished_sagas_are_pruned_with_their_logs(self, storage: ISagaStorage, status: SagaStatus) -> None:
        saga_id = self.finish(storage, status)
        self.pass_time(storage, 1)

        assert storage.prune(older_than_seconds=0.5, limit=10) == 1

        with pytest.raises(SagaNotFound):
            storage.load(saga_id)
        assert storage.prune(older_than_seconds=0.5, limit=10) == 0

    def test_only_what_ended_longer_ago_is_pruned(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        self.finish(storage)
        self.pass_time(storage, self.a_while)
        storage.apply(lease, Ended(events=(DONE,), status=SagaStatus.COMPLETED))

        assert storage.prune(older_than_seconds=self.a_while * 2, limit=10) == 0
        assert storage.prune(older_than_seconds=self.a_while / 2, limit=10) == 1

        assert [saga.id for saga in storage.find(SagaFilter())] == [lease.saga_id]

    def test_unfinished_and_dead_sagas_are_never_pruned(self, storage: ISagaStorage) -> None:
        kept = {self.start(storage), self.run(storage).saga_id, self.die(storage), self.in_queue(storage).saga_id}
        kept |= {self.free(storage, status) for status in (COMPENSATING, FAILED)}
        self.pass_time(storage, self.a_while * 2)

        assert storage.prune(older_than_seconds=0, limit=10) == 0

        assert {saga.id for saga in storage.find(SagaFilter())} == kept

    def test_no_more_than_the_limit_are_pruned_those_that_ended_first(self, storage: ISagaStorage) -> None:
        finished = []
        for _ in range(3):
            finished.append(self.finish(storage))
            self.pass_time(storage, 0.01)

        assert storage.prune(older_than_seconds=0, limit=2) == 2

        assert [saga.id for saga in storage.find(SagaFilter())] == finished[2:]

    def test_the_key_of_a_pruned_saga_can_be_used_again(self, storage: ISagaStorage) -> None:
        first, second = new("key"), new("key")
        storage.create_sagas([first])
        lease = self.acquired(self.acquire(storage, first.id)).lease
        storage.apply(lease, Ended(events=(DONE,), status=SagaStatus.COMPLETED))
        self.pass_time(storage, 0.01)
        assert storage.prune(older_than_seconds=0, limit=10) == 1

        assert storage.create_sagas([second]) == [(second.id, True)]

    @pytest.mark.parametrize("value", [0, -1, True, 1.5, 10**20])
    def test_pruning_with_what_is_no_limit_is_refused(self, storage: ISagaStorage, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^limit is {value}"):
            storage.prune(older_than_seconds=0, limit=value)

    @pytest.mark.parametrize("value", [-1, True, 1e300, math.inf, math.nan])
    def test_pruning_with_what_is_no_age_is_refused(self, storage: ISagaStorage, value: float) -> None:
        with pytest.raises(ValueError, match=rf"^older_than_seconds is {re.escape(str(value))}"):
            storage.prune(older_than_seconds=value, limit=1)

    def test_the_layout_fits_the_code(self, storage: ISagaStorage) -> None:
        storage.check_schema()
