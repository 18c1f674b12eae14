"""Base class of the contract tests: control of time, and builders for each state of a saga."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus, Verdict
from sagas.storage.answers import Acquired, ClaimResult, NotAcquired, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import Claim, LogEntry, NewSaga, SagaRecord, completed, failed
from sagas.storage.transitions import Ended, FailedAttempt, GaveBack, Progressed, Suspended

MAXIMUM: Final = 5
THREADS: Final = 8
DONE: Final = completed("reserve", Action.ACT)
RUNNING, COMPENSATING, FAILED = SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED
#: Contexts that a database would change if it parsed JSON.
WRITTEN: Final = (
    '{"zebra": 1,"apple":{"b":1, "a" : 2}, "":3}',
    '{"big": 1e16, "bigger": 1e+308, "zero": -0.0, "long": 1.50, "n": 100000000000000000000000000001}',
    '{"twice": 1, "twice": 2}',
    r'{"nul": "a\u0000b", "escaped": "\u00e9\/", "raw": "é/"}',
    "null",
)

ResultT = TypeVar("ResultT")


class ContractBase:
    """Base class of the contract tests: control of time, and builders for each state, through the storage's methods.

    Class attributes:
        a_while: how many seconds leases and waits last in these tests. A longer time is safer; it is slower if
            `pass_time` really sleeps. Much less than 2 seconds is too short on a busy machine.
    """

    a_while: ClassVar[float] = 2.0

    def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
        """Let so many seconds pass on the storage's clock.

        Override it to advance a clock that you inject, or all stored times; the suite then takes seconds.
        """
        time.sleep(seconds)

    # -- sagas in every state ---------------------------------------------------------------------------------

    def start(self, storage: ISagaStorage, *, name: str = "order", queued: bool = False) -> UUID:
        """Start a saga that never ran: ready, or queued."""
        ((saga_id, _),) = storage.create_sagas([new(name=name)], queued=queued)
        return saga_id

    def run(self, storage: ISagaStorage, *, name: str = "order", owner: str = "worker-1") -> Lease:
        """Start a saga under its first lease: RUNNING, held for a while at version 1."""
        request = LeaseRequest(owner=owner, seconds=self.a_while)
        ((saga_id, _),) = storage.create_sagas([new(name=name)], lease=request)
        return Lease(saga_id, 1, owner, request.token)

    def free(self, storage: ISagaStorage, status: SagaStatus = RUNNING, *, name: str = "order", spent: int = 0) -> UUID:
        """Make a recoverable saga of this status, ready and due, with so many failed attempts."""
        lease = self.run(storage, name=name)
        if status is COMPENSATING:
            self.abort(storage, lease)
        storage.apply(lease, GaveBack(status=status))
        for _ in range(spent):
            storage.increment_recovery_attempts(lease.saga_id)
        return lease.saga_id

    def recover(self, storage: ISagaStorage, *, owner: str = "worker-1", spent: int = 0) -> Lease:
        """Make a saga in its second run: held for a while, at version 2, with so many failed attempts."""
        return self.acquired(self.acquire(storage, self.free(storage, spent=spent), owner=owner)).lease

    def lose(self, storage: ISagaStorage, *, owner: str = "worker-1", spent: int = 0) -> Lease:
        """Make a saga in its second run whose lease has expired."""
        lease = self.recover(storage, owner=owner, spent=spent)
        self.pass_time(storage, self.a_while * 1.5)
        return lease

    def finish(self, storage: ISagaStorage, status: SagaStatus = SagaStatus.COMPLETED) -> UUID:
        """Make a saga that has just ended, after a failed attempt."""
        lease = self.run(storage)
        storage.increment_recovery_attempts(lease.saga_id)
        last = DONE
        if status is SagaStatus.COMPENSATED:
            self.abort(storage, lease)
            last = completed("reserve", Action.COMPENSATE)
        storage.apply(lease, Ended(events=(last,), status=status))
        return lease.saga_id

    def die(self, storage: ISagaStorage) -> UUID:
        """Make a saga whose attempts are spent."""
        lease = self.recover(storage, spent=MAXIMUM - 1)
        storage.apply(lease, failed_attempt())
        return lease.saga_id

    def in_queue(self, storage: ISagaStorage) -> Lease:
        """Make a saga that was given back with a message: RUNNING, queued at version 1; return its last lease."""
        lease = self.run(storage)
        storage.apply(lease, GaveBack(status=RUNNING, queued=True))
        return lease

    def wait(self, storage: ISagaStorage, seconds: float | None = None) -> UUID:
        """Make a saga that waits for a signal, for so long or without end: RUNNING, waiting at version 1."""
        lease = self.run(storage)
        storage.apply(lease, Suspended(events=(), status=RUNNING, after_seconds=seconds, waiting=True, seen=0))
        return lease.saga_id

    def abort(self, storage: ISagaStorage, lease: Lease) -> None:
        """Log that a step failed for good."""
        entry = failed("reserve", Action.ACT, Verdict.ABORT, in_doubt=True)
        storage.apply(lease, Progressed(events=(entry,), status=COMPENSATING))

    # -- operations with the usual arguments ------------------------------------------------------------------

    def acquire(
        self,
        storage: ISagaStorage,
        saga_id: UUID,
        *,
        owner: str = "worker-2",
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        """Acquire it for a while."""
        request = LeaseRequest(owner=owner, seconds=self.a_while)
        return storage.acquire(saga_id, request, max_recovery_attempts=MAXIMUM, version=version, by_hand=by_hand)

    def claim(self, storage: ISagaStorage, *, pending: bool = False, limit: int = 100) -> ClaimResult:
        """Scan."""
        return storage.claim_sagas(pending=pending, limit=limit, max_recovery_attempts=MAXIMUM)

    def acquired(self, result: Acquired | NotAcquired) -> Acquired:
        """Make sure that it was acquired."""
        assert isinstance(result, Acquired), result
        return result

    def refused(self, result: Acquired | NotAcquired, why: Refusal) -> SagaRecord | None:
        """Make sure that it was refused for this reason; return the record that came with it."""
        assert isinstance(result, NotAcquired), result
        assert result.why is why
        return result.record


def new(key: str | None = None, *, name: str = "order", **values: Any) -> NewSaga:
    """Return a saga to be stored."""
    return NewSaga(id=new_saga_id(), name=name, idempotency_key=key, **{"context": "{}", **values})


def failed_attempt(*events: LogEntry, after_seconds: float = 0.0, last_error: str | None = None) -> FailedAttempt:
    """Return a failed attempt that counts up to the usual maximum."""
    return FailedAttempt(
        events=events, after_seconds=after_seconds, max_recovery_attempts=MAXIMUM, last_error=last_error
    )


def keys(claims: ClaimResult | list[Claim]) -> list[tuple[UUID, int]]:
    """Return which sagas were claimed, and at which versions."""
    return [(claim.saga_id, claim.version) for claim in (claims.claims if isinstance(claims, ClaimResult) else claims)]


def ids(claims: ClaimResult | list[Claim]) -> list[UUID]:
    """Return which sagas were claimed."""
    return [saga_id for saga_id, _ in keys(claims)]


def all_at_once(call: Callable[[int], ResultT], threads: int = THREADS) -> list[ResultT]:
    """Call it in as many threads at the same moment, with the thread's number; return what each returned."""
    ready = threading.Barrier(threads)

    def wait_and_call(number: int) -> ResultT:
        ready.wait(timeout=30)
        return call(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(wait_and_call, range(threads)))
