"""Contract tests of a holder's writes: every transition, alone and many at once, and renewals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sagas.errors import LeaseLost
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.answers import Applied, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import LogEntry, SagaState, completed, failed, note
from sagas.storage.transitions import Ended, GaveBack, Progressed, Suspended, Transition
from sagas.testing.storage_contract.base import (
    COMPENSATING,
    DONE,
    FAILED,
    MAXIMUM,
    RUNNING,
    WRITTEN,
    ContractBase,
    all_at_once,
    failed_attempt,
    ids,
    keys,
)
from sagas.testing.storage_contract.fencing import RETRY, TRANSITIONS

_EVERY = pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS.keys())
SKIPPED = LogEntry(step="charge", action=Action.COMPENSATE, status=EntryStatus.SKIPPED, actor="ann", reason="by hand")
ABORTED = replace(failed("charge", Action.ACT, Verdict.ABORT), actor="ann", reason="fraud", message="fraud")
STOPPED = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=("a", 'b "c"'))


class ApplyingContract(ContractBase):
    """`apply`: stores how an action ended, and everything that follows."""

    @_EVERY
    def test_what_a_transition_did_is_what_the_storage_then_has(
        self, storage: ISagaStorage, transition: Transition
    ) -> None:
        lease = self.recover(storage, spent=2)

        applied = storage.apply(lease, transition)

        saga = storage.load(lease.saga_id)
        assert (applied.status, applied.state) == (saga.status, saga.state)
        assert applied.recovery_attempts == saga.recovery_attempts
        assert applied.available_at == (None if saga.state is SagaState.RUNNING else saga.available_at)
        assert applied.log == saga.log
        assert (saga.version, saga.lease_owner is None) == (lease.version, saga.state is not SagaState.RUNNING)

    @pytest.mark.parametrize(
        "entry",
        [
            RETRY,
            completed("reserve", Action.COMPENSATE, attempt=4),
            replace(DONE, message="done by ann", error_type="None", traceback="line 1"),
            note("recover", actor="ann@pc", reason="asked to"),
            SKIPPED,
            ABORTED,
            STOPPED,
            replace(failed("charge", Action.ACT, Verdict.RETRY), in_flight=("charge", "ship")),
        ],
        ids=["failed", "completed", "completed, with words", "note", "skipped", "by a person", "stopped", "in flight"],
    )
    @pytest.mark.parametrize("ends", [False, True], ids=["going on", "ending"])
    def test_a_row_of_the_log_is_kept_with_all_that_it_says(
        self, storage: ISagaStorage, entry: LogEntry, ends: bool
    ) -> None:
        lease = self.recover(storage, owner="worker-7")
        goes_on = Progressed(events=(entry,), status=RUNNING)

        storage.apply(lease, Ended(events=(entry,), status=SagaStatus.COMPENSATED) if ends else goes_on)

        (row,) = storage.load(lease.saga_id).log
        assert row.created_at is not None
        assert row.created_at.utcoffset() is not None
        assert row == replace(entry, version=lease.version, worker="worker-7", id=row.id, created_at=row.created_at)

    def test_several_rows_are_kept_in_their_order(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)

        storage.apply(lease, Progressed(events=(RETRY, DONE, SKIPPED), status=RUNNING))

        assert [entry.step for entry in storage.load(lease.saga_id).log] == ["charge", "reserve", "charge"]

    @pytest.mark.parametrize("context", WRITTEN)
    @pytest.mark.parametrize(
        "kind", ["a completed action", "a failed action", "a wait", "the last action"], ids=lambda kind: kind
    )
    def test_a_changed_context_is_kept_as_it_was_written(self, storage: ISagaStorage, kind: str, context: str) -> None:
        lease = self.run(storage)

        storage.apply(lease, replace(TRANSITIONS[kind], context=context))  # type: ignore[arg-type]

        assert storage.load(lease.saga_id).context == context

    @_EVERY
    def test_no_context_leaves_the_one_that_is_stored(self, storage: ISagaStorage, transition: Transition) -> None:
        lease = self.run(storage)
        storage.apply(lease, Progressed(events=(DONE,), status=RUNNING, context='{"before": 1}'))

        storage.apply(lease, replace(transition, context=None) if hasattr(transition, "context") else transition)  # type: ignore[arg-type]

        assert json.loads(storage.load(lease.saga_id).context) == {"before": 1}

    def test_what_is_in_flight_is_stored_until_the_lease_ends(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        seen = []
        for in_flight in (("charge",), ("a", 'b "c" \\ é'), None, ()):
            storage.apply(lease, Progressed(events=(DONE,), status=RUNNING, in_flight=in_flight))
            seen.append(storage.load(lease.saga_id).in_flight)
        storage.apply(lease, Progressed(events=(DONE,), status=RUNNING, in_flight=("charge",)))
        storage.apply(lease, GaveBack(status=RUNNING))

        assert seen == [("charge",), ("a", 'b "c" \\ é'), ("a", 'b "c" \\ é'), ()]
        assert storage.load(lease.saga_id).in_flight is None

    @pytest.mark.parametrize(("entry", "left"), [(DONE, 0), (SKIPPED, 0), (RETRY, 3)])
    @pytest.mark.parametrize("gives_back", [False, True], ids=["going on", "giving back"])
    def test_progress_sets_the_attempts_to_0_and_nothing_else_does(
        self, storage: ISagaStorage, entry: LogEntry, left: int, gives_back: bool
    ) -> None:
        lease = self.recover(storage, spent=3)
        transition: Transition = Progressed(events=(entry,), status=RUNNING)

        storage.apply(lease, GaveBack(events=(entry,), status=RUNNING) if gives_back else transition)

        assert storage.load(lease.saga_id).recovery_attempts == left

    def test_an_operator_who_gives_a_saga_back_gives_it_all_attempts(self, storage: ISagaStorage) -> None:
        entry = note("retry", actor="ann", reason="why")
        left = []
        for transition in (
            Progressed(events=(entry,), status=RUNNING),
            GaveBack(events=(entry,), status=RUNNING),
        ):
            lease = self.recover(storage, spent=3)
            storage.apply(lease, transition)
            left.append(storage.load(lease.saga_id).recovery_attempts)

        assert left == [3, 0]

    def test_a_failed_action_is_kept_as_the_last_error(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)

        storage.apply(lease, Progressed(events=(RETRY,), status=RUNNING))
        storage.apply(lease, Progressed(events=(DONE,), status=RUNNING))

        last_error = storage.load(lease.saga_id).last_error or ""
        assert "charge" in last_error
        assert "Timeout" in last_error

    def test_progress_does_not_end_or_extend_the_lease(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        before = storage.load(lease.saga_id)
        self.pass_time(storage, self.a_while / 2)

        storage.apply(lease, Progressed(events=(DONE,), status=RUNNING))

        assert storage.load(lease.saga_id).updated_at > before.updated_at
        self.refused(self.acquire(storage, lease.saga_id), Refusal.HELD)
        self.pass_time(storage, self.a_while)
        self.acquired(self.acquire(storage, lease.saga_id))

    def test_a_note_adds_a_row_and_changes_nothing_else(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage, spent=2)
        lease = self.acquired(self.acquire(storage, lease.saga_id, by_hand=True)).lease
        before = storage.load(lease.saga_id)

        storage.apply(lease, Progressed(events=(note("recover", actor="ann", reason="why"),), status=before.status))

        after = storage.load(lease.saga_id)
        assert replace(after, log=after.log[:-1], updated_at=before.updated_at) == before

    def test_what_no_transition_can_mean_is_refused(self) -> None:
        for refused in (
            lambda: Progressed(events=(), status=RUNNING),
            lambda: Progressed(events=(DONE,), status=SagaStatus.COMPLETED),
            lambda: Suspended(events=(), status=FAILED, after_seconds=0),
            lambda: GaveBack(status=SagaStatus.COMPENSATED),
            lambda: Ended(events=(), status=RUNNING),
        ):
            with pytest.raises(ValueError, match=r"give|choose|end it"):
                refused()

    # -- ending -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("events", [(DONE,), ()], ids=["with the last action", "with nothing left to do"])
    @pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
    def test_an_end_finishes_the_saga(
        self, storage: ISagaStorage, status: SagaStatus, events: tuple[LogEntry, ...]
    ) -> None:
        lease = self.recover(storage, spent=2)

        storage.apply(lease, Ended(events=events, status=status, context='{"n": 2}'))

        saga = storage.load(lease.saga_id)
        assert (saga.status, saga.state, saga.available_at) == (status, SagaState.FINISHED, None)
        assert (saga.lease_owner, saga.lease_token, saga.in_flight) == (None, None, None)
        assert (saga.recovery_attempts, saga.suspect, len(saga.log)) == (0, False, len(events))
        assert (saga.finished_at is None, json.loads(saga.context)) == (False, {"n": 2})

    def test_completion_forgets_the_last_error_and_compensation_keeps_it(self, storage: ISagaStorage) -> None:
        good, bad, last = self.run(storage), self.run(storage), self.run(storage)
        for lease, status in ((good, SagaStatus.COMPLETED), (bad, SagaStatus.COMPENSATED)):
            storage.apply(lease, Progressed(events=(RETRY,), status=RUNNING))
            storage.apply(lease, Ended(events=(DONE,), status=status))
        storage.apply(last, Ended(events=(ABORTED,), status=SagaStatus.COMPENSATED))

        assert storage.load(good.saga_id).last_error is None
        for lease in (bad, last):
            assert "charge" in (storage.load(lease.saga_id).last_error or "")

    # -- giving back ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", [RUNNING, COMPENSATING, FAILED])
    def test_a_saga_given_back_is_due_at_once(self, storage: ISagaStorage, status: SagaStatus) -> None:
        lease = self.recover(storage, spent=1)

        storage.apply(lease, GaveBack(status=status))

        saga = storage.load(lease.saga_id)
        assert (saga.status, saga.state, saga.recovery_attempts) == (status, SagaState.READY, 1)
        assert keys(self.claim(storage)) == [(lease.saga_id, 2)]

    def test_a_saga_given_back_before_it_began_is_pending_again(self, storage: ISagaStorage) -> None:
        lease = self.acquired(self.acquire(storage, self.start(storage))).lease

        storage.apply(lease, GaveBack(status=SagaStatus.PENDING))

        assert keys(self.claim(storage, pending=True)) == [(lease.saga_id, 1)]

    def test_a_saga_that_is_put_down_is_due_after_so_long(self, storage: ISagaStorage) -> None:
        given_back, suspended = self.recover(storage, spent=2), self.recover(storage, spent=2)

        storage.apply(given_back, GaveBack(status=RUNNING, after_seconds=self.a_while))
        storage.apply(suspended, Suspended(events=(RETRY,), status=RUNNING, after_seconds=self.a_while))

        for lease in (given_back, suspended):
            self.refused(self.acquire(storage, lease.saga_id), Refusal.WAITING)
            assert storage.load(lease.saga_id).recovery_attempts == 2
        self.pass_time(storage, self.a_while * 1.5)
        assert set(ids(self.claim(storage))) == {given_back.saga_id, suspended.saga_id}

    def test_a_saga_handed_over_is_queued_for_its_message(self, storage: ISagaStorage) -> None:
        lease = self.in_queue(storage)

        assert storage.load(lease.saga_id).state is SagaState.QUEUED
        assert ids(self.claim(storage)) == []
        self.acquired(self.acquire(storage, lease.saga_id, version=lease.version))

    @pytest.mark.parametrize("events", [(), (RETRY,)], ids=["alone", "with an action"])
    def test_a_failed_attempt_is_counted(self, storage: ISagaStorage, events: tuple[LogEntry, ...]) -> None:
        lease = self.recover(storage, spent=1)

        storage.apply(lease, failed_attempt(*events, after_seconds=self.a_while, last_error="disk full"))

        saga = storage.load(lease.saga_id)
        assert (saga.recovery_attempts, saga.status, saga.state) == (2, FAILED, SagaState.READY)
        # The reason for giving back replaces the reason of the action.
        assert (saga.last_error, len(saga.log)) == ("disk full", len(events))
        self.refused(self.acquire(storage, lease.saga_id), Refusal.WAITING)

    @pytest.mark.parametrize("events", [(), (RETRY,)], ids=["alone", "with an action"])
    def test_the_failed_attempt_that_reaches_the_maximum_makes_the_saga_dead(
        self, storage: ISagaStorage, events: tuple[LogEntry, ...]
    ) -> None:
        lease = self.recover(storage, spent=MAXIMUM - 1)

        applied = storage.apply(lease, failed_attempt(*events, after_seconds=self.a_while))

        saga = storage.load(lease.saga_id)
        assert (saga.state, saga.recovery_attempts, saga.available_at) == (SagaState.DEAD, MAXIMUM, None)
        assert (saga.lease_owner, applied.state) == (None, SagaState.DEAD)

    def test_reaching_the_maximum_without_failing_now_kills_nothing(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage)
        for _ in range(MAXIMUM):
            storage.increment_recovery_attempts(lease.saga_id)

        storage.apply(lease, GaveBack(status=RUNNING))

        assert storage.load(lease.saga_id).state is SagaState.READY

    def test_no_reason_leaves_the_one_that_is_stored(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage)
        storage.apply(lease, GaveBack(status=FAILED, last_error="disk full"))

        storage.apply(self.acquired(self.acquire(storage, lease.saga_id)).lease, GaveBack(status=RUNNING))

        assert storage.load(lease.saga_id).last_error == "disk full"


class ApplyingManyContract(ContractBase):
    """`apply_many`: transitions of different sagas, each with its own fence."""

    def test_every_transition_does_what_it_does_alone(self, storage: ISagaStorage) -> None:
        alone = [self.recover(storage, spent=2) for _ in TRANSITIONS]
        together = [self.recover(storage, spent=2) for _ in TRANSITIONS]

        for lease, transition in zip(alone, TRANSITIONS.values(), strict=True):
            storage.apply(lease, transition)
        results = storage.apply_many(list(zip(together, TRANSITIONS.values(), strict=True)))

        for one, other, result in zip(alone, together, results, strict=True):
            expected, saga = storage.load(one.saga_id), storage.load(other.saga_id)
            assert isinstance(result, Applied)
            assert (result.status, result.state, result.log) == (saga.status, saga.state, saga.log)
            for field in ("status", "state", "context", "recovery_attempts", "lease_owner", "in_flight", "last_error"):
                assert getattr(saga, field) == getattr(expected, field)
            assert [(entry.step, entry.status) for entry in saga.log] == [
                (entry.step, entry.status) for entry in expected.log
            ]

    def test_a_lease_that_was_lost_is_said_at_its_place_and_stops_no_other(self, storage: ISagaStorage) -> None:
        leases = [self.run(storage) for _ in range(3)]
        leases[1] = replace(leases[1], version=7)

        first, lost, last = storage.apply_many([(lease, TRANSITIONS["a completed action"]) for lease in leases])

        assert not isinstance(first, LeaseLost | type(None))
        assert isinstance(lost, LeaseLost)
        assert str(leases[1].saga_id) in str(lost)
        assert not isinstance(last, LeaseLost)
        assert [len(storage.load(lease.saga_id).log) for lease in leases] == [1, 0, 1]

    def test_none_and_one_are_fine(self, storage: ISagaStorage) -> None:
        assert storage.apply_many([]) == []
        assert len(storage.apply_many([(self.run(storage), TRANSITIONS["an end"])])) == 1

    def test_many_at_once_each_write_what_they_are_asked_to(self, storage: ISagaStorage) -> None:
        leases = [self.run(storage) for _ in range(16)]

        def write(number: int) -> None:
            mine = leases[number::8]
            for _ in range(5):
                storage.apply_many([(lease, TRANSITIONS["a completed action"]) for lease in mine])

        all_at_once(write)

        assert [len(storage.load(lease.saga_id).log) for lease in leases] == [5] * len(leases)


class RenewingContract(ContractBase):
    """`renew`: keeps a lease while a step takes hours."""

    def test_a_renewed_lease_lasts_from_its_renewal(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 0.5)

        storage.renew(lease, self.a_while)

        self.pass_time(storage, self.a_while * 0.75)
        self.refused(self.acquire(storage, lease.saga_id), Refusal.HELD)
        self.pass_time(storage, self.a_while * 0.5)
        self.acquired(self.acquire(storage, lease.saga_id))

    def test_a_renewal_updates_the_saga_and_changes_nothing_else(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage, spent=2)
        before = storage.load(lease.saga_id)

        storage.renew(lease, self.a_while * 2)

        after = storage.load(lease.saga_id)
        assert after.updated_at > before.updated_at
        assert after.available_at != before.available_at
        times = {"available_at": before.available_at, "updated_at": before.updated_at}
        assert replace(after, **times) == before  # type: ignore[arg-type]
