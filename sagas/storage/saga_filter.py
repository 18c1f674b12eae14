"""Which sagas `find` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storable import require_storable
from sagas.storage.records import SagaRecord, SagaState


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """Which sagas a listing shows, the newest first. Each filter narrows the others; None and empty ones do not apply.

    Attributes:
        statuses, states: sagas with one of these.
        name: the stored name.
        key: the idempotency key.
        tags: sagas that have all of these tags, and maybe others.
        created_after, created_before: sagas created at this time or later, and before this time.
        updated_after, updated_before: the same for the last write. The last write of a finished saga is its end.
        after: the id of the last saga of the page before; only older sagas follow it.
        limit: how many at most.

    Raises:
        UnstorableText: a text has a character that no database can store.
        ValueError: a tag is not text, or a time has no time zone.
    """

    statuses: Sequence[SagaStatus] = ()
    states: Sequence[SagaState] = ()
    name: str | None = None
    key: str | None = None
    tags: Mapping[str, str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    after: UUID | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        require_storable(name=self.name, key=self.key)
        for tag, value in (self.tags or {}).items():
            if not isinstance(tag, str) or not isinstance(value, str):
                raise ValueError(f"tag {tag!r:.60} is {value!r:.60}: give text for both.")
            require_storable(tag=tag, value=value)
        for name in ("created_after", "created_before", "updated_after", "updated_before"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name} is {moment}: give it a time zone, as datetime(..., tzinfo=UTC).")

    def matches(self, saga: SagaRecord) -> bool:
        """Whether the listing shows a saga, if its limit allows."""
        written = saga.finished_at or saga.updated_at
        return (
            (not self.statuses or saga.status in self.statuses)
            and (not self.states or saga.state in self.states)
            and self.name in (None, saga.name)
            and self.key in (None, saga.idempotency_key)
            and (not self.tags or self.tags.items() <= (saga.tags or {}).items())
            and (self.created_after is None or saga.created_at >= self.created_after)
            and (self.created_before is None or saga.created_at < self.created_before)
            and (self.updated_after is None or written >= self.updated_after)
            and (self.updated_before is None or written < self.updated_before)
            and (self.after is None or saga.id < self.after)
        )
