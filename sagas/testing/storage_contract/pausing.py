"""Contract tests of pausing and resuming saga names, and of yield requests."""

from __future__ import annotations

import pytest

from sagas.progress import SagaStatus
from sagas.storage.answers import Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import GaveBack
from sagas.testing.storage_contract.acquiring import is_lost
from sagas.testing.storage_contract.base import FAILED, MAXIMUM, RUNNING, ContractBase, ids

PAUSED = SagaState.PAUSED


class PausingContract(ContractBase):
    """`pause`, `resume` and `pauses`."""

    def test_what_is_due_of_a_paused_name_is_paused_and_no_scan_queues_it(self, storage: ISagaStorage) -> None:
        due = {self.start(storage), self.free(storage), self.free(storage, FAILED)}

        assert storage.pause("order", actor="ann", reason="the bank is away") == 3

        assert {saga.id for saga in storage.find(SagaFilter(states=[PAUSED]))} == due
        assert self.claim(storage).claims == self.claim(storage, pending=True).claims == ()

    def test_a_pause_is_for_its_name_alone(self, storage: ISagaStorage) -> None:
        storage.pause("order", actor="ann", reason="why")
        other = self.free(storage, name="refund")

        assert ids(self.claim(storage)) == [other]

    @pytest.mark.parametrize("pending", [False, True])
    def test_what_becomes_due_during_a_pause_is_paused_by_the_next_scan(
        self, storage: ISagaStorage, pending: bool
    ) -> None:
        storage.pause("order", actor="ann", reason="why")
        saga_id = self.start(storage) if pending else self.free(storage)

        assert self.claim(storage, pending=pending).claims == ()

        assert storage.load(saga_id).state is PAUSED

    def test_resuming_makes_ready_what_was_paused(self, storage: ISagaStorage) -> None:
        unstarted, begun = self.start(storage), self.free(storage)
        storage.pause("order", actor="ann", reason="why")

        assert storage.resume("order") == 2

        assert ids(self.claim(storage, pending=True)) == [unstarted]
        assert ids(self.claim(storage)) == [begun]

    def test_what_backs_off_during_a_pause_keeps_its_deadline(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.apply(lease, GaveBack(status=FAILED, after_seconds=self.a_while))
        before = storage.load(lease.saga_id)

        assert storage.pause("order", actor="ann", reason="why") == 0
        self.refused(self.acquire(storage, lease.saga_id, version=1), Refusal.PAUSED)
        assert storage.load(lease.saga_id).available_at == before.available_at
        assert storage.resume("order") == 1

        self.refused(self.acquire(storage, lease.saga_id), Refusal.WAITING)
        self.pass_time(storage, self.a_while * 1.5)
        self.acquired(self.acquire(storage, lease.saga_id))

    def test_a_loss_during_a_pause_is_counted_and_the_saga_paused(self, storage: ISagaStorage) -> None:
        by_scan, by_message = self.recover(storage), self.recover(storage)
        storage.pause("order", actor="ann", reason="why")
        self.pass_time(storage, self.a_while * 1.5)

        self.refused(self.acquire(storage, by_message.saga_id), Refusal.PAUSED)
        assert self.claim(storage).claims == ()

        for lease in (by_scan, by_message):
            saga = storage.load(lease.saga_id)
            assert (saga.recovery_attempts, saga.state, saga.lease_owner) == (1, PAUSED, None)
            is_lost(saga, lease, None)
        assert storage.resume("order") == 2
        assert len(self.claim(storage).claims) == 2

    def test_a_loss_that_reaches_the_maximum_during_a_pause_ends_dead(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage, spent=MAXIMUM - 1)
        storage.pause("order", actor="ann", reason="why")
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage).died == (lease.saga_id,)
        storage.resume("order")
        assert storage.load(lease.saga_id).dead

    def test_setting_attempts_ends_no_pause(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, FAILED, spent=2)
        storage.pause("order", actor="ann", reason="why")

        storage.set_recovery_attempts(saga_id, 0)

        saga = storage.load(saga_id)
        assert (saga.state, saga.dead, saga.recovery_attempts) == (PAUSED, False, 0)
        assert storage.get_sagas_for_recovery(limit=10) == []

    @pytest.mark.parametrize("paused", [False, True], ids=["queued", "paused"])
    def test_no_message_acquires_a_saga_of_a_paused_name_but_an_operator_does(
        self, storage: ISagaStorage, paused: bool
    ) -> None:
        saga_id = self.free(storage) if paused else self.in_queue(storage).saga_id
        storage.pause("order", actor="ann", reason="why")

        for version in (1, None):
            record = self.refused(self.acquire(storage, saga_id, version=version), Refusal.PAUSED)
            assert record is not None
            assert record.state is PAUSED
        assert storage.load(saga_id).state is PAUSED

        acquired = self.acquired(self.acquire(storage, saga_id, by_hand=True))
        assert (acquired.record.recovery_attempts, acquired.record.log) == (0, ())

    def test_the_dead_and_the_queued_stay_so_through_a_pause(self, storage: ISagaStorage) -> None:
        dead, queued = self.die(storage), self.start(storage, queued=True)
        storage.pause("order", actor="ann", reason="why")
        assert storage.load(dead).dead
        assert storage.load(queued).state is SagaState.QUEUED
        storage.resume("order")

        assert storage.load(dead).dead
        self.acquired(self.acquire(storage, queued, version=0))

    def test_the_pauses_tell_who_why_and_since_when(self, storage: ISagaStorage) -> None:
        storage.pause("order", actor="ann", reason="first")
        (first,) = storage.pauses()
        storage.pause("order", actor="bob", reason="second")
        storage.pause("account", actor="ann", reason="third")

        account, order = storage.pauses()

        assert (account.name, account.actor, account.reason) == ("account", "ann", "third")
        assert (order.actor, order.reason, order.since) == ("bob", "second", first.since)
        storage.resume("order")
        storage.resume("never paused")
        assert [pause.name for pause in storage.pauses()] == ["account"]

    def test_a_resume_ends_a_pause_of_its_name_alone_as_often_as_it_is_paused(self, storage: ISagaStorage) -> None:
        saga_id, other = self.free(storage), self.free(storage, name="refund")
        storage.pause("refund", actor="ann", reason="why")
        for _ in range(2):
            assert storage.pause("order", actor="ann", reason="why") == 1
            assert self.claim(storage).claims == ()
            assert storage.resume("order") == 1

        assert storage.load(other).state is PAUSED
        assert ids(self.claim(storage)) == [saga_id]


class YieldingContract(ContractBase):
    """`request_yield`, and the answer of the next renewal."""

    def test_a_holder_is_told_by_its_next_renewal_that_its_saga_is_wanted(self, storage: ISagaStorage) -> None:
        lease, other = self.run(storage), self.run(storage)
        assert storage.renew(lease, 60) is False

        storage.request_yield(lease.saga_id, actor="ann", for_seconds=60)

        assert storage.renew(lease, 60) is True
        assert storage.renew(other, 60) is False

    def test_a_request_that_is_over_is_forgotten(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.request_yield(lease.saga_id, actor="ann", for_seconds=60)
        storage.request_yield(lease.saga_id, actor="ann", for_seconds=0)

        assert storage.renew(lease, 60) is False

    def test_every_holder_of_a_paused_name_is_asked(self, storage: ISagaStorage) -> None:
        lease, other = self.run(storage), self.run(storage, name="refund")
        storage.pause("order", actor="ann", reason="why")

        assert storage.renew(lease, 60) is True
        assert storage.renew(other, 60) is False
        storage.resume("order")
        assert storage.renew(lease, 60) is False

    def test_a_request_for_a_saga_that_nobody_holds_changes_nothing(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        before = storage.load(saga_id)

        storage.request_yield(saga_id, actor="ann", for_seconds=60)

        assert storage.load(saga_id) == before
        assert (before.status, before.state) == (RUNNING, SagaState.READY) != (SagaStatus.PENDING, PAUSED)
