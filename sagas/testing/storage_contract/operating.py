"""Contract tests of `operate`: an operator's action takes effect as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from sagas.errors import ActionRefused, LeaseLost
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict, aborted
from sagas.storage.answers import Applied, NotAcquired, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import SagaRecord, SagaState, failed, note
from sagas.storage.transitions import Ended, GaveBack, Transition
from sagas.testing.storage_contract.acquiring import is_lost
from sagas.testing.storage_contract.applying import SKIPPED
from sagas.testing.storage_contract.base import COMPENSATING, MAXIMUM, RUNNING, ContractBase, ids

_NOTE = note("retry", actor="ann", reason="why")
_RETRY = GaveBack(events=(_NOTE,), status=RUNNING)
_RESOLVE = Ended(events=(note("resolve", actor="ann", reason="why"),), status=SagaStatus.COMPENSATED)
_ABORT = GaveBack(events=(failed("charge", Action.ACT, Verdict.ABORT),), status=COMPENSATING)


class OperatingContract(ContractBase):
    """`operate`."""

    def test_a_saga_is_acquired_written_and_given_back(self, storage: ISagaStorage) -> None:
        saga_id = self.free(storage, spent=2)
        seen: list[SagaRecord] = []

        def decide(record: SagaRecord) -> Transition:
            seen.append(record)
            return _RETRY

        applied = self.operate(storage, saga_id, decide)

        saga = storage.load(saga_id)
        assert (seen[0].version, seen[0].lease_owner, saga.version) == (2, "ann@pc", 2)
        assert (saga.status, saga.state, saga.recovery_attempts) == (RUNNING, SagaState.READY, 0)
        assert applied == Applied(
            status=RUNNING,
            state=SagaState.READY,
            recovery_attempts=0,
            available_at=saga.available_at,
            log=saga.log,
        )
        assert [(entry.step, entry.actor, entry.worker, entry.version) for entry in saga.log] == [
            ("retry", "ann", "ann@pc", 2)
        ]
        assert ids(self.claim(storage)) == [saga_id]

    def test_a_dead_saga_can_be_tried_again_skipped_aborted_and_ended(self, storage: ISagaStorage) -> None:
        for decision, state, attempts in (
            (_RETRY, SagaState.READY, 0),
            (GaveBack(events=(SKIPPED,), status=COMPENSATING, queued=True), SagaState.QUEUED, 0),
            (_ABORT, SagaState.READY, MAXIMUM - 1),
            (_RESOLVE, SagaState.FINISHED, 0),
        ):
            saga_id = self.die(storage)

            assert isinstance(self.operate(storage, saga_id, lambda _, decision=decision: decision), Applied)  # type: ignore[misc]

            saga = storage.load(saga_id)
            assert (saga.status, saga.state, saga.recovery_attempts) == (decision.status, state, attempts)
            assert aborted(saga.log) is (decision is _ABORT or decision.events == (SKIPPED,))
        self._is_refused(storage, saga_id, Refusal.FINISHED)

    @pytest.mark.parametrize("state", ["dead", "due", "queued", "paused", "unstarted", "crashed"])
    def test_a_decision_that_fails_changes_nothing(self, storage: ISagaStorage, state: str) -> None:
        makers: dict[str, Callable[[ISagaStorage], UUID]] = {
            "dead": self.die,
            "due": lambda storage: self.free(storage, spent=2),
            "queued": lambda storage: self.in_queue(storage).saga_id,
            "paused": self.free,
            "unstarted": self.start,
            "crashed": lambda storage: self.lose(storage, spent=MAXIMUM - 1).saga_id,
        }
        saga_id = makers[state](storage)
        if state == "paused":
            storage.pause("order", actor="ann", reason="why")
        before = storage.load(saga_id)

        def refuse(record: SagaRecord) -> Transition:
            assert record.lease_owner == "ann@pc"
            raise ActionRefused("not this one")

        with pytest.raises(ActionRefused):
            self.operate(storage, saga_id, refuse)

        assert storage.load(saga_id) == before

    def test_what_is_held_is_left_alone(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        before = storage.load(lease.saga_id)

        record = self._is_refused(storage, lease.saga_id, Refusal.HELD)

        assert record is not None
        assert record.lease_owner == lease.owner
        assert storage.load(lease.saga_id) == before

    def test_no_decision_is_asked_of_an_unknown_saga(self, storage: ISagaStorage) -> None:
        self._is_refused(storage, new_saga_id(), Refusal.NOT_FOUND)

    def test_a_holder_that_was_cut_off_is_fenced_off(self, storage: ISagaStorage) -> None:
        lease = self.lose(storage, spent=MAXIMUM - 1)
        seen: list[SagaRecord] = []

        def decide(record: SagaRecord) -> Transition:
            seen.append(record)
            return _RETRY

        assert isinstance(self.operate(storage, lease.saga_id, decide), Applied)

        is_lost(seen[0], lease, None)
        with pytest.raises(LeaseLost):
            storage.renew(lease, 60)

    def operate(
        self, storage: ISagaStorage, saga_id: UUID, decide: Callable[[SagaRecord], Transition]
    ) -> Applied | NotAcquired:
        """Have an operator decide."""
        return storage.operate(saga_id, decide, owner="ann@pc", max_recovery_attempts=MAXIMUM)

    def _is_refused(self, storage: ISagaStorage, saga_id: UUID, why: Refusal) -> SagaRecord | None:
        refused = self.operate(storage, saga_id, lambda _: _RETRY)
        assert isinstance(refused, NotAcquired)
        assert refused.why is why
        return refused.record
