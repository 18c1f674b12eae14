"""What a scan does: claiming what is due, and freeing what was claimed or held in vain."""

from __future__ import annotations

from uuid import UUID

import pytest

from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage.base import QUEUE, Claim, ClaimResult, ISagaStorage, Refusal, Release, completed
from sagas.testing.storage_contract.foundation import MAXIMUM, Foundation, all_at_once, ids

KINDS = pytest.mark.parametrize("pending", [True, False], ids=["pending", "recoverable"])


class ClaimingContract(Foundation):
    """`claim_sagas`: what is claimed, and that nobody else claims it."""

    @pytest.mark.parametrize("status", [SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED])
    def test_a_due_saga_is_claimed_at_its_version_and_marked(self, storage: ISagaStorage, status: SagaStatus) -> None:
        saga_id = self.free(storage, status)

        assert self.claim(storage) == ClaimResult(claims=(Claim(saga_id, 1),))

        saga = storage.load(saga_id)
        assert (saga.lease_owner, saga.version, saga.status) == (QUEUE, 1, status)
        assert (saga.recovery_attempts, saga.interrupted) == (0, False)

    @KINDS
    def test_what_is_marked_is_not_claimed_again(self, storage: ISagaStorage, pending: bool) -> None:
        self._due(storage, pending=pending)
        assert len(self.claim(storage, pending=pending).claims) == 1

        assert self.claim(storage, pending=pending) == ClaimResult()

    def test_pending_and_recoverable_sagas_are_claimed_apart(self, storage: ISagaStorage) -> None:
        pending, recoverable = self.start(storage), self.free(storage)

        assert self.claim(storage, pending=True).claims == (Claim(pending, 0, pending=True),)
        assert self.claim(storage, pending=False).claims == (Claim(recoverable, 1),)

    def test_nothing_that_is_not_due_is_claimed(self, storage: ISagaStorage) -> None:
        self.run(storage)
        self.recover(storage)
        waiting = self.run(storage)
        storage.release(waiting, Release(status=SagaStatus.FAILED, after_seconds=self.a_while))
        self.in_queue(storage)
        self.start(storage, owner=QUEUE)

        assert self.claim(storage, pending=False) == ClaimResult()
        assert self.claim(storage, pending=True) == ClaimResult()

    def test_neither_finished_nor_dead_sagas_are_ever_claimed(self, storage: ISagaStorage) -> None:
        self.finish(storage, SagaStatus.COMPLETED)
        self.finish(storage, SagaStatus.COMPENSATED)
        self.die(storage)
        self.pass_time(storage, self.a_while * 2)

        assert self.claim(storage, pending=False) == ClaimResult()
        assert self.claim(storage, pending=True) == ClaimResult()

    @KINDS
    def test_those_due_for_longest_are_claimed_first(self, storage: ISagaStorage, pending: bool) -> None:
        due = []
        for _ in range(4):
            due.append(self._due(storage, pending=pending))
            self.pass_time(storage, 0.01)

        assert set(ids(self.claim(storage, pending=pending, limit=2).claims)) == set(due[:2])

    @KINDS
    def test_the_mark_tops_up_what_waits_in_the_queue_never_beyond_the_limit(
        self, storage: ISagaStorage, pending: bool
    ) -> None:
        for _ in range(6):
            self._due(storage, pending=pending)

        claims = self.claim(storage, pending=pending, limit=3).claims
        assert len(claims) == 3
        assert self.claim(storage, pending=pending, limit=3).claims == ()

        # Two messages were consumed, so there is room for two more.
        for claim in claims[:2]:
            self.taken(self.take(storage, claim.saga_id, version=claim.version))
        assert len(self.claim(storage, pending=pending, limit=3).claims) == 2

    def test_what_starts_put_into_the_queue_counts_against_the_limit_of_its_kind(self, storage: ISagaStorage) -> None:
        for _ in range(2):
            self.start(storage, owner=QUEUE)
            self.start(storage)
            self.free(storage)

        assert len(self.claim(storage, pending=True, limit=3).claims) == 1
        assert len(self.claim(storage, pending=False, limit=3).claims) == 2

    def test_a_claimed_saga_is_taken_by_the_message_that_was_sent_for_it(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        (claim,) = self.claim(storage).claims

        assert self.taken(self.take(storage, saga_id, version=claim.version)).hold.version == claim.version + 1
        assert self.refused(self.take(storage, saga_id, version=claim.version)).why is Refusal.HELD

    @KINDS
    def test_scans_at_once_never_claim_a_saga_twice(self, storage: ISagaStorage, pending: bool) -> None:
        due = [self._due(storage, pending=pending) for _ in range(40)]

        results = all_at_once(lambda _: self.claim(storage, pending=pending))

        claimed = [saga_id for result in results for saga_id in ids(result.claims)]
        assert sorted(claimed) == sorted(due)

    @KINDS
    def test_scans_at_once_never_exceed_the_limit_together(self, storage: ISagaStorage, pending: bool) -> None:
        for _ in range(40):
            self._due(storage, pending=pending)

        results = all_at_once(lambda _: self.claim(storage, pending=pending, limit=25))

        claimed = [saga_id for result in results for saga_id in ids(result.claims)]
        assert len(claimed) == len(set(claimed)) == 25

    def test_a_claim_and_takers_at_once_give_each_saga_to_one_of_them(self, storage: ISagaStorage) -> None:
        due = [self.free(storage) for _ in range(40)]

        def claim_or_take(number: int) -> None:
            if number % 2:
                self.claim(storage)
                return
            for saga_id in due:
                self.take(storage, saga_id, owner=f"worker-{number}")

        all_at_once(claim_or_take)

        # Whoever came first, each was taken once: from the queue or before it got there.
        assert {storage.load(saga_id).version for saga_id in due} == {2}

    @pytest.mark.parametrize("argument", ["limit", "max_recovery_attempts"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_numbers_below_one_are_refused(self, storage: ISagaStorage, argument: str, value: int) -> None:
        arguments = {"limit": 1, "max_recovery_attempts": 1} | {argument: value}

        with pytest.raises(ValueError, match=rf"\b{argument}\b.*{value}"):
            storage.claim_sagas(pending=False, mark_seconds=1.0, **arguments)

    def _due(self, storage: ISagaStorage, *, pending: bool) -> UUID:
        return self.start(storage) if pending else self.free(storage)


class CrashContract(Foundation):
    """`claim_sagas` and `seize_orphans`: what becomes of sagas whose holder is gone."""

    def test_a_scan_seizes_expired_leases(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage).claims == (Claim(hold.saga_id, hold.version),)

        saga = storage.load(hold.saga_id)
        assert (saga.recovery_attempts, saga.interrupted, saga.lease_owner) == (1, True, QUEUE)
        assert "worker-1" in (saga.last_error or "")

    def test_a_scan_counts_no_failed_attempt_for_the_first_hold(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        self.claim(storage)

        saga = storage.load(hold.saga_id)
        assert (saga.recovery_attempts, saga.interrupted) == (0, True)

    def test_one_crash_is_counted_once_by_scan_and_taking_together(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        self.pass_time(storage, self.a_while * 1.5)
        (claim,) = self.claim(storage).claims
        self.pass_time(storage, self.a_while * 1.5)

        taken = self.taken(self.take(storage, hold.saga_id, version=claim.version))

        assert (taken.record.recovery_attempts, taken.record.interrupted) == (1, True)

    def test_a_crash_that_reaches_the_maximum_makes_the_saga_dead_instead_of_claimed(
        self, storage: ISagaStorage
    ) -> None:
        dies, lives = self.recover(storage, spent=MAXIMUM - 1), self.recover(storage, spent=MAXIMUM - 2)
        self.pass_time(storage, self.a_while * 1.5)

        result = self.claim(storage)

        assert result == ClaimResult(claims=(Claim(lives.saga_id, lives.version),), died=(dies.saga_id,))
        saga = storage.load(dies.saga_id)
        assert (saga.dead, saga.recovery_attempts, saga.lease_owner) == (True, MAXIMUM, None)
        assert "worker-1" in (saga.last_error or "")

    def test_the_crash_of_a_first_hold_never_makes_a_saga_dead(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        result = storage.claim_sagas(pending=False, limit=9, max_recovery_attempts=1, mark_seconds=self.a_while)

        assert (ids(result.claims), result.died) == ([hold.saga_id], ())

    def test_a_saga_with_too_many_attempts_dies_instead_of_being_claimed(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=MAXIMUM)

        assert self.claim(storage) == ClaimResult(died=(saga_id,))
        assert storage.load(saga_id).dead
        assert self.claim(storage) == ClaimResult()

    def test_a_saga_that_never_ran_does_not_die_of_attempts(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)
        storage.set_recovery_attempts(saga_id, MAXIMUM)

        assert ids(self.claim(storage, pending=True).claims) == [saga_id]

    def test_what_a_dead_owner_held_is_due_at_once(self, storage: ISagaStorage) -> None:
        first, later = self.run(storage, owner="worker-1"), self.recover(storage, owner="worker-1")
        other = self.run(storage, owner="worker-10")

        assert storage.seize_orphans("worker-1", max_recovery_attempts=MAXIMUM) == 2

        assert set(storage.get_sagas_for_recovery(limit=10)) == {first.saga_id, later.saga_id}
        assert storage.load(other.saga_id).lease_owner == "worker-10"

    def test_orphans_are_counted_as_crashes_after_the_first_hold(self, storage: ISagaStorage) -> None:
        first, later = self.run(storage, owner="worker-1"), self.recover(storage, owner="worker-1")

        storage.seize_orphans("worker-1", max_recovery_attempts=MAXIMUM)

        seized = [storage.load(hold.saga_id) for hold in (first, later)]
        assert [saga.recovery_attempts for saga in seized] == [0, 1]
        assert all(saga.interrupted and "worker-1" in (saga.last_error or "") for saga in seized)
        assert [saga.version for saga in seized] == [1, 2]

    def test_an_orphan_whose_crash_reaches_the_maximum_is_dead(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, owner="worker-1", spent=MAXIMUM - 1)

        assert storage.seize_orphans("worker-1", max_recovery_attempts=MAXIMUM) == 1

        saga = storage.load(hold.saga_id)
        assert (saga.dead, saga.recovery_attempts) == (True, MAXIMUM)

    def test_an_owner_that_holds_nothing_has_no_orphans(self, storage: ISagaStorage) -> None:
        done = self.run(storage, owner="worker-1")
        storage.checkpoint(done, completed("reserve", Action.ACT), status=SagaStatus.COMPLETED)
        given_back = self.run(storage, owner="worker-1")
        storage.release(given_back, Release(status=SagaStatus.RUNNING))

        assert storage.seize_orphans("worker-1", max_recovery_attempts=MAXIMUM) == 0

    def test_what_waits_in_the_queue_is_nobodys_orphan(self, storage: ISagaStorage) -> None:
        self.in_queue(storage)

        assert storage.seize_orphans(QUEUE, max_recovery_attempts=MAXIMUM) == 0


class MarkContract(Foundation):
    """Marks whose messages wait, or are missing; and claims whose messages could not be sent."""

    @KINDS
    def test_due_marks_stay_while_as_many_messages_wait(self, storage: ISagaStorage, pending: bool) -> None:
        marked = self._marked(storage, 3, pending=pending)
        self.pass_time(storage, self.a_while * 1.5)

        for _ in range(2):
            assert self.claim(storage, pending=pending, messages_waiting=3) == ClaimResult()
        assert {storage.load(saga_id).lease_owner for saga_id in marked} == {QUEUE}

    def test_due_marks_still_count_against_the_limit(self, storage: ISagaStorage) -> None:
        self._marked(storage, 3)
        self.pass_time(storage, self.a_while * 1.5)
        for _ in range(3):
            self.free(storage)

        assert len(self.claim(storage, limit=4, messages_waiting=3).claims) == 1

    @KINDS
    def test_when_messages_are_missing_the_oldest_marks_are_freed(self, storage: ISagaStorage, pending: bool) -> None:
        oldest, older, newest = self._marked(storage, 3, pending=pending)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage, pending=pending, messages_waiting=1) == ClaimResult(missing=2)

        owners = [storage.load(saga_id).lease_owner for saga_id in (oldest, older, newest)]
        assert owners == [None, None, QUEUE]

    def test_a_freed_saga_comes_back_after_a_moment_and_not_before(self, storage: ISagaStorage) -> None:
        (saga_id,) = self._marked(storage, 1)
        self.pass_time(storage, self.a_while * 1.5)
        assert self.claim(storage).missing == 1

        assert self.claim(storage) == ClaimResult()
        assert storage.get_sagas_for_recovery(limit=10) == []
        self.pass_time(storage, self.a_moment)
        assert self.claim(storage).claims == (Claim(saga_id, 1),)

    def test_a_freed_saga_counts_no_failed_attempt(self, storage: ISagaStorage) -> None:
        (saga_id,) = self._marked(storage, 1)
        self.pass_time(storage, self.a_while * 1.5)
        self.claim(storage)
        self.pass_time(storage, self.a_moment)

        self.claim(storage)

        saga = storage.load(saga_id)
        assert (saga.recovery_attempts, saga.interrupted) == (0, False)

    def test_a_message_thought_missing_still_takes_its_saga(self, storage: ISagaStorage) -> None:
        # It was in a worker's hands already, and neither in the broker nor in the database yet.
        (saga_id,) = self._marked(storage, 1)
        self.pass_time(storage, self.a_while * 1.5)
        assert self.claim(storage).missing == 1

        assert self.taken(self.take(storage, saga_id, version=1)).hold.version == 2

    def test_a_mark_that_is_not_due_misses_no_message(self, storage: ISagaStorage) -> None:
        self._marked(storage, 2)
        self.pass_time(storage, self.a_while / 2)

        assert self.claim(storage, messages_waiting=0) == ClaimResult()

    def test_no_more_marks_are_freed_at_once_than_the_limit(self, storage: ISagaStorage) -> None:
        self._marked(storage, 3)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage, limit=2).missing == 2

    @pytest.mark.parametrize("number", [32_000, 2_000_000_000])
    def test_limits_and_queues_may_be_long(self, storage: ISagaStorage, number: int) -> None:
        (saga_id,) = self._marked(storage, 1)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage, limit=number, messages_waiting=number) == ClaimResult()
        assert storage.load(saga_id).lease_owner == QUEUE

    def test_missing_messages_of_one_kind_free_no_mark_of_the_other(self, storage: ISagaStorage) -> None:
        (pending,) = self._marked(storage, 1, pending=True)
        self._marked(storage, 1)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage, pending=False).missing == 1

        assert storage.load(pending).lease_owner == QUEUE

    @KINDS
    def test_an_unclaimed_saga_is_due_at_once(self, storage: ISagaStorage, pending: bool) -> None:
        self.start(storage)
        self.free(storage)
        claims = self.claim(storage, pending=pending).claims

        storage.unclaim(claims)

        assert storage.load(claims[0].saga_id).lease_owner is None
        assert self.claim(storage, pending=pending).claims == claims

    def test_only_the_claims_that_are_named_are_freed(self, storage: ISagaStorage) -> None:
        for _ in range(3):
            self.free(storage)
        claims = self.claim(storage).claims

        storage.unclaim(claims[1:])

        assert set(self.claim(storage).claims) == set(claims[1:])

    def test_unclaiming_leaves_a_saga_alone_that_was_taken_meanwhile(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        claims = self.claim(storage).claims
        hold = self.taken(self.take(storage, saga_id)).hold

        storage.unclaim(claims)

        storage.renew(hold, self.a_while)

    def test_unclaiming_leaves_a_saga_alone_that_was_queued_anew_meanwhile(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        claims = self.claim(storage).claims
        hold = self.taken(self.take(storage, saga_id)).hold
        storage.release(hold, Release(status=SagaStatus.RUNNING, to_queue=True, after_seconds=self.a_while))

        storage.unclaim(claims)

        assert storage.load(saga_id).lease_owner == QUEUE

    def test_unclaiming_leaves_a_saga_alone_that_backs_off(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=SagaStatus.FAILED, after_seconds=self.a_while))

        storage.unclaim([Claim(hold.saga_id, hold.version)])

        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.WAITING

    def test_nothing_to_unclaim_is_fine(self, storage: ISagaStorage) -> None:
        storage.unclaim([])

    def test_sagas_that_never_ran_are_claimed_by_id_for_a_message_each(self, storage: ISagaStorage) -> None:
        one, two, other = (self.start(storage) for _ in range(3))

        claims = storage.claim_by_id([one, two], mark_seconds=self.a_while)

        assert sorted(claims, key=str) == sorted([Claim(one, 0, pending=True), Claim(two, 0, pending=True)], key=str)
        assert [storage.load(saga_id).lease_owner for saga_id in (one, two, other)] == [QUEUE, QUEUE, None]
        assert storage.claim_by_id([one, two], mark_seconds=self.a_while) == []
        assert self.claim(storage, pending=True).claims == (Claim(other, 0, pending=True),)
        self.taken(self.take(storage, one, version=0))

    def test_what_has_begun_or_is_unknown_is_not_claimed_by_id(self, storage: ISagaStorage) -> None:
        ids = [self.free(storage), self.run(storage).saga_id, self.finish(storage), self.die(storage), new_saga_id()]

        assert storage.claim_by_id(ids, mark_seconds=self.a_while) == []
        assert storage.claim_by_id([], mark_seconds=self.a_while) == []

    def test_of_many_claims_by_id_at_once_one_gets_the_saga(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        claimed = all_at_once(lambda _: storage.claim_by_id([saga_id], mark_seconds=self.a_while))

        assert sum(map(len, claimed)) == 1

    def _marked(self, storage: ISagaStorage, count: int, *, pending: bool = False) -> list[UUID]:
        """Sagas that were claimed one after the other, the oldest mark first."""
        sagas = []
        for _ in range(count):
            sagas.append(self.start(storage) if pending else self.free(storage))
            self.claim(storage, pending=pending)
            self.pass_time(storage, 0.01)
        return sagas
