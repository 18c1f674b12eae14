"""The public contract of recovery: which sagas need it, and how often it failed."""

from __future__ import annotations

import math

import pytest

from sagas.errors import SagaNotFound
from sagas.ids import new_saga_id
from sagas.progress import SagaStatus
from sagas.storage.base import ISagaStorage, Release
from sagas.testing.storage_contract.foundation import MAXIMUM, THREADS, Foundation, all_at_once


class RecoveryQueryContract(Foundation):
    """`get_sagas_for_recovery`."""

    @pytest.mark.parametrize("status", [SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED])
    def test_begun_and_unfinished_sagas_need_recovery(self, storage: ISagaStorage, status: SagaStatus) -> None:
        saga_id = self.free(storage, status)

        assert storage.get_sagas_for_recovery(limit=10) == [saga_id]

    def test_a_saga_that_never_ran_needs_no_recovery(self, storage: ISagaStorage) -> None:
        self.start(storage)

        assert storage.get_sagas_for_recovery(limit=10) == []

    @pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
    def test_finished_sagas_need_no_recovery(self, storage: ISagaStorage, status: SagaStatus) -> None:
        self.finish(storage, status)
        self.pass_time(storage, self.a_while * 2)

        assert storage.get_sagas_for_recovery(limit=10) == []

    def test_the_oldest_come_first_up_to_the_limit(self, storage: ISagaStorage) -> None:
        by_id = sorted(self.free(storage) for _ in range(3))
        # Counting an attempt updates a saga, so this is the order of their last updates.
        by_update = [by_id[1], by_id[2], by_id[0]]
        for saga_id in by_update:
            self.pass_time(storage, 0.01)
            storage.increment_recovery_attempts(saga_id)

        assert storage.get_sagas_for_recovery(limit=10) == by_update
        assert storage.get_sagas_for_recovery(limit=2) == by_update[:2]

    def test_a_saga_under_a_live_lease_is_left_out(self, storage: ISagaStorage) -> None:
        self.run(storage)
        self.recover(storage)

        assert storage.get_sagas_for_recovery(limit=10) == []

    def test_a_saga_whose_lease_ran_out_needs_recovery(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        assert storage.get_sagas_for_recovery(limit=10) == [hold.saga_id]

    def test_a_saga_in_the_queue_is_left_out_while_its_mark_protects_it(self, storage: ISagaStorage) -> None:
        hold = self.in_queue(storage)

        self.pass_time(storage, self.a_while / 2)
        assert storage.get_sagas_for_recovery(limit=10) == []
        self.pass_time(storage, self.a_while)
        assert storage.get_sagas_for_recovery(limit=10) == [hold.saga_id]

    def test_a_saga_that_backs_off_is_left_out_until_it_is_due(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=SagaStatus.FAILED, failed_attempt=True, after_seconds=self.a_while))

        self.pass_time(storage, self.a_while / 2)
        assert storage.get_sagas_for_recovery(limit=10) == []
        self.pass_time(storage, self.a_while)
        assert storage.get_sagas_for_recovery(limit=10) == [hold.saga_id]

    def test_a_dead_saga_is_left_out_whatever_the_maximum(self, storage: ISagaStorage) -> None:
        self.die(storage)
        self.pass_time(storage, self.a_while * 2)

        assert storage.get_sagas_for_recovery(limit=10, max_recovery_attempts=1000) == []

    def test_attempts_must_be_strictly_below_the_maximum(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=3)

        assert storage.get_sagas_for_recovery(limit=10, max_recovery_attempts=3) == []
        assert storage.get_sagas_for_recovery(limit=10, max_recovery_attempts=4) == [saga_id]

    def test_the_default_maximum_is_five_attempts(self, storage: ISagaStorage) -> None:
        self.free(storage, spent=5)
        below = self.free(storage, spent=4)

        assert storage.get_sagas_for_recovery(10) == [below]

    def test_stale_are_only_those_not_updated_for_so_long(self, storage: ISagaStorage) -> None:
        old = self.free(storage)
        self.pass_time(storage, self.a_while)
        fresh = self.free(storage)

        assert storage.get_sagas_for_recovery(limit=10, stale_after_seconds=self.a_while / 2) == [old]
        assert storage.get_sagas_for_recovery(limit=10, stale_after_seconds=None) == [old, fresh]

    def test_stale_after_no_time_means_any_that_are_due(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        self.pass_time(storage, 0.01)

        assert storage.get_sagas_for_recovery(limit=10, stale_after_seconds=0) == [saga_id]

    def test_only_sagas_of_the_name_that_is_asked_for(self, storage: ISagaStorage) -> None:
        self.free(storage, name="order")
        refund = self.free(storage, name="refund")

        assert storage.get_sagas_for_recovery(limit=10, saga_name="refund") == [refund]
        assert storage.get_sagas_for_recovery(limit=10, saga_name="refunds") == []

    def test_asking_marks_and_locks_nothing(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        before = storage.load(saga_id)

        assert storage.get_sagas_for_recovery(limit=10) == storage.get_sagas_for_recovery(limit=10) == [saga_id]
        assert storage.load(saga_id) == before

    @pytest.mark.parametrize("value", [0, -1])
    def test_a_limit_below_one_is_refused(self, storage: ISagaStorage, value: int) -> None:
        with pytest.raises(ValueError, match=rf"\blimit\b.*{value}"):
            storage.get_sagas_for_recovery(limit=value)

    @pytest.mark.parametrize("value", [0, -1])
    def test_a_maximum_below_one_is_refused(self, storage: ISagaStorage, value: int) -> None:
        with pytest.raises(ValueError, match=rf"\bmax_recovery_attempts\b.*{value}"):
            storage.get_sagas_for_recovery(limit=1, max_recovery_attempts=value)

    @pytest.mark.parametrize("value", [-0.5, -1, math.nan])
    def test_a_negative_staleness_is_refused(self, storage: ISagaStorage, value: float) -> None:
        with pytest.raises(ValueError, match=rf"\bstale_after_seconds\b.*{value}"):
            storage.get_sagas_for_recovery(limit=1, stale_after_seconds=value)


class AttemptsContract(Foundation):
    """`increment_recovery_attempts` and `set_recovery_attempts`."""

    def test_incrementing_counts_one_more_attempt_and_keeps_the_status(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, SagaStatus.COMPENSATING)

        storage.increment_recovery_attempts(saga_id)

        saga = storage.load(saga_id)
        assert (saga.recovery_attempts, saga.status) == (1, SagaStatus.COMPENSATING)

    def test_incrementing_sets_the_status_that_is_given(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, SagaStatus.RUNNING)

        storage.increment_recovery_attempts(saga_id, new_status=SagaStatus.FAILED)

        saga = storage.load(saga_id)
        assert (saga.recovery_attempts, saga.status) == (1, SagaStatus.FAILED)

    def test_incrementing_updates_the_saga_so_that_it_is_no_longer_the_oldest(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        before = storage.load(saga_id)
        self.pass_time(storage, 0.01)

        storage.increment_recovery_attempts(saga_id)

        assert storage.load(saga_id).updated_at > before.updated_at

    def test_incrementing_an_unknown_saga_raises_saga_not_found(self, storage: ISagaStorage) -> None:
        saga_id = new_saga_id()

        with pytest.raises(SagaNotFound, match=str(saga_id)):
            storage.increment_recovery_attempts(saga_id, new_status=SagaStatus.FAILED)

    def test_no_increment_is_lost_when_threads_increment_at_once(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        def increment(_: int) -> None:
            for _ in range(25):
                storage.increment_recovery_attempts(saga_id)

        all_at_once(increment)

        assert storage.load(saga_id).recovery_attempts == THREADS * 25

    def test_attempts_can_be_set(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=3)

        storage.set_recovery_attempts(saga_id, 1)

        assert storage.load(saga_id).recovery_attempts == 1

    def test_setting_attempts_revives_a_dead_saga_at_once(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)

        storage.set_recovery_attempts(saga_id, 0)

        saga = storage.load(saga_id)
        assert (saga.dead, saga.recovery_attempts, saga.status) == (False, 0, SagaStatus.FAILED)
        assert storage.get_sagas_for_recovery(limit=10) == [saga_id]

    def test_setting_attempts_of_a_saga_that_backs_off_does_not_make_it_due(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=SagaStatus.FAILED, failed_attempt=True, after_seconds=self.a_while))

        storage.set_recovery_attempts(hold.saga_id, 0)

        assert storage.get_sagas_for_recovery(limit=10) == []

    def test_setting_attempts_does_not_revive_a_finished_saga(self, storage: ISagaStorage) -> None:
        saga_id = self.finish(storage)

        storage.set_recovery_attempts(saga_id, 0)

        saga = storage.load(saga_id)
        assert (saga.status, saga.available_at) == (SagaStatus.COMPLETED, None)

    def test_setting_attempts_does_not_end_the_lease_of_a_holder(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)

        storage.set_recovery_attempts(hold.saga_id, 0)

        storage.renew(hold, self.a_while)
        assert storage.load(hold.saga_id).recovery_attempts == 0

    def test_negative_attempts_are_refused(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=2)

        with pytest.raises(ValueError, match=r"\battempts\b.*-1"):
            storage.set_recovery_attempts(saga_id, -1)
        assert storage.load(saga_id).recovery_attempts == 2

    def test_setting_attempts_of_an_unknown_saga_raises_saga_not_found(self, storage: ISagaStorage) -> None:
        saga_id = new_saga_id()

        with pytest.raises(SagaNotFound, match=str(saga_id)):
            storage.set_recovery_attempts(saga_id, 0)
