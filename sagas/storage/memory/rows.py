"""What every part of the storage needs: the rows, and how they are changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sagas.outbox import OutboxTask
from sagas.storage import rules
from sagas.storage.contract import ISagaStorage
from sagas.storage.errors import lease_lost, not_found
from sagas.storage.leases import Lease
from sagas.storage.records import Definition, LogEntry, Pause, SagaRecord, Signal, utc_now
from sagas.storage.rules import Reclaimed
from sagas.storage.step_transaction import TestSessions
from sagas.storage.transitions import Transition


class Rows(ISagaStorage):
    """Keeps sagas, and what belongs to them. The arguments are those of `MemorySagaStorage`."""

    def __init__(self, clock: Callable[[], datetime] = utc_now, *, sessions: TestSessions | None = None) -> None:
        self._clock = clock
        self._sessions = sessions
        self._lock = threading.RLock()
        self._sagas: dict[UUID, SagaRecord] = {}
        self._definitions: dict[str, Definition] = {}
        self._pauses: dict[str, Pause] = {}
        self._schedules: dict[str, datetime] = {}
        self._yields: dict[UUID, datetime] = {}
        self._deliveries: dict[bool, tuple[datetime | None, datetime]] = {}
        self._signals: dict[UUID, list[Signal]] = {}
        self._undelivered: list[Signal] = []
        self._log_ids = 0
        self._signal_ids = 0
        self._outbox: dict[int, tuple[OutboxTask, datetime]] = {}
        self._outbox_ids = 0

    def _get(self, saga_id: UUID) -> SagaRecord:
        if saga_id not in self._sagas:
            raise not_found(saga_id)
        return self._sagas[saga_id]

    def _held(self, lease: Lease) -> SagaRecord:
        saga = self._sagas.get(lease.saga_id)
        if saga is None or not rules.holds(saga, lease):
            raise lease_lost(lease)
        return saga

    def _put(self, saga: SagaRecord) -> SagaRecord:
        self._sagas[saga.id] = saga
        return saga

    def _keep(self, changed: Reclaimed | SagaRecord) -> SagaRecord:
        """Put a record that a rule returned, with the row for its log if there is one."""
        if isinstance(changed, Reclaimed):
            return self._put(self._log(changed.record, (changed.event,)))
        return self._put(changed)

    def _log(self, saga: SagaRecord, events: Sequence[LogEntry]) -> SagaRecord:
        now = self._clock()
        rows = []
        for event in events:
            self._log_ids += 1
            rows.append(replace(event, id=self._log_ids, created_at=now))
        return replace(saga, log=(*saga.log, *rows))

    def _signed(self, lease: Lease, transition: Transition) -> list[LogEntry]:
        return [replace(event, version=lease.version, worker=lease.owner) for event in transition.events]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before, outbox = dict(self._sagas), dict(self._outbox)
        try:
            yield
        except BaseException:
            self._sagas, self._outbox = before, outbox
            raise
