"""The fence: whoever was cut off can write nothing any more, by none of the ways to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from sagas.errors import LeaseLost
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.base import Hold, ISagaStorage, Release, completed, failed, note
from sagas.testing.storage_contract.foundation import MAXIMUM, Foundation, ids

DONE: Final = completed("reserve", Action.ACT)
RETRY: Final = replace(
    failed("charge", Action.ACT, Verdict.RETRY, attempt=3, in_doubt=True),
    error_type="Timeout",
    message='no answer from "bank" \\ Zoë 🚚',
    traceback="Traceback:\n  100 %s\n",
)
GIVE_UP: Final = failed("reserve", Action.COMPENSATE, Verdict.GIVE_UP)
RUNNING: Final = SagaStatus.RUNNING

Write = Callable[[ISagaStorage, Hold], object]
#: Everything a holder can write.
WRITES: Final[dict[str, Write]] = {
    "a completed action": lambda storage, hold: storage.checkpoint(hold, DONE, status=RUNNING, context='{"n": 1}'),
    "a failed action": lambda storage, hold: storage.checkpoint(hold, RETRY, status=RUNNING),
    "the last action": lambda storage, hold: storage.checkpoint(hold, DONE, status=SagaStatus.COMPLETED),
    "an end": lambda storage, hold: storage.checkpoint(hold, None, status=SagaStatus.COMPENSATED),
    "a durable wait": lambda storage, hold: storage.checkpoint(
        hold, RETRY, status=RUNNING, release=Release(status=RUNNING, after_seconds=60)
    ),
    "a note": lambda storage, hold: storage.checkpoint(hold, note("retry", by="ann", because="why"), status=RUNNING),
    "a renewal": lambda storage, hold: storage.renew(hold, 60),
    "a release": lambda storage, hold: storage.release(hold, Release(status=SagaStatus.FAILED, failed_attempt=True)),
    "a hand-over": lambda storage, hold: storage.release(hold, Release(status=RUNNING, to_queue=True)),
}
_FENCED: Final = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


class FencingContract(Foundation):
    """A worker that was frozen, given up and replaced wakes up: whatever it writes changes nothing."""

    @_FENCED
    def test_frozen_worker_cannot_write_after_takeover(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        self.taken(self.take(storage, hold.saga_id, owner="worker-2"))

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_frozen_worker_cannot_write_under_a_hold_older_than_its_own_newer_one(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        hold = self.run(storage, owner="worker-1")
        self.pass_time(storage, self.a_while * 1.5)
        self.taken(self.take(storage, hold.saga_id, owner="worker-1"))

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_frozen_worker_cannot_write_after_a_scan_merely_seized_its_saga(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        assert ids(self.claim(storage).claims) == [hold.saga_id]

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_frozen_worker_cannot_write_after_its_saga_was_seized_and_freed(
        self, storage: ISagaStorage, write: Write
    ) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        storage.unclaim(self.claim(storage).claims)

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_frozen_worker_cannot_write_after_its_saga_died(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.recover(storage, spent=MAXIMUM - 1)
        self.pass_time(storage, self.a_while * 1.5)
        assert self.claim(storage).died == (hold.saga_id,)

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_nothing_can_be_written_after_giving_back(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        storage.release(hold, Release(status=RUNNING))

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_nothing_can_be_written_after_the_end(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        storage.checkpoint(hold, DONE, status=SagaStatus.COMPLETED)

        self._is_locked_out(storage, hold, write)

    @_FENCED
    def test_nothing_can_be_written_to_a_saga_that_was_pruned(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        storage.checkpoint(hold, DONE, status=SagaStatus.COMPLETED)
        self.pass_time(storage, 1)
        assert storage.prune(older_than_seconds=0, limit=10) == 1

        with pytest.raises(LeaseLost):
            write(storage, hold)

    @_FENCED
    def test_a_holder_writes_for_as_long_as_nobody_seized_its_saga(self, storage: ISagaStorage, write: Write) -> None:
        hold = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)

        write(storage, hold)

    def _is_locked_out(self, storage: ISagaStorage, hold: Hold, write: Write) -> None:
        before = storage.load(hold.saga_id)
        with pytest.raises(LeaseLost, match=str(hold.saga_id)):
            write(storage, hold)
        assert storage.load(hold.saga_id) == before
