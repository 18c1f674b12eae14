"""Claims what is due or lost, so that messages are sent for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage import lost_messages, rules
from sagas.storage.answers import ClaimResult
from sagas.storage.arguments import require_counts
from sagas.storage.memory.pausing import Pausing
from sagas.storage.records import Claim, SagaState
from sagas.storage.transitions import PROBE_SECONDS


class Dispatching(Pausing):
    """Claims sagas for messages. A scan also frees what was resumed meanwhile."""

    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        require_counts(limit=limit, max_recovery_attempts=max_recovery_attempts)
        with self._lock:
            now = self._clock()
            self._free_resumed()
            lost = self._claim_lost(now, pending=pending, limit=limit)
            kind = [saga for saga in self._sagas.values() if (saga.status is SagaStatus.PENDING) == pending]
            kind = [saga for saga in kind if not saga.status.finished]
            waiting = sum(saga.state is SagaState.QUEUED for saga in kind)
            due = rules.due_first((saga for saga in kind if saga.state in rules.SCHEDULED), now)
            claims, died = lost.copy(), []
            for saga in due[: max(limit - waiting, 0)]:
                paused = saga.name in self._pauses
                changed = self._keep(
                    rules.claim(saga, now, max_recovery_attempts=max_recovery_attempts, name_paused=paused)
                )
                if changed.dead:
                    died.append(saga.id)
                elif changed.state is SagaState.QUEUED:
                    claims.append(Claim(saga.id, saga.version, pending, now))
            return ClaimResult(claims=tuple(claims), died=tuple(died), lost=len(lost))

    def _claim_lost(self, now: datetime, *, pending: bool, limit: int) -> list[Claim]:
        queued = [saga for saga in self._sagas.values() if saga.state is SagaState.QUEUED]
        queued = [saga for saga in queued if (saga.status is SagaStatus.PENDING) == pending]
        queued.sort(key=lambda saga: saga.available_at or now)
        delivered, delivered_at = self._deliveries.get(pending, (None, None))
        lost = [saga for saga in queued if lost_messages.lost_message(saga, delivered)][:limit]
        moves = delivered_at is not None and delivered_at > now - timedelta(seconds=PROBE_SECONDS)
        waits = moves or any(lost_messages.probed_lately(saga, now) for saga in queued)
        missed = [] if waits else [saga for saga in queued if saga.due(now) and saga not in lost]
        probed = missed[: lost_messages.PROBES]
        claims = []
        for saga in (*lost, *probed):
            if saga.name in self._pauses:
                self._put(rules.pause_queued(saga, now))
            else:
                self._put(lost_messages.probe(saga, now) if saga in probed else rules.queue(saga, now))
                claims.append(Claim(saga.id, saga.version, pending, now))
        return claims

    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        with self._lock:
            now = self._clock()
            found = [self._sagas[saga_id] for saga_id in dict.fromkeys(saga_ids) if saga_id in self._sagas]
            free = [saga for saga in found if saga.status is SagaStatus.PENDING and saga.state is SagaState.READY]
            free = [saga for saga in free if saga.due(now) and saga.name not in self._pauses]
            for saga in free:
                self._put(rules.queue(saga, now))
            return [Claim(saga.id, saga.version, True, now) for saga in free]

    def note_delivery(self, claim: Claim) -> None:
        with self._lock:
            before, _ = self._deliveries.get(claim.pending, (None, None))
            started = self._sagas.get(claim.saga_id) if claim.pending else None
            queued_at = claim.queued_at or (None if started is None else started.created_at)
            newest = max((time for time in (before, queued_at) if time is not None), default=None)
            self._deliveries[claim.pending] = (newest, self._clock())

    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        with self._lock:
            held = [saga for saga in self._sagas.values() if saga.lease_owner == owner]
            for saga in held:
                self._keep(rules.reclaim(saga, self._clock(), max_recovery_attempts=max_recovery_attempts))
            return len(held)

    def release_claims(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                saga = self._sagas.get(claim.saga_id)
                if saga is not None and saga.version == claim.version and saga.state is SagaState.QUEUED:
                    self._put(rules.release(saga, self._clock()))
