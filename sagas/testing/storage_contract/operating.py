"""What operators do: pausing a name, asking a saga back, notes and skipped steps in the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from sagas.errors import ActionRefused, LeaseLost
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.base import (
    PAUSED,
    Intervention,
    ISagaStorage,
    LogEntry,
    Refusal,
    Refused,
    Release,
    SagaFilter,
    SagaRecord,
    failed,
    note,
)
from sagas.testing.storage_contract.foundation import MAXIMUM, Foundation, ids

RUNNING = SagaStatus.RUNNING


class PausingContract(Foundation):
    """`pause`, `resume` and `pauses`."""

    def test_what_is_due_of_a_paused_name_is_parked_and_no_scan_dispatches_it(self, storage: ISagaStorage) -> None:
        parked = {self.start(storage), self.free(storage), self.free(storage, SagaStatus.FAILED)}

        assert storage.pause("order", by="ann", because="the bank is away") == 3

        assert {saga.id for saga in storage.find(SagaFilter()) if saga.lease_owner == PAUSED} == parked
        assert self.claim(storage).claims == self.claim(storage, pending=True).claims == ()

    def test_a_pause_is_for_its_name_alone(self, storage: ISagaStorage) -> None:
        storage.pause("order", by="ann", because="why")
        other = self.free(storage, name="refund")

        assert ids(self.claim(storage).claims) == [other]

    @pytest.mark.parametrize("pending", [False, True])
    def test_what_becomes_due_during_a_pause_is_parked_by_the_next_scan(
        self, storage: ISagaStorage, pending: bool
    ) -> None:
        storage.pause("order", by="ann", because="why")
        saga_id = self.start(storage) if pending else self.free(storage)

        assert self.claim(storage, pending=pending).claims == ()

        assert storage.load(saga_id).lease_owner == PAUSED

    def test_resuming_makes_due_what_was_parked(self, storage: ISagaStorage) -> None:
        unstarted, begun = self.start(storage), self.free(storage)
        storage.pause("order", by="ann", because="why")

        assert storage.resume("order") == 2

        assert ids(self.claim(storage, pending=True).claims) == [unstarted]
        assert ids(self.claim(storage).claims) == [begun]

    def test_a_crash_during_a_pause_is_counted_and_parked(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage)
        storage.pause("order", by="ann", because="why")
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage).claims == ()

        record = storage.load(hold.saga_id)
        assert (record.recovery_attempts, record.interrupted, record.lease_owner) == (1, True, PAUSED)

    def test_a_crash_that_reaches_the_maximum_during_a_pause_ends_dead(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)
        storage.pause("order", by="ann", because="why")
        self.pass_time(storage, self.a_while * 1.5)

        assert self.claim(storage).died == (hold.saga_id,)
        assert storage.load(hold.saga_id).dead

    def test_a_failed_saga_that_is_parked_is_not_dead(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, SagaStatus.FAILED)
        storage.pause("order", by="ann", because="why")

        assert not storage.load(saga_id).dead
        assert storage.find(SagaFilter(dead=True)) == []

    def test_attempts_set_during_a_pause_do_not_end_it(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, SagaStatus.FAILED, spent=2)
        storage.pause("order", by="ann", because="why")

        storage.set_recovery_attempts(saga_id, 0)

        assert storage.load(saga_id).lease_owner == PAUSED
        assert storage.load(saga_id).available_at is None

    @pytest.mark.parametrize("parked", [False, True])
    def test_no_message_takes_a_saga_of_a_paused_name(self, storage: ISagaStorage, parked: bool) -> None:
        saga_id = self.free(storage) if parked else self.in_queue(storage).saga_id
        storage.pause("order", by="ann", because="why")

        assert self.refused(self.take(storage, saga_id, version=1)).why is Refusal.PAUSED
        assert self.refused(self.take(storage, saga_id)).why is Refusal.PAUSED

    @pytest.mark.parametrize("parked", [False, True])
    def test_an_operator_takes_a_saga_of_a_paused_name(self, storage: ISagaStorage, parked: bool) -> None:
        saga_id = self.free(storage) if parked else self.in_queue(storage).saga_id
        storage.pause("order", by="ann", because="why")

        taken = self.taken(self.take(storage, saga_id, by_hand=True))

        assert (taken.record.recovery_attempts, taken.record.interrupted) == (0, False)

    def test_a_dead_saga_stays_dead_through_a_pause(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)
        storage.pause("order", by="ann", because="why")
        assert storage.load(saga_id).dead
        storage.resume("order")

        assert storage.load(saga_id).dead

    def test_what_is_parked_is_nobodys_orphan(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        storage.pause("order", by="ann", because="why")

        assert storage.seize_orphans(PAUSED, max_recovery_attempts=MAXIMUM) == 0
        assert storage.load(saga_id).lease_owner == PAUSED

    def test_the_pauses_tell_who_why_and_since_when(self, storage: ISagaStorage) -> None:
        storage.pause("order", by="ann", because="first")
        (first,) = storage.pauses()
        storage.pause("order", by="bob", because="second")
        storage.pause("account", by="ann", because="third")

        account, order = storage.pauses()

        assert (account.name, account.by, account.because) == ("account", "ann", "third")
        assert (order.by, order.because, order.since) == ("bob", "second", first.since)
        storage.resume("order")
        storage.resume("never paused")
        assert [pause.name for pause in storage.pauses()] == ["account"]

    def test_a_resume_ends_a_pause_of_its_name_alone(self, storage: ISagaStorage) -> None:
        self.free(storage)
        other = self.free(storage, name="refund")
        storage.pause("order", by="ann", because="why")
        storage.pause("refund", by="ann", because="why")

        assert storage.resume("order") == 1

        assert storage.load(other).lease_owner == PAUSED

    def test_a_name_can_be_paused_and_resumed_again(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        for _ in range(2):
            assert storage.pause("order", by="ann", because="why") == 1
            assert self.claim(storage).claims == ()
            assert storage.resume("order") == 1
        assert ids(self.claim(storage).claims) == [saga_id]


class InterveningContract(Foundation):
    """`intervene`: an operator's action, all or nothing."""

    def test_a_saga_is_taken_written_and_given_back(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=2)
        seen: list[SagaRecord] = []

        def decide(record: SagaRecord) -> Intervention:
            seen.append(record)
            return retry(record)

        assert self.intervene(storage, saga_id, decide) is None

        record = storage.load(saga_id)
        assert (seen[0].version, seen[0].lease_owner, record.version) == (2, "ann@pc", 2)
        assert (record.status, record.lease_owner, record.recovery_attempts) == (RUNNING, None, 0)
        assert [(entry.step, entry.by, entry.worker, entry.version) for entry in record.log] == [
            ("retry", "ann", "ann@pc", 2)
        ]
        assert ids(self.claim(storage).claims) == [saga_id]

    def test_a_saga_can_be_ended(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)
        end = Intervention(entry=note("resolve", by="ann", because="why"), status=SagaStatus.COMPENSATED)

        assert self.intervene(storage, saga_id, lambda _: end) is None

        record = storage.load(saga_id)
        assert (record.status, record.lease_owner, record.finished_at is None) == (SagaStatus.COMPENSATED, None, False)
        assert self.intervene(storage, saga_id, lambda _: end).why is Refusal.FINISHED  # type: ignore[union-attr]

    @pytest.mark.parametrize("state", ["dead", "due", "queued", "parked", "unstarted", "crashed"])
    def test_a_decision_that_fails_changes_nothing(self, storage: ISagaStorage, state: str) -> None:
        makers: dict[str, Callable[[ISagaStorage], UUID]] = {
            "dead": self.die,
            "due": lambda storage: self.free(storage, spent=2),
            "queued": lambda storage: self.in_queue(storage).saga_id,
            "parked": self.free,
            "unstarted": self.start,
            "crashed": lambda storage: self.recover(storage, spent=MAXIMUM - 1).saga_id,
        }
        saga_id = makers[state](storage)
        if state == "parked":
            storage.pause("order", by="ann", because="why")
        if state == "crashed":
            self.pass_time(storage, self.a_while * 1.5)
        before = storage.load(saga_id)

        def refuse(record: SagaRecord) -> Intervention:
            assert record.lease_owner == "ann@pc"
            raise ActionRefused("not this one")

        with pytest.raises(ActionRefused):
            self.intervene(storage, saga_id, refuse)

        assert storage.load(saga_id) == before

    def test_what_is_held_is_left_alone(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        before = storage.load(hold.saga_id)

        refused = self.intervene(storage, hold.saga_id, retry)

        assert (refused.why, refused.record and refused.record.lease_owner) == (Refusal.HELD, hold.owner)  # type: ignore[union-attr]
        assert storage.load(hold.saga_id) == before

    def test_nobody_has_it(self, storage: ISagaStorage) -> None:
        assert self.intervene(storage, new_saga_id(), retry).why is Refusal.NOT_FOUND  # type: ignore[union-attr]

    def test_a_holder_that_was_cut_off_is_fenced_off(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)
        self.pass_time(storage, self.a_while * 1.5)

        assert self.intervene(storage, hold.saga_id, retry) is None

        assert storage.load(hold.saga_id).interrupted
        with pytest.raises(LeaseLost):
            storage.renew(hold, 60)

    def intervene(
        self, storage: ISagaStorage, saga_id: UUID, decide: Callable[[SagaRecord], Intervention]
    ) -> Refused | None:
        """Have it decided on by an operator."""
        return storage.intervene(saga_id, decide, owner="ann@pc", max_recovery_attempts=MAXIMUM)


def retry(record: SagaRecord) -> Intervention:
    """Make it due."""
    release = Release(status=RUNNING, interrupted=record.interrupted)
    return Intervention(entry=note("retry", by="ann", because="why"), status=RUNNING, release=release)


class AskingContract(Foundation):
    """`ask_back`, and what a renewal then says."""

    def test_a_holder_is_told_by_its_next_renewal_that_its_saga_is_asked_back(self, storage: ISagaStorage) -> None:
        hold, other = self.run(storage), self.run(storage)
        assert storage.renew(hold, 60) is False

        storage.ask_back(hold.saga_id, by="ann", for_seconds=60)

        assert storage.renew(hold, 60) is True
        assert storage.renew(other, 60) is False

    def test_an_ask_that_is_over_is_forgotten(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        storage.ask_back(hold.saga_id, by="ann", for_seconds=60)
        storage.ask_back(hold.saga_id, by="ann", for_seconds=0)

        assert storage.renew(hold, 60) is False

    def test_every_holder_of_a_paused_name_is_asked(self, storage: ISagaStorage) -> None:
        hold, other = self.run(storage), self.run(storage, name="refund")
        storage.pause("order", by="ann", because="why")

        assert storage.renew(hold, 60) is True
        assert storage.renew(other, 60) is False

    def test_asking_for_a_saga_that_nobody_holds_changes_nothing(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage)
        before = storage.load(saga_id)

        storage.ask_back(saga_id, by="ann", for_seconds=60)

        assert storage.load(saga_id) == before


class OperatorLogContract(Foundation):
    """Rows of the log that a person wrote."""

    def test_a_note_adds_a_row_and_changes_nothing_else(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=2)
        self.pass_time(storage, self.a_while * 1.5)
        hold = self.taken(self.take(storage, hold.saga_id, by_hand=True)).hold  # interrupted, three attempts spent
        before = storage.load(hold.saga_id)

        storage.checkpoint(hold, note("recover", by="ann@pc", because="asked to"), status=before.status)

        after = storage.load(hold.saga_id)
        assert replace(after, log=(), updated_at=before.updated_at) == before
        (row,) = after.log
        assert (row.step, row.action, row.by, row.because) == ("recover", Action.OPERATOR, "ann@pc", "asked to")
        assert (row.worker, row.version) == (hold.owner, hold.version)

    def test_a_note_that_gives_back_revives_a_dead_saga_with_all_its_attempts(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)
        hold = self.taken(self.take(storage, saga_id, by_hand=True)).hold

        release = Release(status=RUNNING, interrupted=True)
        storage.checkpoint(hold, note("retry", by="ann", because="fixed"), status=RUNNING, release=release)

        record = storage.load(saga_id)
        assert (record.status, record.recovery_attempts, record.interrupted) == (RUNNING, 0, True)
        assert ids(self.claim(storage).claims) == [saga_id]

    def test_a_note_can_end_a_saga(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)

        storage.checkpoint(hold, note("resolve", by="ann", because="by hand"), status=SagaStatus.COMPENSATED)

        record = storage.load(hold.saga_id)
        assert (record.status, record.lease_owner, len(record.log)) == (SagaStatus.COMPENSATED, None, 1)

    def test_a_skipped_step_is_kept_with_who_and_why_and_resets_the_attempts(self, storage: ISagaStorage) -> None:
        hold = self.recover(storage, spent=2)
        skipped = LogEntry(
            step="charge", action=Action.COMPENSATE, status=EntryStatus.SKIPPED, by="ann", because="refunded by hand"
        )

        storage.checkpoint(hold, skipped, status=RUNNING, release=Release(status=RUNNING))

        record = storage.load(hold.saga_id)
        assert record.recovery_attempts == 0
        assert [(e.step, e.status, e.by, e.because) for e in record.log] == [
            ("charge", EntryStatus.SKIPPED, "ann", "refunded by hand")
        ]

    def test_a_failure_that_a_person_wrote_keeps_who_and_why(self, storage: ISagaStorage) -> None:
        hold = self.run(storage)
        entry = replace(failed("charge", Action.ACT, Verdict.TURN_BACK), by="ann", because="fraud", message="fraud")

        storage.checkpoint(hold, entry, status=SagaStatus.COMPENSATING, release=Release(status=SagaStatus.COMPENSATING))

        (row,) = storage.load(hold.saga_id).log
        assert (row.verdict, row.by, row.because) == (Verdict.TURN_BACK, "ann", "fraud")
