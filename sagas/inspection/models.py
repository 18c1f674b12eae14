"""What the inspector answers with, as plain immutable data; pydantic's `TypeAdapter` makes JSON of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.records import Pause, SagaFilter, SagaRecord, SagaState


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter(SagaFilter):
    """Which sagas a page shows, the newest first; None asks for no such filter.

    Attributes:
        leased_by: a whole lease owner, or the node that it begins with.
        older_than_seconds: started longer ago than this.
        newer_than_seconds: started not longer ago than this.
        after: the last id of the page before.
    """

    leased_by: str | None = None
    older_than_seconds: float | None = None
    newer_than_seconds: float | None = None
    after: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of sagas, without their logs; `more` if others follow."""

    now: datetime
    records: tuple[SagaRecord, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaDetails:
    """A saga with its log, and what else bears on it.

    Attributes:
        now: the database's time.
        pause: of its name, if that is paused.
        yield_requested_by: who requested that its holder gives it back.
    """

    now: datetime
    record: SagaRecord
    pause: Pause | None = None
    yield_requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A saga that a text may mean."""

    id: UUID
    name: str
    status: SagaStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Unfinished sagas that are alike.

    Attributes:
        declined: whether a worker gave them back because its code does not fit.
        definition, definition_version: what they were started with.
        sagas: how many they are.
        due: how many of them are due, or for which, queued, the scan asks whether the message is lost.
        lately: how many of them were last written to within the last hour.
        since: when the first of them was queued, or is due in any other state; None if never.
        example: one of them.
        last_error: of the example.
    """

    name: str
    status: SagaStatus
    state: SagaState
    declined: bool
    definition: str | None
    definition_version: str
    sagas: int
    due: int
    lately: int
    since: datetime | None
    example: UUID
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How many sagas of one name ended with this status; `recovered` of them were acquired more than once."""

    name: str
    status: SagaStatus
    sagas: int
    recovered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """A saga, and since when it is due."""

    id: UUID
    name: str
    due_since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastScan:
    """When the last scan ran, and on which host."""

    host: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How many sagas are in which state.

    Attributes:
        unfinished: all unfinished sagas, counted.
        ended: those that ended lately.
        oldest_pending: of those that never ran and that no scan has queued yet, the one that is due for the longest.
        oldest_recoverable: the same of those that have begun.
        finished_in_total: by status; None unless asked for.
    """

    now: datetime
    unfinished: tuple[Count, ...] = ()
    ended: tuple[Ended, ...] = ()
    oldest_pending: Oldest | None = None
    oldest_recoverable: Oldest | None = None
    pauses: tuple[Pause, ...] = ()
    last_scan: LastScan | None = None
    finished_in_total: Mapping[SagaStatus, int] | None = None

    def in_state(self, state: SagaState) -> list[Count]:
        """Return the counts of this state."""
        return [count for count in self.unfinished if count.state is state]

    @property
    def queued_since(self) -> datetime | None:
        """When the first of the queued sagas was queued."""
        return min((count.since for count in self.in_state(SagaState.QUEUED) if count.since), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What one owner of leases holds.

    Attributes:
        sagas: how many.
        names: of the sagas.
        expired: how many leases have run out.
        heard_at: when it last wrote anything: a checkpoint or a renewal.
        quietest_since: when it last wrote to the saga that it has left alone for the longest.
        first_lease_ends: when the first of its leases runs out, unless renewed.
    """

    owner: str
    sagas: int
    names: Sequence[str]
    expired: int
    heard_at: datetime
    quietest_since: datetime
    first_lease_ends: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits in one of the two queues; the scan asks of the `overdue` whether their messages are lost."""

    pending: bool
    sagas: int
    since: datetime | None
    overdue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedName:
    """A saga name that is paused, or that was resumed while some of its sagas are still paused.

    Attributes:
        paused: how many of its sagas are paused.
        actor, reason, since: who paused the name, why and since when; None if it was resumed.
    """

    name: str
    paused: int
    actor: str | None = None
    reason: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Who holds what, what waits in the queues, and what is paused."""

    now: datetime
    workers: tuple[Holder, ...]
    queue: tuple[Queue, ...]
    paused: tuple[PausedName, ...]


class ScanVerdict(StrEnum):
    """What a scan would do with an unfinished saga, or why it would pass over it.

    OVERDUE: it is queued, and a second message is sent, as the first one is or may be lost.
    """

    DISPATCHED = "dispatched"
    PAUSES = "pauses"
    DIES = "dies"
    BEYOND_LIMIT = "beyond the limit"
    QUEUED = "queued"
    OVERDUE = "overdue"
    HELD = "held"
    BACKING_OFF = "backing off"
    SLEEPING = "sleeping"
    DECLINED = "declined"
    PAUSED = "paused"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One saga as a scan sees it."""

    id: UUID
    name: str
    status: SagaStatus
    state: SagaState
    lease_owner: str | None
    available_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """How many sagas a scan would treat so, and the first of them in its order."""

    verdict: ScanVerdict
    sagas: int = 0
    first: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a scan would do now; verdicts in the order of `ScanVerdict`, only those that some saga has."""

    now: datetime
    verdicts: tuple[Verdicts, ...]
