"""What the database tells about the sagas while they run: the same as any operator could ask it."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sagas import SagaStatus
from sagas.demo.shop import PlaceOrder
from sagas.plan import plan_of
from sagas.progress import Action, End, next_move
from sagas.storage.XXX import QUEUE
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import SagaFilter, SagaRecord

#: More than the demo has orders, so that an order with two sagas would be seen.
_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All sagas at one moment, without their logs, in the order of their order numbers."""

    records: Sequence[SagaRecord]

    @property
    def counts(self) -> Mapping[SagaStatus, int]:
        """How many sagas have each status."""
        return Counter(record.status for record in self.records)

    @property
    def finished(self) -> int:
        """How many sagas are finished."""
        return sum(record.status.finished for record in self.records)

    def held_by(self, worker: str) -> list[SagaRecord]:
        """Return the unfinished sagas whose lease has this worker's name."""
        return [record for record in self.records if worker_of(record.lease_owner) == worker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One saga as the table shows it."""

    order: str
    status: SagaStatus
    step: str
    worker: str
    takeovers: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """A saga of the killed worker, taken by another: by whom, and how many seconds after the kill."""

    order: str
    worker: str
    seconds: float


class Kill:
    """A worker that was killed just now, and what becomes of the sagas it held.

    Args:
        worker: its name.
        at: when, on this process's monotonic clock.
        snapshot: taken after its death, so that nothing changes any more of what it held.
    """

    def __init__(self, worker: str, at: float, snapshot: Snapshot) -> None:
        self.worker = worker
        self.finished_before = snapshot.finished
        self.held = {record.id: record.version for record in snapshot.held_by(worker)}
        self.takeovers: dict[UUID, Takeover] = {}
        self._at = at

    @property
    def complete(self) -> bool:
        """Whether every saga that it held was taken over."""
        return len(self.takeovers) == len(self.held)

    @property
    def median_seconds(self) -> float:
        """The median time from the kill to a takeover."""
        return statistics.median(takeover.seconds for takeover in self.takeovers.values())

    @property
    def slowest_seconds(self) -> float:
        """The longest time from the kill to a takeover."""
        return max(takeover.seconds for takeover in self.takeovers.values())

    def observe(self, snapshot: Snapshot, storage: ISagaStorage) -> list[Takeover]:
        """Note what was taken over since the last look, and return it: taking a saga increments its version."""
        new = []
        for record in snapshot.records:
            if record.id not in self.held or record.id in self.takeovers:
                continue
            if record.version > self.held[record.id]:
                worker = worker_of(record.lease_owner) or last_worker(storage.load(record.id))
                self.takeovers[record.id] = Takeover(order_of(record), worker, time.monotonic() - self._at)
                new.append(self.takeovers[record.id])
            elif record.status.finished:
                # Its last checkpoint was with the database already when the worker died.
                del self.held[record.id]
        return new


def look(storage: ISagaStorage) -> Snapshot:
    """Return how all sagas stand."""
    found = storage.find(SagaFilter(name=PlaceOrder.name, limit=_LIMIT))
    return Snapshot(records=sorted(found, key=order_of))


def order_of(record: SagaRecord) -> str:
    """The number of the order: the key under which its saga was started."""
    return record.idempotency_key or "?"


def worker_of(owner: str | None) -> str:
    """The worker's name in the name of a lease's holder, such as `worker-1@demo/4711.98765`; empty if none holds it."""
    return "" if owner in (None, QUEUE) else str(owner).partition("@")[0]


def last_worker(record: SagaRecord) -> str:
    """The worker that wrote the last row of the log."""
    return worker_of(record.log[-1].worker) if record.log else ""


def rows(snapshot: Snapshot, storage: ISagaStorage, *, limit: int) -> list[Row]:
    """Return the sagas worth seeing: those in progress, those that were taken over, and those that ended last."""

    def rank(record: SagaRecord) -> tuple[int, float]:
        if record.finished_at is not None:
            return 2 - (_takeovers(record) > 0), -record.finished_at.timestamp()
        return 3 if record.status is SagaStatus.PENDING else 0, 0

    return [_row(storage.load(record.id)) for record in sorted(snapshot.records, key=rank)[:limit]]


def _row(record: SagaRecord) -> Row:
    return Row(
        order=order_of(record),
        status=record.status,
        step=_step(record),
        worker=worker_of(record.lease_owner) or last_worker(record),
        takeovers=_takeovers(record),
    )


def _takeovers(record: SagaRecord) -> int:
    """Every taking increments the version, and in the demo no worker gives an order back before it ends."""
    return max(0, record.version - 1)


def _step(record: SagaRecord) -> str:
    move = next_move(plan_of(PlaceOrder), record.log)
    if isinstance(move, End):
        return "all steps done" if move.status is SagaStatus.COMPLETED else "all effects undone"
    return f"{'undo ' if move.action is Action.COMPENSATE else ''}{move.step.name}"
