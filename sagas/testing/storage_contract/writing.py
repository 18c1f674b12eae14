"""The writes of a holder: checkpoints, giving back, and renewals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.base import Claim, Hold, ISagaStorage, LogEntry, Refusal, Release, completed, failed
from sagas.testing.storage_contract.fencing import DONE, GIVE_UP, RETRY, RUNNING, WRITES, Write
from sagas.testing.storage_contract.foundation import MAXIMUM, WRITTEN, Foundation, ids


class CheckpointContract(Foundation):
    """`checkpoint`: how an action ended, and everything that follows from it."""

    def test_a_failed_action_leaves_a_row_with_all_that_is_known(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, owner="worker-7")

        storage.checkpoint(hold, RETRY, status=RUNNING)

        self._is_row(storage, hold, RETRY)

    def test_a_completed_action_leaves_a_row_without_an_error(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, owner="worker-7")
        entry = completed("reserve", Action.COMPENSATE, attempt=4)

        storage.checkpoint(hold, entry, status=SagaStatus.COMPENSATING)

        self._is_row(storage, hold, entry)

    @pytest.mark.parametrize(
        ("entry", "status", "release"),
        [(DONE, SagaStatus.COMPLETED, None), (GIVE_UP, SagaStatus.FAILED, Release(status=SagaStatus.FAILED))],
        ids=["the last action", "giving back"],
    )
    def test_what_ends_a_hold_leaves_its_row_too(
        self, storage: ISagaStorage, entry: LogEntry, status: SagaStatus, release: Release | None
    ) -> None:
        hold = self.recover(storage, owner="worker-7")

        storage.checkpoint(hold, entry, status=status, release=release)

        self._is_row(storage, hold, entry)

    def test_the_status_and_the_context_are_stored(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, DONE, status=SagaStatus.COMPENSATING, context='{"to": "Zoë"}')

        saga = storage.load(hold.saga_id)
        assert saga.status is SagaStatus.COMPENSATING
        assert json.loads(saga.context) == {"to": "Zoë"}

    @pytest.mark.parametrize("context", WRITTEN)
    @pytest.mark.parametrize(
        ("entry", "status", "release"),
        [(DONE, RUNNING, None), (DONE, SagaStatus.COMPLETED, None), (RETRY, RUNNING, Release(status=RUNNING))],
        ids=["a step", "the last", "a durable wait"],
    )
    def test_a_changed_context_is_kept_as_it_was_written(
        self, storage: ISagaStorage, entry: LogEntry, status: SagaStatus, release: Release | None, context: str
    ) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, entry, status=status, context=context, release=release)

        assert storage.load(hold.saga_id).context == context

    @pytest.mark.parametrize("status", [RUNNING, SagaStatus.COMPLETED])
    def test_what_a_completed_action_tells_is_kept(self, storage: ISagaStorage, status: SagaStatus) -> None:
        hold = self.recover(storage, spent=3)
        told = replace(DONE, message="seen to by ann", error_type="None", traceback="line 1")

        storage.checkpoint(hold, told, status=status)

        saga = storage.load(hold.saga_id)
        self._is_row(storage, hold, told)
        assert (saga.recovery_attempts, saga.status) == (0, status)

    @pytest.mark.parametrize(
        "write",
        [WRITES["a failed action"], WRITES["the last action"], WRITES["an end"], WRITES["a durable wait"]],
        ids=["a failed action", "the last action", "an end", "a durable wait"],
    )
    def test_no_context_leaves_the_one_that_stands(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        storage.checkpoint(hold, DONE, status=RUNNING, context='{"n": 1}')

        write(storage, hold)

        assert json.loads(storage.load(hold.saga_id).context) == {"n": 1}

    def test_the_last_checkpoint_stores_its_context(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, DONE, status=SagaStatus.COMPLETED, context='{"n": 2}')

        assert json.loads(storage.load(hold.saga_id).context) == {"n": 2}

    def test_a_completed_action_resets_the_attempts(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=3)

        storage.checkpoint(hold, DONE, status=RUNNING)

        assert storage.load(hold.saga_id).recovery_attempts == 0

    def test_a_completed_action_that_gives_back_resets_the_attempts_too(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=3)

        storage.checkpoint(hold, DONE, status=RUNNING, release=Release(status=RUNNING))

        assert storage.load(hold.saga_id).recovery_attempts == 0

    def test_a_failed_action_keeps_the_attempts(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=3)

        storage.checkpoint(hold, RETRY, status=RUNNING)

        assert storage.load(hold.saga_id).recovery_attempts == 3

    def test_a_failed_action_is_told_as_the_last_error(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, RETRY, status=RUNNING)
        storage.checkpoint(hold, DONE, status=RUNNING)

        last_error = storage.load(hold.saga_id).last_error or ""
        assert "charge" in last_error
        assert "Timeout" in last_error

    def test_a_checkpoint_without_an_entry_can_do_nothing_but_end_a_saga(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        before = storage.load(hold.saga_id)

        for status, release in [
            (SagaStatus.RUNNING, None),
            (SagaStatus.RUNNING, Release(status=SagaStatus.RUNNING)),
            (SagaStatus.COMPLETED, Release(status=SagaStatus.COMPLETED)),
        ]:
            with pytest.raises(ValueError, match="a checkpoint without an entry ends a saga"):
                storage.checkpoint(hold, None, status=status, release=release)

        assert storage.load(hold.saga_id) == before

    def test_a_checkpoint_does_not_end_or_extend_the_lease(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        before = storage.load(hold.saga_id)
        self.pass_time(storage, self.a_while / 2)

        storage.checkpoint(hold, DONE, status=RUNNING)

        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.HELD
        self.pass_time(storage, self.a_while)
        assert self.taken(self.take(storage, hold.saga_id)).hold.version == before.version + 1

    def test_a_checkpoint_updates_the_saga(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        before = storage.load(hold.saga_id)
        self.pass_time(storage, 0.01)

        storage.checkpoint(hold, DONE, status=RUNNING)

        assert storage.load(hold.saga_id).updated_at > before.updated_at

    @pytest.mark.parametrize("entry", [DONE, None], ids=["with the last action", "with nothing left to do"])
    @pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
    def test_a_finished_status_ends_the_saga(
        self, storage: ISagaStorage, status: SagaStatus, entry: LogEntry | None
    ) -> None:
        hold = self.recover(storage, spent=2)

        storage.checkpoint(hold, entry, status=status)

        saga = storage.load(hold.saga_id)
        assert (saga.status, saga.lease_owner, saga.available_at) == (status, None, None)
        assert (saga.recovery_attempts, saga.interrupted, saga.dead) == (0, False, False)
        assert saga.finished_at is not None
        assert len(saga.log) == (0 if entry is None else 1)

    def test_completion_forgets_the_last_error_and_compensation_keeps_it(self, storage: ISagaStorage) -> None:
        good, bad = self.run(storage), self.run(storage)
        for hold, status in ((good, SagaStatus.COMPLETED), (bad, SagaStatus.COMPENSATED)):
            storage.checkpoint(hold, RETRY, status=RUNNING)
            storage.checkpoint(hold, DONE, status=status)

        assert storage.load(good.saga_id).last_error is None
        assert "charge" in (storage.load(bad.saga_id).last_error or "")

    def test_the_very_failure_that_ends_a_saga_is_kept_as_its_last_error(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, failed("reserve", Action.ACT, Verdict.TURN_BACK), status=SagaStatus.COMPENSATED)

        assert "reserve" in (storage.load(hold.saga_id).last_error or "")

    def test_an_interruption_is_forgotten_at_the_next_checkpoint(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=RUNNING, interrupted=True))
        taken = self.taken(self.take(storage, hold.saga_id))
        assert taken.record.interrupted

        storage.checkpoint(taken.hold, RETRY, status=RUNNING)

        assert not storage.load(hold.saga_id).interrupted

    def _is_row(self, storage: ISagaStorage, hold: Hold, entry: LogEntry) -> None:
        (row,) = storage.load(hold.saga_id).log
        assert row.created_at is not None
        assert row.created_at.utcoffset() is not None
        assert row == replace(entry, version=hold.version, worker=hold.owner, id=row.id, created_at=row.created_at)


class GivingBackContract(Foundation):
    """`release`, alone and in one write with a checkpoint."""

    @pytest.mark.parametrize("status", [RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED])
    def test_a_saga_given_back_is_free_at_once(self, storage: ISagaStorage, status: SagaStatus) -> None:
        hold = self.run(storage)

        storage.release(hold, Release(status=status))

        saga = storage.load(hold.saga_id)
        assert (saga.status, saga.lease_owner, saga.version) == (status, None, 1)
        assert storage.get_sagas_for_recovery(limit=10) == [hold.saga_id]

    def test_a_saga_given_back_before_it_began_is_pending_again(self, storage: ISagaStorage) -> None:
        hold = self.taken(self.take(storage, self.start(storage))).hold

        storage.release(hold, Release(status=SagaStatus.PENDING))

        assert self.claim(storage, pending=True).claims == (Claim(hold.saga_id, 1, pending=True),)

    def test_a_saga_given_back_for_later_waits_so_long(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.release(hold, Release(status=RUNNING, after_seconds=self.a_while))

        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.WAITING
        self.pass_time(storage, self.a_while * 1.5)
        self.taken(self.take(storage, hold.saga_id))

    def test_a_saga_handed_over_is_marked_for_its_message(self, storage: ISagaStorage) -> None:
        hold = self.in_queue(storage)

        assert storage.load(hold.saga_id).lease_owner == "queue"
        assert self.claim(storage).claims == ()
        self.taken(self.take(storage, hold.saga_id, version=hold.version))

    def test_a_failed_attempt_is_counted(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=1)

        storage.release(hold, self._failed_attempt("disk full"))

        saga = storage.load(hold.saga_id)
        assert (saga.recovery_attempts, saga.status, saga.last_error) == (2, SagaStatus.FAILED, "disk full")
        assert not saga.dead

    def test_no_attempt_is_counted_otherwise(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=1)

        storage.release(hold, Release(status=SagaStatus.FAILED))

        assert storage.load(hold.saga_id).recovery_attempts == 1

    def test_the_failed_attempt_that_reaches_the_maximum_makes_the_saga_dead(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)

        storage.release(hold, self._failed_attempt("disk full"))

        saga = storage.load(hold.saga_id)
        assert (saga.dead, saga.recovery_attempts, saga.lease_owner) == (True, MAXIMUM, None)

    def test_a_dead_saga_is_not_put_into_the_queue(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)

        storage.release(hold, replace(self._failed_attempt("disk full"), to_queue=True))

        saga = storage.load(hold.saga_id)
        assert (saga.dead, saga.lease_owner) == (True, None)

    def test_reaching_the_maximum_without_failing_now_kills_nothing(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        for _ in range(MAXIMUM):
            storage.increment_recovery_attempts(hold.saga_id)

        storage.release(hold, Release(status=RUNNING, max_recovery_attempts=MAXIMUM))

        assert storage.load(hold.saga_id).available_at is not None

    def test_no_reason_leaves_the_one_that_stands(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        storage.release(hold, self._failed_attempt("disk full"))
        again = self.taken(self.take(storage, hold.saga_id, by_hand=True)).hold

        storage.release(again, Release(status=RUNNING))

        assert storage.load(hold.saga_id).last_error == "disk full"

    def test_an_interruption_sticks_until_the_next_checkpoint(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=RUNNING, interrupted=True))

        for _ in range(2):
            taken = self.taken(self.take(storage, hold.saga_id))
            assert taken.record.interrupted
            storage.release(taken.hold, Release(status=RUNNING))

        assert storage.load(hold.saga_id).interrupted

    def test_giving_back_updates_the_saga(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        before = storage.load(hold.saga_id)
        self.pass_time(storage, 0.01)

        storage.release(hold, Release(status=RUNNING))

        assert storage.load(hold.saga_id).updated_at > before.updated_at

    # -- in one write with a checkpoint -----------------------------------------------------------------------

    def test_a_durable_wait_is_one_write_with_its_checkpoint(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=2)

        storage.checkpoint(hold, RETRY, status=RUNNING, release=Release(status=RUNNING, after_seconds=self.a_while))

        saga = storage.load(hold.saga_id)
        assert (saga.status, saga.lease_owner, saga.recovery_attempts) == (RUNNING, None, 2)
        assert [entry.step for entry in saga.log] == ["charge"]
        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.WAITING
        self.pass_time(storage, self.a_while * 1.5)
        assert ids(self.claim(storage).claims) == [hold.saga_id]

    def test_a_failed_attempt_is_one_write_with_its_checkpoint(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=2)

        storage.checkpoint(hold, GIVE_UP, status=SagaStatus.FAILED, release=self._failed_attempt())

        saga = storage.load(hold.saga_id)
        assert (saga.status, saga.lease_owner, saga.recovery_attempts) == (SagaStatus.FAILED, None, 3)
        assert "reserve" in (saga.last_error or "")
        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.WAITING

    def test_the_last_failed_attempt_with_its_checkpoint_makes_the_saga_dead(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)

        storage.checkpoint(hold, GIVE_UP, status=SagaStatus.FAILED, release=self._failed_attempt())

        saga = storage.load(hold.saga_id)
        assert (saga.dead, saga.recovery_attempts, len(saga.log)) == (True, MAXIMUM, 1)

    def test_giving_back_with_a_checkpoint_stores_its_context(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, DONE, status=RUNNING, context='{"n": 3}', release=Release(status=RUNNING))

        assert json.loads(storage.load(hold.saga_id).context) == {"n": 3}

    def test_the_reason_for_giving_back_outweighs_that_of_the_action(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, GIVE_UP, status=SagaStatus.FAILED, release=self._failed_attempt("disk full"))

        assert storage.load(hold.saga_id).last_error == "disk full"

    def test_giving_back_with_a_checkpoint_forgets_an_earlier_interruption_only(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=RUNNING, interrupted=True))
        for interrupted in (False, True):
            hold = self.taken(self.take(storage, hold.saga_id)).hold
            release = Release(status=RUNNING, interrupted=interrupted)
            storage.checkpoint(hold, RETRY, status=RUNNING, release=release)
            assert storage.load(hold.saga_id).interrupted is interrupted

    def _failed_attempt(self, last_error: str | None = None) -> Release:
        return Release(
            status=SagaStatus.FAILED,
            failed_attempt=True,
            max_recovery_attempts=MAXIMUM,
            after_seconds=self.a_while,
            last_error=last_error,
        )


class RenewingContract(Foundation):
    """`renew`: a step may take hours."""

    def test_a_renewed_lease_lasts_from_its_renewal(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 0.5)

        storage.renew(hold, self.a_while)

        self.pass_time(storage, self.a_while * 0.75)
        assert self.refused(self.take(storage, hold.saga_id)).why is Refusal.HELD
        self.pass_time(storage, self.a_while * 0.5)
        self.taken(self.take(storage, hold.saga_id))

    def test_a_renewal_marks_the_saga_as_just_updated(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        storage.renew(hold, 0.0)

        assert storage.get_sagas_for_recovery(limit=10, stale_after_seconds=self.a_while) == []
        assert storage.get_sagas_for_recovery(limit=10) == [hold.saga_id]

    def test_a_renewal_changes_nothing_else(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=2)
        before = storage.load(hold.saga_id)

        storage.renew(hold, self.a_while * 2)

        after = storage.load(hold.saga_id)
        assert replace(after, available_at=None, updated_at=before.updated_at) == replace(before, available_at=None)
