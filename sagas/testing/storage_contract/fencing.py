"""Contract tests of the fence: a worker that lost its lease cannot write, by any method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

import pytest

from sagas.errors import LeaseLost
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import failed, note
from sagas.storage.transitions import Ended, FailedAttempt, GaveBack, Progressed, Suspended, Transition
from sagas.testing.storage_contract.base import COMPENSATING, DONE, MAXIMUM, RUNNING, ContractBase, ids

RETRY: Final = replace(
    failed("charge", Action.ACT, Verdict.RETRY, attempt=3, in_doubt=True),
    error_type="Timeout",
    message='no answer from "bank" \\ Zoë 🚚',
    traceback="Traceback:\n  100 %s\n",
)
#: Every transition, in each way in which a storage may write it.
TRANSITIONS: Final[dict[str, Transition]] = {
    "a completed action": Progressed(events=(DONE,), status=RUNNING, context='{"n": 1}', in_flight=("charge",)),
    "completed actions": Progressed(events=(DONE, DONE), status=RUNNING, context='{"n": 1}', in_flight=("a", "b")),
    "a failed action": Progressed(events=(RETRY,), status=RUNNING),
    "a note": Progressed(events=(note("retry", actor="ann", reason="why"),), status=COMPENSATING),
    "a wait": Suspended(events=(RETRY,), status=RUNNING, after_seconds=60),
    "a return": GaveBack(status=RUNNING),
    "a hand-over": GaveBack(status=RUNNING, queued=True),
    "a failed attempt": FailedAttempt(events=(RETRY,), after_seconds=0, max_recovery_attempts=MAXIMUM),
    "the last action": Ended(events=(DONE,), status=SagaStatus.COMPLETED),
    "an end": Ended(events=(), status=SagaStatus.COMPENSATED),
}
Write = Callable[[ISagaStorage, Lease], object]


def _apply(transition: Transition) -> Write:
    return lambda storage, lease: storage.apply(lease, transition)


def _one_of_many(storage: ISagaStorage, lease: Lease) -> None:
    nobodys = replace(lease, version=lease.version + 7)
    result, other = storage.apply_many([(lease, TRANSITIONS["a wait"]), (nobodys, TRANSITIONS["a wait"])])
    assert isinstance(other, LeaseLost)
    if isinstance(result, LeaseLost):
        raise result


#: Everything that a holder can write.
WRITES: Final[dict[str, Write]] = {
    **{name: _apply(transition) for name, transition in TRANSITIONS.items()},
    "one of many": _one_of_many,
    "a renewal": lambda storage, lease: storage.renew(lease, 60),
    "a definition": lambda storage, lease: storage.set_definition(lease, "abc"),
}


_FENCED: Final = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


class FencingContract(ContractBase):
    """A worker was frozen, its lease expired and another worker replaced it: all of its writes change nothing."""

    @_FENCED
    def test_frozen_worker_cannot_write_after_takeover(self, storage: ISagaStorage, write: Write) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        self.acquired(self.acquire(storage, lease.saga_id, owner="worker-2"))

        self._is_locked_out(storage, lease, write)

    @_FENCED
    def test_frozen_worker_cannot_write_under_a_lease_older_than_its_own(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        lease = self.run(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)
        self.acquired(self.acquire(storage, lease.saga_id, owner="worker-1"))

        self._is_locked_out(storage, lease, write)

    @_FENCED
    def test_of_two_requests_of_one_owner_only_the_token_that_won_can_write(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        # The answer to one acquire was lost with its connection. Its thread must not take the other's lease for its
        # own.
        saga_id = self.free(storage)
        lost, won = (LeaseRequest(owner="worker-1", seconds=self.a_while) for _ in range(2))
        lease = self.acquired(storage.acquire(saga_id, won, max_recovery_attempts=MAXIMUM)).lease
        assert lease == Lease(saga_id, 2, "worker-1", won.token)

        for token in (lost.token, uuid4()):
            self._is_locked_out(storage, replace(lease, token=token), write)
        write(storage, lease)

    @_FENCED
    def test_frozen_worker_cannot_write_after_a_scan_reclaimed_its_saga(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        claims = self.claim(storage)
        assert ids(claims) == [lease.saga_id]

        self._is_locked_out(storage, lease, write)
        storage.release_claims(claims.claims)
        self._is_locked_out(storage, lease, write)

    @_FENCED
    def test_frozen_worker_cannot_write_after_its_saga_died(self, storage: ISagaStorage, write: Write) -> None:
        lease = self.lose(storage, spent=MAXIMUM - 1)
        assert self.claim(storage).died == (lease.saga_id,)

        self._is_locked_out(storage, lease, write)

    @_FENCED
    @pytest.mark.parametrize("end", ["a return", "a hand-over", "a wait", "a failed attempt", "the last action"])
    def test_nothing_can_be_written_after_the_lease_was_ended(
        self, storage: ISagaStorage, write: Write, end: str
    ) -> None:
        lease = self.run(storage)
        storage.apply(lease, TRANSITIONS[end])

        self._is_locked_out(storage, lease, write)

    @_FENCED
    def test_nothing_can_be_written_to_a_saga_that_was_pruned(self, storage: ISagaStorage, write: Write) -> None:
        lease = self.run(storage)
        storage.apply(lease, TRANSITIONS["the last action"])
        self.pass_time(storage, 1)
        assert storage.prune(older_than_seconds=0, limit=10) == 1

        with pytest.raises(LeaseLost):
            write(storage, lease)

    @_FENCED
    def test_a_holder_writes_for_as_long_as_nobody_reclaimed_its_saga(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        write(storage, lease)

    def _is_locked_out(self, storage: ISagaStorage, lease: Lease, write: Write) -> None:
        before = storage.load(lease.saga_id)
        with pytest.raises(LeaseLost, match=str(lease.saga_id)):
            write(storage, lease)
        assert storage.load(lease.saga_id) == before
