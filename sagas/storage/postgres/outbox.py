"""Tasks that steps enqueued, until they are sent."""

from __future__ import annotations

from collections.abc import Sequence

from sagas.outbox import OutboxTask
from sagas.storage.arguments import require_counts, require_seconds
from sagas.storage.postgres.statements import Statements


class Outbox(Statements):
    """Keeps the outbox."""

    def claim_outbox(self, *, older_than_seconds: float, limit: int) -> list[OutboxTask]:
        require_counts(limit=limit)
        require_seconds(older_than_seconds=older_than_seconds)
        return [OutboxTask(**row) for row in self._query("claim_outbox", {"age": older_than_seconds, "limit": limit})]

    def delete_from_outbox(self, ids: Sequence[int]) -> None:
        self._execute("delete_from_outbox", {"rows": list(ids)})
