"""Contract tests of recovery: which sagas need it, and how often it failed."""

from __future__ import annotations

import math
import re
from typing import Any, Final
from uuid import UUID

import pytest

from sagas.errors import IllegalStatusChange, LeaseLost, SagaNotFound
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict, aborted
from sagas.storage.answers import Refusal
from sagas.storage.arguments import LARGEST, MOST_ATTEMPTS
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import SagaState
from sagas.storage.transitions import PROBE_SECONDS, Progressed
from sagas.testing.storage_contract.base import (
    DONE,
    MAXIMUM,
    RUNNING,
    THREADS,
    ContractBase,
    all_at_once,
    failed_attempt,
)

#: Fields that count neither rows nor attempts.
_NO_COUNTS: Final[list[Any]] = [True, 1.5, 1.0, "1", None, 10**20, 10**400, math.inf, math.nan]

_FORWARD: Final = {SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED}
_BACKWARD: Final = {SagaStatus.COMPENSATING, SagaStatus.FAILED}
#: The statuses that `increment_recovery_attempts` may set in each state of a saga; any other is refused.
_LEGAL: Final[dict[str, set[SagaStatus]]] = {
    "pending": {SagaStatus.PENDING, *_FORWARD},
    "pending, queued": {SagaStatus.PENDING, *_FORWARD},
    "running": _FORWARD,
    "running, queued": _FORWARD,
    "running, held": {SagaStatus.RUNNING},
    "running, lease expired": _FORWARD,
    "running, paused": _FORWARD,
    "compensating": _BACKWARD,
    "compensating, held": {SagaStatus.COMPENSATING},
    "compensating, lease expired": _BACKWARD,
    "failed, backs off": _FORWARD,
    "failed while compensating": _BACKWARD,
    "dead": {SagaStatus.FAILED},
    "completed": {SagaStatus.COMPLETED},
    "compensated": {SagaStatus.COMPENSATED},
}


class RecoveryQueryContract(ContractBase):
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
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        assert storage.get_sagas_for_recovery(limit=10) == [lease.saga_id]

    def test_a_queued_saga_is_left_out_until_its_message_may_be_lost(self, storage: ISagaStorage) -> None:
        lease = self.in_queue(storage)

        self.pass_time(storage, PROBE_SECONDS * 0.8)
        assert storage.get_sagas_for_recovery(limit=10) == []
        self.pass_time(storage, PROBE_SECONDS * 0.4)
        assert storage.get_sagas_for_recovery(limit=10) == [lease.saga_id]

    def test_a_saga_that_backs_off_is_left_out_until_it_is_due(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.apply(lease, failed_attempt(after_seconds=self.a_while))

        self.pass_time(storage, self.a_while / 2)
        assert storage.get_sagas_for_recovery(limit=10) == []
        self.pass_time(storage, self.a_while)
        assert storage.get_sagas_for_recovery(limit=10) == [lease.saga_id]

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

    def test_a_query_changes_and_locks_nothing(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        before = storage.load(saga_id)

        assert storage.get_sagas_for_recovery(limit=10) == storage.get_sagas_for_recovery(limit=10) == [saga_id]
        assert storage.load(saga_id) == before

    @pytest.mark.parametrize("value", [0, -1, *_NO_COUNTS])
    def test_what_is_no_limit_is_refused(self, storage: ISagaStorage, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"^limit is {re.escape(repr(value)[:50])}"):
            storage.get_sagas_for_recovery(limit=value)

    @pytest.mark.parametrize("value", [0, -1, *_NO_COUNTS])
    def test_what_is_no_maximum_is_refused(self, storage: ISagaStorage, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"^max_recovery_attempts is {re.escape(repr(value)[:50])}"):
            storage.get_sagas_for_recovery(limit=1, max_recovery_attempts=value)

    @pytest.mark.parametrize("value", [-0.5, -1, True, "60", 1e300, 10**400, math.inf, -math.inf, math.nan])
    def test_what_is_no_staleness_is_refused(self, storage: ISagaStorage, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"^stale_after_seconds is {re.escape(repr(value)[:50])}"):
            storage.get_sagas_for_recovery(limit=1, stale_after_seconds=value)

    def test_the_largest_numbers_are_fine(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        assert storage.get_sagas_for_recovery(LARGEST, LARGEST) == [saga_id]
        assert storage.get_sagas_for_recovery(LARGEST, LARGEST, LARGEST) == []


class AttemptsContract(ContractBase):
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

    @pytest.mark.parametrize("status", SagaStatus)
    @pytest.mark.parametrize("state", _LEGAL)
    def test_a_status_is_set_if_the_saga_can_have_it_as_it_stands(
        self, storage: ISagaStorage, state: str, status: SagaStatus
    ) -> None:
        saga_id = self._bring_into(storage, state)
        before = storage.load(saga_id)

        if status not in _LEGAL[state]:
            with pytest.raises(
                IllegalStatusChange, match=rf"{saga_id} is {before.status} and cannot be set to {status}"
            ):
                storage.increment_recovery_attempts(saga_id, status)
            assert storage.load(saga_id) == before
            return

        storage.increment_recovery_attempts(saga_id, status)
        after = storage.load(saga_id)
        assert (after.status, after.recovery_attempts) == (status, before.recovery_attempts + 1)
        assert aborted(after.log) == (aborted(before.log) or status is SagaStatus.COMPENSATING)
        aborts = aborted(after.log) - aborted(before.log)
        loses = status is not before.status and state.endswith("lease expired")
        assert len(after.log) - len(before.log) == aborts + loses
        assert (after.state, after.lease_owner is None) == (
            SagaState.READY if loses else before.state,
            loses or before.lease_owner is None,
        )
        assert (after.finished_at, after.version) == (before.finished_at, before.version)

    @pytest.mark.parametrize("status", [SagaStatus.FAILED, SagaStatus.COMPENSATING])
    def test_a_leaseer_whose_lease_ran_out_writes_nothing_once_the_status_is_set(
        self, storage: ISagaStorage, status: SagaStatus
    ) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        storage.increment_recovery_attempts(lease.saga_id, status)

        with pytest.raises(LeaseLost):
            storage.apply(lease, Progressed(events=(DONE,), status=RUNNING))
        acquired = self.acquired(self.acquire(storage, lease.saga_id))
        assert (acquired.record.recovery_attempts, acquired.status_before) == (1, status)
        assert acquired.record.log[0].action is Action.HOLDER

    def test_an_aborted_saga_is_acquired_to_compensate_and_tells_who_aborted_it(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        storage.increment_recovery_attempts(saga_id, SagaStatus.COMPENSATING)
        storage.increment_recovery_attempts(saga_id, SagaStatus.FAILED)

        acquired = self.acquired(self.acquire(storage, saga_id))
        assert (acquired.record.status, acquired.status_before) == (SagaStatus.COMPENSATING, SagaStatus.FAILED)
        (note,) = acquired.record.log
        assert (note.action, note.verdict, note.in_doubt) == (Action.OPERATOR, Verdict.ABORT, False)
        assert (note.actor, note.reason) == ("increment_recovery_attempts", "the status was set to COMPENSATING")
        assert note.created_at is not None

    def test_what_is_no_status_is_refused(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        with pytest.raises(ValueError, match="'failed'"):
            storage.increment_recovery_attempts(saga_id, "failed")  # type: ignore[arg-type]
        assert storage.load(saga_id).recovery_attempts == 0

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
        assert saga.state is SagaState.READY
        assert storage.get_sagas_for_recovery(limit=10) == [saga_id]

    def test_setting_attempts_of_a_saga_that_backs_off_does_not_make_it_due(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.apply(lease, failed_attempt(after_seconds=self.a_while))

        storage.set_recovery_attempts(lease.saga_id, 0)

        assert storage.get_sagas_for_recovery(limit=10) == []

    def test_setting_attempts_does_not_revive_a_finished_saga(self, storage: ISagaStorage) -> None:
        saga_id = self.finish(storage)

        storage.set_recovery_attempts(saga_id, 0)

        saga = storage.load(saga_id)
        assert (saga.status, saga.available_at) == (SagaStatus.COMPLETED, None)

    def test_setting_attempts_does_not_end_the_lease_of_a_leaseer(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage, spent=MAXIMUM - 1)

        storage.set_recovery_attempts(lease.saga_id, 0)

        storage.renew(lease, self.a_while)
        assert storage.load(lease.saga_id).recovery_attempts == 0

    @pytest.mark.parametrize("value", [-1, MOST_ATTEMPTS + 1, *_NO_COUNTS])
    def test_what_is_no_number_of_attempts_is_refused(self, storage: ISagaStorage, value: Any) -> None:
        saga_id = self.free(storage, spent=2)

        with pytest.raises(ValueError, match=rf"^attempts is {re.escape(repr(value)[:50])}"):
            storage.set_recovery_attempts(saga_id, value)
        assert storage.load(saga_id).recovery_attempts == 2

    def test_the_largest_number_of_attempts_can_be_counted_on(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        storage.set_recovery_attempts(saga_id, MOST_ATTEMPTS)

        storage.increment_recovery_attempts(saga_id)
        storage.increment_recovery_attempts(saga_id, SagaStatus.FAILED)
        assert storage.load(saga_id).recovery_attempts == MOST_ATTEMPTS
        self.refused(self.acquire(storage, saga_id), Refusal.DEAD)
        assert self.claim(storage).died == (saga_id,)

    def test_setting_attempts_of_an_unknown_saga_raises_saga_not_found(self, storage: ISagaStorage) -> None:
        saga_id = new_saga_id()

        with pytest.raises(SagaNotFound, match=str(saga_id)):
            storage.set_recovery_attempts(saga_id, 0)

    def _bring_into(self, storage: ISagaStorage, state: str) -> UUID:
        """A saga in this state of `_LEGAL`."""
        status, _, where = state.partition(", ")
        match where or status:
            case "queued":
                return self.start(storage, queued=True) if status == "pending" else self.in_queue(storage).saga_id
            case "held" | "lease expired":
                lease = self.recover(storage)
                if status == "compensating":
                    self.abort(storage, lease)
                if where == "lease expired":
                    self.pass_time(storage, self.a_while * 1.5)
                return lease.saga_id
            case "paused":
                saga_id = self.free(storage)
                storage.pause("order", actor="ann", reason="why")
                return saga_id
            case "backs off" | "failed while compensating":
                lease = self.recover(storage)
                if where != "backs off":
                    self.abort(storage, lease)
                storage.apply(lease, failed_attempt(after_seconds=self.a_while))
                return lease.saga_id
            case "pending":
                return self.start(storage)
            case "dead":
                return self.die(storage)
            case "completed" | "compensated":
                return self.finish(storage, SagaStatus(state.upper()))
            case _:
                return self.free(storage, SagaStatus(state.upper()))
