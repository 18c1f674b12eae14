"""Contract tests: a saga has one holder at a time, and the loss of a holder counts as the contract says."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from uuid import UUID

import pytest

from sagas.errors import LeaseLost
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.answers import Acquired, NotAcquired, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease, LeaseRequest, shared_owner
from sagas.storage.records import LogEntry, SagaRecord, SagaState, completed, failed
from sagas.storage.transitions import FailedAttempt, GaveBack, Progressed
from sagas.testing.storage_contract.base import (
    COMPENSATING,
    DONE,
    FAILED,
    MAXIMUM,
    RUNNING,
    THREADS,
    ContractBase,
    all_at_once,
    failed_attempt,
    keys,
)

BY_HAND = pytest.mark.parametrize("by_hand", [False, True], ids=["by itself", "by hand"])


class AcquiringContract(ContractBase):
    """`acquire`: who acquires a saga, and the lease and record that are returned."""

    def test_a_ready_saga_is_acquired(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        request = LeaseRequest(owner="worker-2", seconds=self.a_while)

        acquired = self.acquired(storage.acquire(saga_id, request, max_recovery_attempts=MAXIMUM))

        assert acquired.lease == Lease(saga_id, 2, "worker-2", request.token)
        saga = storage.load(saga_id)
        assert (saga.state, saga.lease_owner, saga.lease_token) == (SagaState.RUNNING, "worker-2", request.token)

    def test_the_record_is_as_it_stands_under_the_lease(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.apply(lease, Progressed(events=(DONE,), status=RUNNING, context='{"n": 1}', in_flight=("charge",)))
        storage.apply(lease, GaveBack(status=RUNNING))

        record = self.acquired(self.acquire(storage, lease.saga_id)).record

        assert record == storage.load(lease.saga_id)
        assert ([entry.step for entry in record.log], record.in_flight) == (["reserve"], None)

    def test_every_acquire_increments_the_version(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        for version in (1, 2, 3):
            lease = self.acquired(self.acquire(storage, saga_id)).lease
            assert lease.version == storage.load(saga_id).version == version
            storage.apply(lease, GaveBack(status=RUNNING))

    def test_a_saga_that_never_ran_is_running_once_acquired(self, storage: ISagaStorage) -> None:
        acquired = self.acquired(self.acquire(storage, self.start(storage)))

        assert (acquired.status_before, acquired.record.status) == (SagaStatus.PENDING, RUNNING)

    @pytest.mark.parametrize("status", [FAILED, SagaStatus.PENDING])
    @pytest.mark.parametrize(
        ("entry", "goes_on"),
        [
            (failed("charge", Action.ACT, Verdict.FAIL_ATTEMPT, in_doubt=True), RUNNING),
            (failed("reserve", Action.ACT, Verdict.ABORT), COMPENSATING),
            (failed("reserve", Action.COMPENSATE, Verdict.FAIL_ATTEMPT), COMPENSATING),
        ],
        ids=["gave up", "aborted", "tried to compensate"],
    )
    def test_the_log_says_whether_a_saga_goes_on_forward_or_backward(
        self, storage: ISagaStorage, status: SagaStatus, entry: LogEntry, goes_on: SagaStatus
    ) -> None:
        lease = self.run(storage)
        storage.apply(lease, GaveBack(events=(entry,), status=status))

        acquired = self.acquired(self.acquire(storage, lease.saga_id))

        assert (acquired.status_before, acquired.record.status) == (status, goes_on)

    @pytest.mark.parametrize("status", [RUNNING, COMPENSATING])
    def test_a_saga_in_progress_keeps_its_status(self, storage: ISagaStorage, status: SagaStatus) -> None:
        acquired = self.acquired(self.acquire(storage, self.free(storage, status)))

        assert (acquired.status_before, acquired.record.status) == (status, status)

    def test_a_queued_saga_is_acquired_with_and_without_its_message(self, storage: ISagaStorage) -> None:
        by_message, by_id = self.in_queue(storage), self.in_queue(storage)

        assert self.acquired(self.acquire(storage, by_message.saga_id, version=1)).lease.version == 2
        assert self.acquired(self.acquire(storage, by_id.saga_id)).lease.version == 2

    def test_acquiring_what_was_given_back_long_ago_counts_no_crash(self, storage: ISagaStorage) -> None:
        lease, queued = self.recover(storage), self.in_queue(storage)
        storage.apply(lease, GaveBack(status=RUNNING))
        self.pass_time(storage, self.a_while * 1.5)

        for saga_id in (lease.saga_id, queued.saga_id):
            record = self.acquired(self.acquire(storage, saga_id)).record
            assert (record.recovery_attempts, record.last_error, record.log) == (0, None, ())

    def test_of_many_who_acquire_exactly_one_wins(self, storage: ISagaStorage) -> None:
        sagas = [self.free(storage) for _ in range(20)]

        def acquire_all(number: int) -> list[Acquired | NotAcquired]:
            return [self.acquire(storage, saga_id, owner=f"worker-{number}") for saga_id in sagas]

        results = all_at_once(acquire_all)

        for saga_id, rivals in zip(sagas, zip(*results, strict=True), strict=True):
            (winner,) = (result for result in rivals if isinstance(result, Acquired))
            saga = storage.load(saga_id)
            assert winner.lease == Lease(saga_id, 2, saga.lease_owner or "", saga.lease_token or saga_id)
            assert [r.why for r in rivals if isinstance(r, NotAcquired)] == [Refusal.HELD] * (THREADS - 1)


class ReclaimingContract(ContractBase):
    """`acquire` of a saga whose holder was lost."""

    def test_an_expired_lease_is_reclaimed_and_its_holder_locked_out(self, storage: ISagaStorage) -> None:
        lease = self.run(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)

        acquired = self.acquired(self.acquire(storage, lease.saga_id, owner="worker-2"))

        assert (acquired.lease.version, acquired.lease.owner) == (2, "worker-2")
        with pytest.raises(LeaseLost):
            storage.renew(lease, self.a_while)

    def test_a_lease_is_not_reclaimed_before_it_expires(self, storage: ISagaStorage) -> None:
        first, later = self.run(storage), self.recover(storage)
        self.pass_time(storage, self.a_while / 2)

        for lease in (first, later):
            self.refused(self.acquire(storage, lease.saga_id), Refusal.HELD)

    @pytest.mark.parametrize("in_flight", [None, (), ("charge",), ("charge", 'a "b" \\ é')])
    def test_the_log_says_who_was_lost_and_what_was_in_flight(
        self, storage: ISagaStorage, in_flight: tuple[str, ...] | None
    ) -> None:
        lease = self.run(storage, owner="worker-1")
        if in_flight is not None:
            storage.apply(lease, Progressed(events=(DONE,), status=RUNNING, in_flight=in_flight))
        self.pass_time(storage, self.a_while * 1.5)

        record = self.acquired(self.acquire(storage, lease.saga_id)).record

        assert record == storage.load(lease.saga_id)
        is_lost(record, lease, in_flight)

    @pytest.mark.parametrize("later", [False, True], ids=["the first holder", "a later holder"])
    def test_the_loss_of_any_but_the_first_holder_counts_an_attempt(self, storage: ISagaStorage, later: bool) -> None:
        lease = self.recover(storage) if later else self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        record = self.acquired(self.acquire(storage, lease.saga_id)).record

        assert (record.recovery_attempts, record.suspect) == (int(later), False)
        assert "worker-1" in (record.last_error or "")

    def test_crashes_without_progress_add_up(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        for crashes in range(3):
            record = self.acquired(self.acquire(storage, saga_id)).record
            assert (record.recovery_attempts, len(record.log)) == (crashes, crashes)
            self.pass_time(storage, self.a_while * 1.5)

    @BY_HAND
    def test_a_loss_that_reaches_the_maximum_makes_the_saga_dead(self, storage: ISagaStorage, by_hand: bool) -> None:
        lease = self.lose(storage, spent=MAXIMUM - 1)

        record = self.refused(self.acquire(storage, lease.saga_id, by_hand=by_hand), Refusal.DIED)

        saga = storage.load(lease.saga_id)
        assert (saga.state, saga.status, saga.recovery_attempts) == (SagaState.DEAD, FAILED, MAXIMUM)
        assert (saga.lease_owner, saga.lease_token, saga.available_at) == (None, None, None)
        is_lost(saga, lease, None)
        assert record is not None
        assert record.dead
        # A message that was sent for the saga is outdated from now on.
        self.refused(self.acquire(storage, lease.saga_id, version=lease.version), Refusal.OUTDATED)
        with pytest.raises(LeaseLost):
            storage.renew(lease, self.a_while)

    def test_of_many_who_reclaim_one_wins_and_one_loss_is_counted(self, storage: ISagaStorage) -> None:
        sagas = [self.recover(storage).saga_id for _ in range(20)]
        self.pass_time(storage, self.a_while * 1.5)

        def acquire_all(number: int) -> int:
            results = [self.acquire(storage, saga_id, owner=f"rival-{number}") for saga_id in sagas]
            return sum(isinstance(result, Acquired) for result in results)

        assert sum(all_at_once(acquire_all)) == len(sagas)
        for saga in map(storage.load, sagas):
            assert (saga.version, saga.recovery_attempts, len(saga.log)) == (3, 1, 1)

    def test_whoever_reclaims_a_saga_sees_every_row_that_was_written_before(self, storage: ISagaStorage) -> None:
        leases = [self.run(storage) for _ in range(20)]
        self.pass_time(storage, self.a_while * 1.5)

        for lease in leases:
            begun, ended = threading.Event(), threading.Event()
            written, seen = all_at_once(partial(self._write_or_reclaim, storage, lease, begun, ended), threads=2)
            assert seen == written

    def _write_or_reclaim(
        self, storage: ISagaStorage, lease: Lease, begun: threading.Event, ended: threading.Event, number: int
    ) -> int:
        """In the first thread, write until the fence refuses; in the second, reclaim. Return the number of rows."""
        if number:
            assert begun.wait(timeout=30)
            try:
                log = self.acquired(self.acquire(storage, lease.saga_id)).record.log
                return sum(entry.action is Action.ACT for entry in log)
            finally:
                ended.set()
        written = 0
        with suppress(LeaseLost):
            while not ended.is_set():
                storage.apply(lease, Progressed(events=(completed("reserve", Action.ACT),), status=RUNNING))
                written += 1
                begun.set()
        return written


class SuspectContract(ContractBase):
    """Holders that may hold several sagas: the cause of their loss is not known to be any one saga."""

    SHARED = shared_owner("worker-1")

    def test_the_loss_of_a_shared_owner_spends_no_attempt_and_makes_the_saga_suspect(
        self, storage: ISagaStorage
    ) -> None:
        acquired, claimed, reclaimed = (self.recover(storage, owner=self.SHARED) for _ in range(3))
        storage.reclaim(self.SHARED, max_recovery_attempts=MAXIMUM)
        acquired, claimed = (self.recover(storage, owner=self.SHARED) for _ in range(2))
        self.pass_time(storage, self.a_while * 1.5)
        self.acquired(self.acquire(storage, acquired.saga_id))
        self.claim(storage)

        for lease in (acquired, claimed, reclaimed):
            saga = storage.load(lease.saga_id)
            assert (saga.suspect, saga.recovery_attempts) == (True, 0)
            is_lost(saga, lease, None)

    def test_a_suspect_saga_is_refused_to_shared_owners_and_runs_alone(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage, owner=self.SHARED)

        self.refused(self.acquire(storage, lease.saga_id, owner=self.SHARED), Refusal.SUSPECT)
        (claim,) = self.claim(storage).claims
        self.refused(
            self.acquire(storage, lease.saga_id, owner=shared_owner("another"), version=claim.version),
            Refusal.SUSPECT,
        )

        record = self.acquired(self.acquire(storage, lease.saga_id, version=claim.version)).record
        assert record.suspect

    @pytest.mark.parametrize("progress", [True, False])
    def test_only_progress_ends_suspicion(self, storage: ISagaStorage, progress: bool) -> None:
        lease = self.lose(storage, owner=self.SHARED)
        alone = self.acquired(self.acquire(storage, lease.saga_id)).lease
        entry = DONE if progress else failed("charge", Action.ACT, Verdict.RETRY)

        storage.apply(alone, GaveBack(events=(entry,), status=RUNNING))

        assert storage.load(lease.saga_id).suspect is not progress
        again = self.acquire(storage, lease.saga_id, owner=self.SHARED)
        assert isinstance(again, Acquired) is progress

    def test_the_crash_of_a_suspect_saga_that_ran_alone_counts(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage, owner=self.SHARED)
        self.acquired(self.acquire(storage, lease.saga_id, owner="alone"))
        self.pass_time(storage, self.a_while * 1.5)

        record = self.acquired(self.acquire(storage, lease.saga_id)).record

        assert (record.suspect, record.recovery_attempts, len(record.log)) == (True, 1, 2)


class RefusingContract(ContractBase):
    """`acquire` of sagas that cannot be acquired now, and of those that an operator may acquire nevertheless."""

    def test_an_unknown_saga_is_not_found(self, storage: ISagaStorage) -> None:
        assert self.acquire(storage, new_saga_id()) == NotAcquired(Refusal.NOT_FOUND, None)

    @pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
    @BY_HAND
    def test_a_finished_saga_is_never_acquired(self, storage: ISagaStorage, status: SagaStatus, by_hand: bool) -> None:
        self._stays(storage, self.finish(storage, status), Refusal.FINISHED, by_hand=by_hand)

    @BY_HAND
    def test_a_saga_under_a_live_lease_is_never_acquired(self, storage: ISagaStorage, by_hand: bool) -> None:
        first, later = self.run(storage, owner="worker-2"), self.recover(storage)

        self._stays(storage, first.saga_id, Refusal.HELD, by_hand=by_hand)
        self._stays(storage, later.saga_id, Refusal.HELD, by_hand=by_hand)
        self._stays(storage, first.saga_id, Refusal.HELD, version=1)

    def test_a_message_for_an_earlier_version_is_outdated(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage)
        storage.apply(lease, GaveBack(status=RUNNING))

        self._stays(storage, lease.saga_id, Refusal.OUTDATED, version=1)
        self.acquired(self.acquire(storage, lease.saga_id, version=2))

    def test_a_saga_that_backs_off_waits_until_it_is_due(self, storage: ISagaStorage) -> None:
        saga_id, by_operator = self._backing_off(storage), self._backing_off(storage)
        self._stays(storage, saga_id, Refusal.WAITING)
        self.acquired(self.acquire(storage, by_operator, by_hand=True))

        self.pass_time(storage, self.a_while * 1.5)

        assert self.acquired(self.acquire(storage, saga_id)).record.recovery_attempts == 1

    def test_a_dead_saga_is_not_acquired(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)
        self.pass_time(storage, self.a_while * 2)

        self._stays(storage, saga_id, Refusal.DEAD)
        self._stays(storage, saga_id, Refusal.DEAD, version=storage.load(saga_id).version)

    def test_a_saga_that_died_under_a_lower_maximum_stays_dead(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage)
        storage.apply(lease, FailedAttempt(events=(), after_seconds=0, max_recovery_attempts=1))

        self._stays(storage, lease.saga_id, Refusal.DEAD)
        self._stays(storage, lease.saga_id, Refusal.DEAD, version=lease.version)

    def test_a_saga_with_too_many_attempts_is_dead_before_any_scan_saw_it(self, storage: ISagaStorage) -> None:
        self._stays(storage, self.free(storage, spent=MAXIMUM), Refusal.DEAD)

    @pytest.mark.parametrize("spent", [None, MAXIMUM, MAXIMUM + 3])
    def test_a_dead_saga_acquired_by_hand_has_one_attempt_left(self, storage: ISagaStorage, spent: int | None) -> None:
        saga_id = self.die(storage)
        if spent is not None:
            storage.set_recovery_attempts(saga_id, spent)

        acquired = self.acquired(self.acquire(storage, saga_id, by_hand=True))

        assert (acquired.status_before, acquired.record.status) == (FAILED, RUNNING)
        assert acquired.record.recovery_attempts == MAXIMUM - 1
        storage.apply(acquired.lease, failed_attempt())
        assert storage.load(saga_id).dead

    def _backing_off(self, storage: ISagaStorage) -> UUID:
        lease = self.run(storage)
        storage.apply(lease, failed_attempt(after_seconds=self.a_while))
        return lease.saga_id

    def _stays(
        self,
        storage: ISagaStorage,
        saga_id: UUID,
        why: Refusal,
        *,
        version: int | None = None,
        by_hand: bool = False,
    ) -> None:
        """Make sure that `acquire` is refused for this reason and does not change the saga."""
        before = storage.load(saga_id)
        record = self.refused(self.acquire(storage, saga_id, version=version, by_hand=by_hand), why)
        assert record is not None
        assert (record.id, record.status, record.log) == (saga_id, before.status, ())
        assert storage.load(saga_id) == before


class LostOwnerContract(ContractBase):
    """`reclaim`: sagas of an owner that is known to be lost."""

    def test_what_a_lost_owner_held_is_due_at_once(self, storage: ISagaStorage) -> None:
        first, later = self.run(storage, owner="worker-1"), self.recover(storage, owner="worker-1")
        other = self.run(storage, owner="worker-10")

        assert storage.reclaim("worker-1", max_recovery_attempts=MAXIMUM) == 2

        for lease, attempts in ((first, 0), (later, 1)):
            saga = storage.load(lease.saga_id)
            assert (saga.state, saga.version, saga.recovery_attempts) == (SagaState.READY, lease.version, attempts)
            is_lost(saga, lease, None)
        assert set(keys(self.claim(storage))) == {(first.saga_id, 1), (later.saga_id, 2)}
        storage.renew(other, self.a_while)

    def test_what_a_lost_owner_held_dies_of_its_last_attempt(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage, owner="worker-1", spent=MAXIMUM - 1)

        assert storage.reclaim("worker-1", max_recovery_attempts=MAXIMUM) == 1

        saga = storage.load(lease.saga_id)
        assert (saga.dead, saga.recovery_attempts) == (True, MAXIMUM)

    def test_an_owner_that_holds_nothing_loses_nothing(self, storage: ISagaStorage) -> None:
        lease = self.run(storage, owner="worker-1")
        storage.apply(lease, GaveBack(status=RUNNING))
        self.in_queue(storage)

        for owner in ("worker-1", "queue", "paused", ""):
            assert storage.reclaim(owner, max_recovery_attempts=MAXIMUM) == 0


def is_lost(record: SagaRecord, lease: Lease, in_flight: tuple[str, ...] | None) -> None:
    """Make sure that the last row of the log records the loss of this holder."""
    row = record.log[-1]
    assert (row.action, row.status, row.in_flight) == (Action.HOLDER, EntryStatus.LOST, in_flight)
    assert (row.version, row.worker) == (lease.version, lease.owner)
    assert row.created_at is not None
