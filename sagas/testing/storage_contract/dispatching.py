"""Contract tests of scans: they queue due sagas, and reclaim lost ones."""

from __future__ import annotations

from uuid import UUID

import pytest

from sagas.ids import new_saga_id
from sagas.progress import SagaStatus
from sagas.storage.answers import ClaimResult, Refusal
from sagas.storage.arguments import LARGEST
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Claim, SagaState
from sagas.storage.transitions import GaveBack
from sagas.testing.storage_contract.acquiring import is_lost
from sagas.testing.storage_contract.base import (
    COMPENSATING,
    FAILED,
    MAXIMUM,
    RUNNING,
    ContractBase,
    all_at_once,
    ids,
    keys,
    new,
)

KINDS = pytest.mark.parametrize("pending", [True, False], ids=["pending", "recoverable"])


class ClaimingContract(ContractBase):
    """`claim_sagas`: which sagas are claimed, and that only one scan claims each."""

    @pytest.mark.parametrize("status", [RUNNING, COMPENSATING, FAILED])
    def test_a_due_saga_is_claimed_at_its_version_and_queued(self, storage: ISagaStorage, status: SagaStatus) -> None:
        saga_id = self.free(storage, status)

        (claim,) = self.claim(storage).claims

        saga = storage.load(saga_id)
        assert claim == Claim(saga_id, 1, pending=False, queued_at=claim.queued_at)
        assert claim.queued_at is not None
        assert (saga.state, saga.version, saga.status) == (SagaState.QUEUED, 1, status)
        assert (saga.recovery_attempts, saga.log[1:]) == (0, ())

    @KINDS
    def test_what_is_queued_is_not_claimed_again(self, storage: ISagaStorage, pending: bool) -> None:
        self._due(storage, pending=pending)
        assert len(self.claim(storage, pending=pending).claims) == 1

        assert self.claim(storage, pending=pending) == ClaimResult()

    def test_pending_and_recoverable_sagas_are_claimed_apart(self, storage: ISagaStorage) -> None:
        pending, recoverable = self.start(storage), self.free(storage)

        (new,), (begun,) = self.claim(storage, pending=True).claims, self.claim(storage, pending=False).claims

        assert (new.saga_id, new.version, new.pending) == (pending, 0, True)
        assert (begun.saga_id, begun.version, begun.pending) == (recoverable, 1, False)

    def test_nothing_that_is_not_due_finished_or_dead_is_claimed(self, storage: ISagaStorage) -> None:
        self.finish(storage, SagaStatus.COMPLETED)
        self.finish(storage, SagaStatus.COMPENSATED)
        self.die(storage)
        self.pass_time(storage, self.a_while * 2)
        self.run(storage)
        self.recover(storage)
        storage.apply(self.run(storage), GaveBack(status=FAILED, after_seconds=self.a_while))
        self.in_queue(storage)
        self.start(storage, queued=True)

        assert self.claim(storage, pending=False) == self.claim(storage, pending=True) == ClaimResult()

    @KINDS
    def test_those_due_for_longest_are_claimed_first(self, storage: ISagaStorage, pending: bool) -> None:
        due = []
        for _ in range(4):
            due.append(self._due(storage, pending=pending))
            self.pass_time(storage, 0.01)

        assert set(ids(self.claim(storage, pending=pending, limit=2))) == set(due[:2])

    @KINDS
    def test_claims_come_in_the_order_in_which_their_sagas_became_due(
        self, storage: ISagaStorage, pending: bool
    ) -> None:
        apart = self.a_while / 8
        due: dict[int, UUID] = {}
        for turn in (5, 1, 7, 3, 0, 6, 2, 4):  # in the order of the rows neither the first nor the last is due first
            if pending:
                ((saga_id, _),) = storage.create_sagas([new()], after_seconds=turn * apart)
            else:
                lease = self.run(storage)
                saga_id = lease.saga_id
                storage.apply(lease, GaveBack(status=RUNNING, after_seconds=turn * apart))
            due[turn] = saga_id
        self.pass_time(storage, len(due) * apart)

        assert ids(self.claim(storage, pending=pending)) == [due[turn] for turn in range(len(due))]

    @KINDS
    def test_the_queue_is_topped_up_to_the_limit_and_never_beyond(self, storage: ISagaStorage, pending: bool) -> None:
        for _ in range(6):
            self._due(storage, pending=pending)

        claims = self.claim(storage, pending=pending, limit=3).claims
        assert len(claims) == 3
        assert self.claim(storage, pending=pending, limit=3).claims == ()

        # Two messages were consumed, so there is room for two more.
        for claim in claims[:2]:
            self.acquired(self.acquire(storage, claim.saga_id, version=claim.version))
        assert len(self.claim(storage, pending=pending, limit=3).claims) == 2
        assert len(self.claim(storage, pending=pending, limit=LARGEST).claims) == 1

    def test_what_starts_queued_counts_against_the_limit_of_its_kind(self, storage: ISagaStorage) -> None:
        for _ in range(2):
            self.start(storage, queued=True)
            self.start(storage)
            self.free(storage)

        assert len(self.claim(storage, pending=True, limit=3).claims) == 1
        assert len(self.claim(storage, pending=False, limit=3).claims) == 2

    def test_a_claimed_saga_is_acquired_once_by_its_message(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        (claim,) = self.claim(storage).claims

        lease = self.acquired(self.acquire(storage, saga_id, version=claim.version)).lease
        assert lease.version == claim.version + 1
        self.refused(self.acquire(storage, saga_id, version=claim.version), Refusal.HELD)

    @KINDS
    @pytest.mark.parametrize("limit", [100, 25])
    def test_scans_at_once_claim_no_saga_twice_and_no_more_than_the_limit(
        self, storage: ISagaStorage, pending: bool, limit: int
    ) -> None:
        due = {self._due(storage, pending=pending) for _ in range(40)}

        results = all_at_once(lambda _: self.claim(storage, pending=pending, limit=limit))

        claimed = [saga_id for result in results for saga_id in ids(result)]
        assert len(claimed) == len(set(claimed)) == min(limit, 40)
        assert set(claimed) <= due

    def test_claims_and_acquires_at_once_give_each_saga_to_one_of_them(self, storage: ISagaStorage) -> None:
        due = [self.free(storage) for _ in range(40)]

        def claim_or_acquire(number: int) -> None:
            if number % 2:
                self.claim(storage)
                return
            for saga_id in due:
                self.acquire(storage, saga_id, owner=f"worker-{number}")

        all_at_once(claim_or_acquire)

        # In either order, each saga was acquired once: after it was queued, or before.
        assert {storage.load(saga_id).version for saga_id in due} == {2}

    @pytest.mark.parametrize("argument", ["limit", "max_recovery_attempts"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_numbers_below_one_are_refused(self, storage: ISagaStorage, argument: str, value: int) -> None:
        arguments = {"limit": 1, "max_recovery_attempts": 1} | {argument: value}

        with pytest.raises(ValueError, match=rf"\b{argument}\b.*{value}"):
            storage.claim_sagas(pending=False, **arguments)

    def _due(self, storage: ISagaStorage, *, pending: bool) -> UUID:
        return self.start(storage) if pending else self.free(storage)


class CrashContract(ContractBase):
    """`claim_sagas`: sagas whose holder was lost."""

    def test_a_scan_reclaims_expired_leases(self, storage: ISagaStorage) -> None:
        lease, first = self.recover(storage), self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        assert set(keys(self.claim(storage))) == {(lease.saga_id, 2), (first.saga_id, 1)}

        for holder, attempts in ((lease, 1), (first, 0)):
            saga = storage.load(holder.saga_id)
            assert (saga.recovery_attempts, saga.state) == (attempts, SagaState.QUEUED)
            assert "worker-1" in (saga.last_error or "")
            is_lost(saga, holder, None)

    def test_a_loss_is_counted_once_by_scan_and_acquire_together(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage)
        (claim,) = self.claim(storage).claims
        self.pass_time(storage, self.a_while * 1.5)

        record = self.acquired(self.acquire(storage, lease.saga_id, version=claim.version)).record

        assert (record.recovery_attempts, len(record.log)) == (1, 1)

    def test_a_loss_that_reaches_the_maximum_makes_the_saga_dead_instead(self, storage: ISagaStorage) -> None:
        dies, lives = self.recover(storage, spent=MAXIMUM - 1), self.recover(storage, spent=MAXIMUM - 2)
        self.pass_time(storage, self.a_while * 1.5)

        result = self.claim(storage)

        assert (keys(result), result.died, result.lost) == ([(lives.saga_id, 2)], (dies.saga_id,), 0)
        saga = storage.load(dies.saga_id)
        assert (saga.state, saga.status, saga.recovery_attempts) == (SagaState.DEAD, FAILED, MAXIMUM)
        assert (saga.lease_owner, saga.available_at) == (None, None)
        is_lost(saga, dies, None)
        assert self.claim(storage) == ClaimResult()

    def test_the_loss_of_a_first_holder_never_makes_a_saga_dead(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        result = storage.claim_sagas(pending=False, limit=9, max_recovery_attempts=1)

        assert (ids(result), result.died) == ([lease.saga_id], ())

    def test_a_saga_with_too_many_attempts_dies_instead_of_being_claimed(self, storage: ISagaStorage) -> None:
        saga_id, unstarted = self.free(storage, spent=MAXIMUM), self.start(storage)
        storage.set_recovery_attempts(unstarted, MAXIMUM)

        assert self.claim(storage) == ClaimResult(died=(saga_id,))
        assert storage.load(saga_id).dead
        # A saga that never ran does not become dead by attempts.
        assert ids(self.claim(storage, pending=True)) == [unstarted]


class ReleasingContract(ContractBase):
    """Claims by id, and claims whose messages could not be sent."""

    @KINDS
    def test_a_released_saga_is_due_at_once(self, storage: ISagaStorage, pending: bool) -> None:
        self.start(storage)
        self.free(storage)
        claims = self.claim(storage, pending=pending).claims

        storage.release_claims(claims)

        assert storage.load(claims[0].saga_id).state is SagaState.READY
        assert keys(self.claim(storage, pending=pending)) == keys(list(claims))

    def test_only_the_claims_that_are_named_are_released(self, storage: ISagaStorage) -> None:
        for _ in range(3):
            self.free(storage)
        claims = self.claim(storage).claims

        storage.release_claims([])
        storage.release_claims(claims[1:])

        assert set(keys(self.claim(storage))) == set(keys(list(claims[1:])))

    def test_what_was_acquired_queued_anew_or_backs_off_is_left_alone(self, storage: ISagaStorage) -> None:
        held, anew, waits = (self.free(storage) for _ in range(3))
        claims = self.claim(storage).claims
        leases = [self.acquired(self.acquire(storage, saga_id)).lease for saga_id in (held, anew, waits)]
        storage.apply(leases[1], GaveBack(status=RUNNING, queued=True))
        storage.apply(leases[2], GaveBack(status=FAILED, after_seconds=self.a_while))

        storage.release_claims([*claims, Claim(waits, 2)])

        storage.renew(leases[0], self.a_while)
        assert storage.load(anew).state is SagaState.QUEUED
        self.refused(self.acquire(storage, waits), Refusal.WAITING)

    def test_sagas_that_never_ran_are_claimed_by_id_in_the_order_asked(self, storage: ISagaStorage) -> None:
        one, two, other, queued = *(self.start(storage) for _ in range(3)), self.start(storage, queued=True)

        claims = storage.claim_by_id([two, queued, one])

        assert [(claim.saga_id, claim.version, claim.pending) for claim in claims] == [(two, 0, True), (one, 0, True)]
        assert all(claim.queued_at is not None for claim in claims)
        assert [storage.load(saga_id).state for saga_id in (one, two)] == [SagaState.QUEUED] * 2
        assert storage.claim_by_id([one, two]) == []
        assert ids(self.claim(storage, pending=True)) == [other]
        self.acquired(self.acquire(storage, one, version=0))

    def test_what_has_begun_is_unknown_or_paused_is_not_claimed_by_id(self, storage: ISagaStorage) -> None:
        begun = [self.free(storage), self.run(storage).saga_id, self.finish(storage), self.die(storage), new_saga_id()]
        storage.pause("refund", actor="ann", reason="why")

        assert storage.claim_by_id([*begun, self.start(storage, name="refund")]) == []
        assert storage.claim_by_id([]) == []

    def test_of_many_claims_by_id_at_once_one_gets_the_saga(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        claimed = all_at_once(lambda _: storage.claim_by_id([saga_id]))

        assert sum(map(len, claimed)) == 1
