"""What the questions of `sagas.storage.operations` are answered with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.records import Pause, SagaRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which sagas to list, the newest first; None asks for no such filter.

    Attributes:
        leased_by: a whole owner, or the node that it begins with.
        older_than_seconds: started longer ago than this.
        newer_than_seconds: started not longer ago than this.
        after: the last id of the page before.
        limit: how many at most.
    """

    statuses: Sequence[SagaStatus] = ()
    name: str | None = None
    dead: bool = False
    leased_by: str | None = None
    older_than_seconds: float | None = None
    newer_than_seconds: float | None = None
    after: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a listing; `more` if others follow. Records are without their logs."""

    now: datetime
    records: tuple[SagaRecord, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A saga that is meant by what an operator typed."""

    id: UUID
    name: str
    status: SagaStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else bears on one saga: whether its name is paused, and who asked it back from its holder."""

    now: datetime
    pause: Pause | None = None
    asked_back_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many unfinished sagas of one name and status there are.

    Attributes:
        sagas: all of them.
        dead: given up by recovery.
        died_lately: dead, and given up within the last hour.
        failed_lately: FAILED and not dead, and last failed, or sent to a worker again, within the last hour.
        queued: waiting for a worker with a message in the broker.
        parked: put aside because the name is paused.
    """

    name: str
    status: SagaStatus
    sagas: int
    dead: int
    died_lately: int
    failed_lately: int
    queued: int
    queued_since: datetime | None
    parked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How many sagas of one name ended so within the last hour.

    `recovered` of them were taken more than once: after a crash, a failed attempt, a durable wait or a handing over.
    """

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
    """How all sagas stand.

    Attributes:
        unfinished: by name and status.
        ended_lately: COMPLETED or COMPENSATED within the last hour, by name and status.
        oldest_recoverable: the begun saga that is due, and that no scan has sent to a worker yet, for the longest.
        queued_since: when the longest waiting of those in the queue was sent there.
        finished_in_total: by status; None unless asked for.
    """

    now: datetime
    unfinished: tuple[Count, ...]
    ended_lately: tuple[Ended, ...]
    oldest_recoverable: Oldest | None
    queued_since: datetime | None
    pauses: tuple[Pause, ...]
    last_scan: LastScan | None
    finished_in_total: Mapping[SagaStatus, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What one owner of leases holds.

    Attributes:
        sagas: how many.
        names: of the sagas.
        first_lease_ends: when the first of its leases runs out, unless renewed.
        quietest_since: when it last wrote to the saga that it has left alone for the longest.
        heard_at: when it last wrote anything: a checkpoint or a renewal.
        expired: how many leases have run out.
    """

    owner: str
    sagas: int
    names: Sequence[str]
    first_lease_ends: datetime
    quietest_since: datetime
    heard_at: datetime
    expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """What waits in one queue; `overdue` are marks that ran out: in a long queue, or their messages are gone."""

    pending: bool
    sagas: int
    since: datetime
    overdue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """What is put aside of one name; by whom, why and since when it is paused."""

    name: str
    sagas: int
    by: str | None
    because: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Who holds what."""

    now: datetime
    holders: tuple[Holder, ...]
    queue: tuple[Queued, ...]
    parked: tuple[Parked, ...]


class ScanVerdict(StrEnum):
    """What a scan would do with an unfinished saga, or why it would pass over it."""

    DISPATCHED = "dispatched"
    PARKS = "parks"
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
    lease_owner: str | None
    available_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """How many sagas a scan would treat so, and the first of them in its order."""

    verdict: ScanVerdict
    sagas: int
    first: tuple[Judged, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a scan would do now; verdicts in the order of `ScanVerdict`, only those that some saga has."""

    now: datetime
    verdicts: tuple[Verdicts, ...]
