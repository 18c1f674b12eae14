"""Taking a saga: one holder at a time, and what a seizure counts."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from uuid import UUID

import pytest

from sagas.errors import LeaseLost
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.base import (
    Hold,
    ISagaStorage,
    LogEntry,
    Refusal,
    Refused,
    Release,
    SagaFilter,
    Taken,
    completed,
    failed,
)
from sagas.testing.storage_contract.foundation import MAXIMUM, THREADS, Foundation, all_at_once

FINISHED = pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
BY_HAND = pytest.mark.parametrize("by_hand", [False, True], ids=["by itself", "by hand"])


class TakingContract(Foundation):
    """`take`: who gets a saga, and as what."""

    def test_a_free_saga_is_taken(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        taken = self.taken(self.take(storage, saga_id, owner="worker-2"))

        assert taken.hold == Hold(saga_id, 2, "worker-2")
        assert storage.load(saga_id).lease_owner == "worker-2"

    def test_the_record_is_as_it_stands_under_the_hold(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.checkpoint(hold, completed("reserve", Action.ACT), status=SagaStatus.RUNNING, context='{"n": 1}')
        storage.release(hold, Release(status=SagaStatus.RUNNING))

        taken = self.taken(self.take(storage, hold.saga_id))

        assert taken.record == storage.load(hold.saga_id)
        assert [entry.step for entry in taken.record.log] == ["reserve"]

    def test_every_taking_increments_the_version(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        for version in (1, 2, 3):
            hold = self.taken(self.take(storage, saga_id)).hold
            assert hold.version == storage.load(saga_id).version == version
            storage.release(hold, Release(status=SagaStatus.RUNNING))

    def test_a_saga_that_never_ran_is_running_once_taken(self, storage: ISagaStorage) -> None:
        taken = self.taken(self.take(storage, self.start(storage)))

        assert (taken.status_before, taken.record.status) == (SagaStatus.PENDING, SagaStatus.RUNNING)

    @pytest.mark.parametrize("status", [SagaStatus.FAILED, SagaStatus.PENDING])
    def test_a_saga_whose_log_only_goes_forward_is_running_again(
        self, storage: ISagaStorage, status: SagaStatus
    ) -> None:
        gave_up = failed("charge", Action.ACT, Verdict.GIVE_UP, in_doubt=True)
        saga_id = self._given_back(storage, status, gave_up)

        taken = self.taken(self.take(storage, saga_id))

        assert (taken.status_before, taken.record.status) == (status, SagaStatus.RUNNING)

    @pytest.mark.parametrize("status", [SagaStatus.FAILED, SagaStatus.PENDING])
    @pytest.mark.parametrize(
        "entry",
        [failed("reserve", Action.ACT, Verdict.TURN_BACK), failed("reserve", Action.COMPENSATE, Verdict.GIVE_UP)],
        ids=["turned back", "tried to compensate"],
    )
    def test_a_saga_whose_log_says_that_it_went_backward_is_compensating_again(
        self, storage: ISagaStorage, status: SagaStatus, entry: LogEntry
    ) -> None:
        saga_id = self._given_back(storage, status, entry)

        taken = self.taken(self.take(storage, saga_id))

        assert (taken.status_before, taken.record.status) == (status, SagaStatus.COMPENSATING)

    @pytest.mark.parametrize("status", [SagaStatus.RUNNING, SagaStatus.COMPENSATING])
    def test_a_saga_in_progress_keeps_its_status(self, storage: ISagaStorage, status: SagaStatus) -> None:
        taken = self.taken(self.take(storage, self.free(storage, status)))

        assert (taken.status_before, taken.record.status) == (status, status)

    def test_a_saga_in_the_queue_can_be_taken_before_its_mark_is_due(self, storage: ISagaStorage) -> None:
        by_message, by_id = self.in_queue(storage), self.in_queue(storage)

        assert self.taken(self.take(storage, by_message.saga_id, version=1)).hold.version == 2
        assert self.taken(self.take(storage, by_id.saga_id)).hold.version == 2

    def test_a_saga_in_the_queue_can_be_taken_after_its_mark_is_due(self, storage: ISagaStorage) -> None:
        queued = self.in_queue(storage)
        self.pass_time(storage, self.a_while * 1.5)

        taken = self.taken(self.take(storage, queued.saga_id, version=1))

        assert (taken.record.recovery_attempts, taken.record.interrupted) == (0, False)

    def test_taking_a_saga_again_after_it_was_given_back_counts_no_crash(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        storage.release(hold, Release(status=SagaStatus.RUNNING))
        self.pass_time(storage, self.a_while * 1.5)

        record = self.taken(self.take(storage, hold.saga_id)).record

        assert (record.recovery_attempts, record.interrupted, record.last_error) == (0, False, None)

    def test_of_many_takers_exactly_one_wins(self, storage: ISagaStorage) -> None:
        sagas = [self.free(storage) for _ in range(20)]

        def take_all(number: int) -> list[Taken | Refused]:
            return [self.take(storage, saga_id, owner=f"worker-{number}") for saga_id in sagas]

        results = all_at_once(take_all)

        for saga_id, rivals in zip(sagas, zip(*results, strict=True), strict=True):
            (winner,) = (result for result in rivals if isinstance(result, Taken))
            assert winner.hold == Hold(saga_id, 2, storage.load(saga_id).lease_owner or "nobody")
            assert [r.why for r in rivals if isinstance(r, Refused)] == [Refusal.HELD] * (THREADS - 1)

    def test_of_many_who_seize_an_expired_lease_one_wins_and_one_crash_is_counted(self, storage: ISagaStorage) -> None:
        sagas = [self.recover(storage).saga_id for _ in range(20)]
        self.pass_time(storage, self.a_while * 1.5)

        def take_all(number: int) -> int:
            results = [self.take(storage, saga_id, owner=f"rival-{number}") for saga_id in sagas]
            return sum(isinstance(result, Taken) for result in results)

        assert sum(all_at_once(take_all)) == len(sagas)
        assert {(saga.version, saga.recovery_attempts) for saga in map(storage.load, sagas)} == {(3, 1)}

    def _given_back(self, storage: ISagaStorage, status: SagaStatus, entry: LogEntry) -> UUID:
        hold = self.run(storage)
        storage.checkpoint(hold, entry, status=status, release=Release(status=status))
        return hold.saga_id


class SeizingContract(Foundation):
    """`take` of a saga whose holder fell silent."""

    def test_an_expired_lease_is_seized_and_its_holder_locked_out(self, storage: ISagaStorage) -> None:
        hold = self.run(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)

        taken = self.taken(self.take(storage, hold.saga_id, owner="worker-2"))

        assert taken.hold == Hold(hold.saga_id, 2, "worker-2")
        with pytest.raises(LeaseLost):
            storage.renew(hold, self.a_while)

    def test_a_lease_is_not_seized_before_it_expires(self, storage: ISagaStorage) -> None:
        first, later = self.run(storage), self.recover(storage)
        self.pass_time(storage, self.a_while / 2)

        for hold in (first, later):
            assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.HELD

    def test_seizing_the_first_hold_counts_no_failed_attempt(self, storage: ISagaStorage) -> None:
        hold = self.run(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)

        record = self.taken(self.take(storage, hold.saga_id)).record

        assert (record.recovery_attempts, record.interrupted) == (0, True)

    def test_seizing_any_later_hold_counts_the_crash(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)

        record = self.taken(self.take(storage, hold.saga_id)).record

        assert (record.recovery_attempts, record.interrupted) == (1, True)
        assert "worker-1" in (record.last_error or "")

    def test_crashes_without_progress_add_up(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)

        for crashes in range(3):
            taken = self.taken(self.take(storage, saga_id))
            assert taken.record.recovery_attempts == crashes
            self.pass_time(storage, self.a_while * 1.5)

    @BY_HAND
    def test_a_seizure_that_reaches_the_maximum_makes_the_saga_dead(self, storage: ISagaStorage, by_hand: bool) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)
        self.pass_time(storage, self.a_while * 1.5)

        refused = self.refused(self.take(storage, hold.saga_id, by_hand=by_hand))

        saga = storage.load(hold.saga_id)
        assert refused.why is Refusal.DIED
        assert (saga.dead, saga.status, saga.recovery_attempts) == (True, SagaStatus.FAILED, MAXIMUM)
        assert (saga.lease_owner, saga.interrupted) == (None, True)
        assert refused.record is not None
        assert refused.record.dead
        with pytest.raises(LeaseLost):
            storage.renew(hold, self.a_while)

    def test_whoever_seizes_a_saga_sees_every_checkpoint_that_came_before(self, storage: ISagaStorage) -> None:
        holds = [self.run(storage) for _ in range(20)]
        self.pass_time(storage, self.a_while * 1.5)

        for hold in holds:
            begun, ended = threading.Event(), threading.Event()
            written, seen = all_at_once(partial(self._write_or_seize, storage, hold, begun, ended), threads=2)
            assert seen == written

    def test_a_message_for_a_saga_that_died_finds_it_at_a_newer_version(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)
        self.pass_time(storage, self.a_while * 1.5)
        self.take(storage, hold.saga_id)

        assert self.refused(self.take(storage, hold.saga_id, version=hold.version)).why is Refusal.OUTDATED

    def _write_or_seize(
        self, storage: ISagaStorage, hold: Hold, begun: threading.Event, ended: threading.Event, number: int
    ) -> int:
        """As the first thread, write until locked out; as the second, seize. Return how many rows that made."""
        if number:
            assert begun.wait(timeout=30)
            try:
                return len(self.taken(self.take(storage, hold.saga_id)).record.log)
            finally:
                ended.set()
        written = 0
        with suppress(LeaseLost):
            while not ended.is_set():
                storage.checkpoint(hold, completed("reserve", Action.ACT), status=SagaStatus.RUNNING)
                written += 1
                begun.set()
        return written


class RefusingContract(Foundation):
    """`take` of what cannot be taken now, and what an operator may take all the same."""

    def test_an_unknown_saga_is_not_found(self, storage: ISagaStorage) -> None:
        assert self.take(storage, new_saga_id()) == Refused(Refusal.NOT_FOUND, None)

    @FINISHED
    @BY_HAND
    def test_a_finished_saga_is_never_taken(self, storage: ISagaStorage, status: SagaStatus, by_hand: bool) -> None:
        saga_id = self.finish(storage, status)

        self._stays(storage, saga_id, Refusal.FINISHED, by_hand=by_hand)

    @BY_HAND
    def test_a_saga_under_a_live_lease_is_never_taken(self, storage: ISagaStorage, by_hand: bool) -> None:
        first, later = self.run(storage), self.recover(storage)

        self._stays(storage, first.saga_id, Refusal.HELD, by_hand=by_hand)
        self._stays(storage, later.saga_id, Refusal.HELD, by_hand=by_hand)

    def test_a_held_saga_is_not_even_taken_by_its_holder_again(self, storage: ISagaStorage) -> None:
        hold = self.run(storage, owner="worker-1")

        assert self.refused(self.take(storage, hold.saga_id, owner="worker-1")).why is Refusal.HELD

    def test_a_redelivered_message_does_not_take_the_saga_from_who_took_it(self, storage: ISagaStorage) -> None:
        queued = self.in_queue(storage)
        self.taken(self.take(storage, queued.saga_id, version=1))

        assert self.refused(self.take(storage, queued.saga_id, version=1)).why is Refusal.HELD

    def test_a_message_for_an_earlier_version_is_outdated(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        storage.release(hold, Release(status=SagaStatus.RUNNING))

        self._stays(storage, hold.saga_id, Refusal.OUTDATED, version=1)
        self.taken(self.take(storage, hold.saga_id, version=2))

    def test_a_saga_that_backs_off_waits(self, storage: ISagaStorage) -> None:
        saga_id = self._backing_off(storage)

        self._stays(storage, saga_id, Refusal.WAITING)

    def test_a_saga_that_backed_off_can_be_taken(self, storage: ISagaStorage) -> None:
        saga_id = self._backing_off(storage)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.taken(self.take(storage, saga_id)).record.recovery_attempts == 1

    def test_an_operator_takes_a_saga_that_backs_off(self, storage: ISagaStorage) -> None:
        saga_id = self._backing_off(storage)

        assert self.taken(self.take(storage, saga_id, by_hand=True)).record.recovery_attempts == 1

    def test_a_dead_saga_is_not_taken(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)
        self.pass_time(storage, self.a_while * 2)

        self._stays(storage, saga_id, Refusal.DEAD)
        self._stays(storage, saga_id, Refusal.DEAD, version=storage.load(saga_id).version)

    def test_a_saga_that_died_under_a_lower_maximum_stays_dead(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        storage.release(hold, Release(status=SagaStatus.FAILED, failed_attempt=True, max_recovery_attempts=1))

        self._stays(storage, hold.saga_id, Refusal.DEAD)
        self._stays(storage, hold.saga_id, Refusal.DEAD, version=hold.version)

    def test_a_saga_with_too_many_attempts_is_dead_before_any_scan_saw_it(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=MAXIMUM)

        self._stays(storage, saga_id, Refusal.DEAD)

    @pytest.mark.parametrize("spent", [MAXIMUM, MAXIMUM + 3])
    def test_a_dead_saga_taken_by_hand_has_one_attempt_left(self, storage: ISagaStorage, spent: int) -> None:
        saga_id = self.die(storage)
        storage.set_recovery_attempts(saga_id, spent)

        taken = self.taken(self.take(storage, saga_id, by_hand=True))

        assert taken.record.recovery_attempts == MAXIMUM - 1
        storage.release(taken.hold, _failed_attempt())
        assert [saga.id for saga in storage.find(SagaFilter(dead=True))] == [saga_id]

    def test_a_dead_saga_is_taken_by_hand_as_it_is(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)

        taken = self.taken(self.take(storage, saga_id, by_hand=True))

        assert (taken.status_before, taken.record.status) == (SagaStatus.FAILED, SagaStatus.RUNNING)
        assert taken.record.recovery_attempts == MAXIMUM - 1

    def _backing_off(self, storage: ISagaStorage) -> UUID:
        hold = self.run(storage)
        storage.release(hold, _failed_attempt(after_seconds=self.a_while))
        return hold.saga_id

    def _stays(
        self,
        storage: ISagaStorage,
        saga_id: UUID,
        why: Refusal,
        *,
        version: int | None = None,
        by_hand: bool = False,
    ) -> None:
        """It is refused for this reason, and nothing about it changes."""
        before = storage.load(saga_id)
        refused = self.refused(self.take(storage, saga_id, version=version, by_hand=by_hand))
        assert refused.why is why
        assert refused.record is not None
        assert (refused.record.id, refused.record.status) == (saga_id, before.status)
        assert storage.load(saga_id) == before


def _failed_attempt(*, after_seconds: float = 0.0) -> Release:
    return Release(
        status=SagaStatus.FAILED,
        failed_attempt=True,
        max_recovery_attempts=MAXIMUM,
        after_seconds=after_seconds,
    )
