"""What every part of the contract stands on: a way to let time pass, and sagas brought into each state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final, TypeVar
from uuid import UUID

from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.base import (
    Claim,
    ClaimResult,
    Hold,
    ISagaStorage,
    NewSaga,
    Refused,
    Release,
    Taken,
    completed,
    failed,
)

MAXIMUM: Final = 5
THREADS: Final = 8

ResultT = TypeVar("ResultT")


#: As a database that reads JSON would write some of it otherwise.
WRITTEN: Final = (
    '{"zebra": 1,"apple":{"b":1, "a" : 2}, "":3}',
    '{"big": 1e16, "bigger": 1e+308, "zero": -0.0, "long": 1.50, "n": 100000000000000000000000000001}',
    '{"twice": 1, "twice": 2}',
    r'{"nul": "a\u0000b", "escaped": "\u00e9\/", "raw": "é/"}',
    "null",
)


class Foundation:
    """Time, and sagas in every state, made by nothing but the storage's own methods.

    Class attributes:
        a_while: seconds that leases, marks and backoffs last in these tests. Long is safe; where `pass_time` really
            sleeps it is slow too, and much less than 2 seconds would ask too much of a busy machine.
        a_moment: seconds within which a saga whose message is missing is due again, after it was freed.
    """

    a_while: ClassVar[float] = 2.0
    a_moment: ClassVar[float] = 3.0

    def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
        """Let so many seconds pass on the storage's clock.

        Override it to move a clock that you inject, or the times that are stored; then the suite takes no time.
        """
        time.sleep(seconds)

    # -- sagas in every state ---------------------------------------------------------------------------------

    def start(self, storage: ISagaStorage, *, name: str = "order", owner: str | None = None) -> UUID:
        """A saga that never ran: free, or the owner's for a while."""
        new = NewSaga(id=new_saga_id(), name=name, context="{}")
        ((saga_id, _),) = storage.create_sagas([new], owner=owner, for_seconds=self.a_while if owner else 0.0)
        return saga_id

    def run(self, storage: ISagaStorage, *, name: str = "order", owner: str = "worker-1") -> Hold:
        """A saga in its first run: RUNNING, held for a while at version 1."""
        return Hold(self.start(storage, name=name, owner=owner), 1, owner)

    def free(
        self, storage: ISagaStorage, status: SagaStatus = SagaStatus.RUNNING, *, name: str = "order", spent: int = 0
    ) -> UUID:
        """A saga of this recoverable status, free and due, with so many failed attempts."""
        hold = self.run(storage, name=name)
        if status is SagaStatus.COMPENSATING:
            self.turn_back(storage, hold)
        storage.release(hold, Release(status=status))
        for _ in range(spent):
            storage.increment_recovery_attempts(hold.saga_id)
        return hold.saga_id

    def recover(self, storage: ISagaStorage, *, owner: str = "worker-1", spent: int = 0) -> Hold:
        """A saga in its second run: taken over for a while, at version 2, with so many failed attempts."""
        return self.taken(self.take(storage, self.free(storage, spent=spent), owner=owner)).hold

    def finish(self, storage: ISagaStorage, status: SagaStatus = SagaStatus.COMPLETED) -> UUID:
        """A saga that ended so just now, having failed an attempt on the way."""
        hold = self.run(storage)
        storage.increment_recovery_attempts(hold.saga_id)
        if status is SagaStatus.COMPENSATED:
            self.turn_back(storage, hold)
            storage.checkpoint(hold, completed("reserve", Action.COMPENSATE), status=status)
        else:
            storage.checkpoint(hold, completed("reserve", Action.ACT), status=status)
        return hold.saga_id

    def die(self, storage: ISagaStorage) -> UUID:
        """A saga that recovery gave up."""
        hold = self.recover(storage, spent=MAXIMUM - 1)
        release = Release(status=SagaStatus.FAILED, failed_attempt=True, max_recovery_attempts=MAXIMUM)
        storage.release(hold, release)
        return hold.saga_id

    def in_queue(self, storage: ISagaStorage) -> Hold:
        """A saga given back with a message: RUNNING at version 1, marked for a while; its hold, which is no more."""
        hold = self.run(storage)
        storage.release(hold, Release(status=SagaStatus.RUNNING, to_queue=True, after_seconds=self.a_while))
        return hold

    def turn_back(self, storage: ISagaStorage, hold: Hold) -> None:
        """Log that a step failed for good."""
        entry = failed("reserve", Action.ACT, Verdict.TURN_BACK, in_doubt=True)
        storage.checkpoint(hold, entry, status=SagaStatus.COMPENSATING)

    # -- operations with the usual arguments ------------------------------------------------------------------

    def take(
        self,
        storage: ISagaStorage,
        saga_id: UUID,
        *,
        owner: str = "worker-2",
        version: int | None = None,
        by_hand: bool = False,
    ) -> Taken | Refused:
        """Take it for a while."""
        return storage.take(
            saga_id,
            owner=owner,
            lease_seconds=self.a_while,
            max_recovery_attempts=MAXIMUM,
            version=version,
            by_hand=by_hand,
        )

    def claim(
        self, storage: ISagaStorage, *, pending: bool = False, limit: int = 100, messages_waiting: int = 0
    ) -> ClaimResult:
        """Scan, marking for a while."""
        return storage.claim_sagas(
            pending=pending,
            limit=limit,
            max_recovery_attempts=MAXIMUM,
            mark_seconds=self.a_while,
            messages_waiting=messages_waiting,
        )

    def taken(self, result: Taken | Refused) -> Taken:
        """Make sure that it was taken."""
        assert isinstance(result, Taken), result
        return result

    def refused(self, result: Taken | Refused) -> Refused:
        """Make sure that it was not taken."""
        assert isinstance(result, Refused), result
        return result


def ids(claims: tuple[Claim, ...]) -> list[UUID]:
    """Which sagas were claimed."""
    return [claim.saga_id for claim in claims]


def all_at_once(call: Callable[[int], ResultT], threads: int = THREADS) -> list[ResultT]:
    """Call it in as many threads at the same moment, with the thread's number; return what each returned."""
    ready = threading.Barrier(threads)

    def wait_and_call(number: int) -> ResultT:
        ready.wait(timeout=30)
        return call(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(wait_and_call, range(threads)))
