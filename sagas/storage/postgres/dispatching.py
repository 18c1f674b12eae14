"""Claims what is due or lost, so that messages are sent for it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from uuid import UUID

from sagas.progress import RECOVERABLE, SagaStatus
from sagas.storage.answers import ClaimResult
from sagas.storage.arguments import require_counts
from sagas.storage.lost_messages import OVERTAKING_SECONDS, PROBES
from sagas.storage.postgres.pausing import change_some
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.records import Claim, SagaState
from sagas.storage.transitions import MOST_PROBE_SECONDS, PROBE_SECONDS


class Dispatching(Statements):
    """Claims sagas for messages, one scan at a time."""

    def claim_sagas(self, *, pending: bool, limit: int, max_recovery_attempts: int) -> ClaimResult:
        require_counts(limit=limit, max_recovery_attempts=max_recovery_attempts)
        statuses = (SagaStatus.PENDING,) if pending else RECOVERABLE
        parameters = {
            "pending": pending,
            "statuses": [status.value for status in statuses],
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "probe": PROBE_SECONDS,
            "most_probe": MOST_PROBE_SECONDS,
            "overtaking": OVERTAKING_SECONDS,
            "probes": PROBES,
            "host": socket.gethostname(),
        }
        with self._scanning() as cursor:
            change_some(cursor, "free_resumed")
            missed = cursor.execute(query("claim_lost"), parameters).fetchall()
            due = cursor.execute(query("claim_new" if pending else "claim_due"), parameters).fetchall()
            cursor.execute(query("note_scan"), parameters)
        lost = [row for row in missed if row["state"] == SagaState.QUEUED]
        queued = [*lost, *(row for row in due if row["state"] == SagaState.QUEUED)]
        return ClaimResult(
            claims=tuple(Claim(row["id"], row["version"], pending, row["queued_at"]) for row in queued),
            died=tuple(row["id"] for row in due if row["state"] == SagaState.DEAD),
            lost=len(lost),
        )

    def claim_by_id(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        rows = self._query("claim_by_id", {"ids": list(saga_ids), "probe": PROBE_SECONDS})
        claims = {row["id"]: Claim(row["id"], row["version"], True, row["queued_at"]) for row in rows}
        return [claims.pop(saga_id) for saga_id in saga_ids if saga_id in claims]

    def note_delivery(self, claim: Claim) -> None:
        self._execute("note_delivery", {"id": claim.saga_id, "pending": claim.pending, "queued_at": claim.queued_at})

    def reclaim(self, owner: str, *, max_recovery_attempts: int) -> int:
        return self._execute("reclaim", {"owner": owner, "max_attempts": max_recovery_attempts})

    def release_claims(self, claims: Sequence[Claim]) -> None:
        ids, versions = [claim.saga_id for claim in claims], [claim.version for claim in claims]
        self._execute("release_claims", {"ids": ids, "versions": versions})
