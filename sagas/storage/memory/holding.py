"""Acquires a saga, writes for its holder, and acts for an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sagas.errors import InboxMoved
from sagas.outbox import OutboxTask
from sagas.storage import rules
from sagas.storage.answers import Acquired, Applied, NotAcquired, Refusal
from sagas.storage.errors import lease_lost
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.memory.rows import Rows
from sagas.storage.memory.step_transaction import StepInMemory
from sagas.storage.records import SagaRecord, SagaState
from sagas.storage.step_transaction import StepSession, StepTransaction
from sagas.storage.transitions import Transition, outbox_of


class Holding(Rows):
    """Writes under leases. Every write is fenced."""

    def acquire(
        self,
        saga_id: UUID,
        request: LeaseRequest,
        *,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        with self._lock:
            saga, now = self._sagas.get(saga_id), self._clock()
            if saga is None:
                return NotAcquired(Refusal.NOT_FOUND)
            why = rules.judge(
                saga,
                request,
                now,
                max_recovery_attempts=max_recovery_attempts,
                version=version,
                by_hand=by_hand,
                name_paused=saga.name in self._pauses,
            )
            if why is not None:
                changed = rules.refused(saga, why, now, max_recovery_attempts=max_recovery_attempts)
                return NotAcquired(why, replace(self._keep(changed), log=()))
            acquired, event = rules.acquire(saga, request, now, max_recovery_attempts=max_recovery_attempts)
            record = self._put(self._log(acquired.record, () if event is None else (event,)))
            return replace(acquired, record=record)

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        with self._lock:
            saga = self._held(lease)
            if rules.unread(saga, transition):
                raise InboxMoved(saga.inbox)
            changed = self._log(rules.apply(saga, lease, transition, self._clock()), self._signed(lease, transition))
            self._put(changed)
            outbox = []
            for asked in outbox_of(transition):
                self._outbox_ids += 1
                task = OutboxTask(self._outbox_ids, saga.id, asked.task, asked.arguments)
                self._outbox[task.id] = task, self._clock()
                outbox.append(task)
            return Applied(
                status=changed.status,
                state=changed.state,
                recovery_attempts=changed.recovery_attempts,
                available_at=None if changed.state is SagaState.RUNNING else changed.available_at,
                log=changed.log[len(saga.log) :],
                inbox=changed.inbox,
                outbox=tuple(outbox),
            )

    def begin_step(self, lease: Lease, step: str, session: type[StepSession]) -> StepTransaction:
        opened = session.in_a_test(step, self._sessions)
        return StepInMemory(self, lease, step, opened, require_held=self.require_held)

    def require_held(self, lease: Lease, step: str) -> None:
        """Make sure that a lease holds the saga, and that this step is not checkpointed already.

        Raises:
            LeaseLost: it does not, or the step is.
        """
        with self._lock:
            in_flight = self._held(lease).in_flight
            if in_flight is not None and step not in in_flight:
                raise lease_lost(lease)

    def renew(self, lease: Lease, seconds: float) -> bool:
        with self._lock:
            saga, now = self._held(lease), self._clock()
            self._put(rules.renew(saga, now, seconds))
            return saga.name in self._pauses or self._yields.get(saga.id, now) > now

    def request_yield(self, saga_id: UUID, *, actor: str, for_seconds: float) -> None:
        with self._lock:
            self._yields[saga_id] = self._clock() + timedelta(seconds=for_seconds)

    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        with self._lock:
            self._put(replace(self._held(lease), definition=definition_hash))

    def operate(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Transition],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Applied | NotAcquired:
        request = LeaseRequest(owner=owner, seconds=0.0)
        with self._lock, self._all_or_nothing():
            found = self.acquire(saga_id, request, max_recovery_attempts=max_recovery_attempts, by_hand=True)
            if isinstance(found, NotAcquired) and found.why is Refusal.DIED:
                found = self.acquire(saga_id, request, max_recovery_attempts=max_recovery_attempts, by_hand=True)
            return found if isinstance(found, NotAcquired) else self.apply(found.lease, decide(found.record))
