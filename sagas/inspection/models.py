"""The inspector's answers, as plain immutable data. pydantic's `TypeAdapter` can turn each into JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.records import Pause, SagaRecord, SagaState
from sagas.storage.saga_filter import SagaFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter(SagaFilter):
    """Which sagas a page shows, the newest first. A filter that is None does not apply.

    Attributes:
        leased_by: a whole lease owner, or the node that it begins with.
        older_than_seconds: started longer ago than this.
        newer_than_seconds: started not longer ago than this.
        error: unfinished sagas whose last error has this text, in capitals or not.
    """

    leased_by: str | None = None
    error: str | None = None
    older_than_seconds: float | None = None
    newer_than_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of sagas, without their logs; `more` if others follow.

    Attributes:
        searched_to: older sagas than this one were not searched, and may match too; None if all were.
        secret_fields: for the names that have any: the fields of their contexts that are not shown to people. It is
            read only if asked for.
    """

    now: datetime
    records: tuple[SagaRecord, ...]
    more: bool
    searched_to: UUID | None = None
    secret_fields: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaDetails:
    """A saga with its log, and what operators have asked for it.

    Attributes:
        now: the database's time.
        pause: the pause of its name, if the name is paused.
        yield_requested_by: the operator who requested that the holder gives the saga back.
    """

    now: datetime
    record: SagaRecord
    pause: Pause | None = None
    yield_requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A signal or a request to cancel that was sent to a saga.

    Attributes:
        kind: "signal" or "cancel".
        name: the wait that it is for; empty for a request to cancel.
        payload: JSON text, or None.
        delivered: whether the saga's inbox counts it.
    """

    id: int
    kind: str
    name: str
    signal_id: str
    payload: str | None
    actor: str | None
    reason: str | None
    sent_at: datetime
    delivered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """All that the database knows of a saga.

    Attributes:
        details: the saga with its log, and what operators have asked for it.
        graph: JSON of the graph that it was started with; None if that is not stored.
        versions: the graphs of all versions of the saga.
        sent: what was sent to it, the newest first.
        last_scan: when the last scan ran; without scans nothing goes on that waits.
    """

    details: SagaDetails
    graph: str | None
    versions: tuple[str, ...]
    sent: tuple[Sent, ...]
    last_scan: LastScan | None


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
        definition, definition_version: the definition that they were started with.
        sagas: how many sagas there are.
        due: how many of them are due. A queued saga counts once the scan may send its message again.
        lately: how many of them were last written within the last hour.
        since: when the first of them was queued, or became due in any other state; None if they never become due.
        example: the id of one of them.
        last_error: the last error of the example.
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
    """A saga, and the time since when it is due."""

    id: UUID
    name: str
    due_since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastScan:
    """When the last scan ran, and on which host."""

    host: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A number of sagas; an estimate where counting would read too many."""

    sagas: int
    estimated: bool = False

    def __add__(self, other: Tally) -> Tally:
        return Tally(sagas=self.sagas + other.sagas, estimated=self.estimated or other.estimated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Unfinished sagas of one name that stand alike.

    Attributes:
        tally: how many there are.
        due: how many of them are due.
        first_due: when the first of them became or becomes due; None if they never do.
    """

    name: str
    status: SagaStatus
    state: SagaState
    tally: Tally
    due: Tally
    first_due: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedLately:
    """Sagas of one name that ended with this status; `recovered` of them were acquired more than once."""

    name: str
    status: SagaStatus
    tally: Tally
    recovered: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How all sagas stand. It takes about as long with ten million sagas as with ten thousand.

    Attributes:
        unfinished: the unfinished sagas.
        ended: those that ended within the last hour.
        oldest_pending, oldest_recoverable: as in `Statistics`.
        last_scan: the last scan of any host.
        delivered_at: when a message last reached a worker.
        in_total: all sagas, as the server's statistics have them; None if it has none yet.
    """

    now: datetime
    unfinished: tuple[Standing, ...]
    ended: tuple[EndedLately, ...]
    oldest_pending: Oldest | None
    oldest_recoverable: Oldest | None
    pauses: tuple[Pause, ...]
    last_scan: LastScan | None
    delivered_at: datetime | None
    in_total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How many sagas are in which state.

    Attributes:
        unfinished: all unfinished sagas, counted.
        ended: those that ended lately.
        oldest_pending: the saga that has been due for the longest, of those that never ran and are not queued.
        oldest_recoverable: the saga that has been due for the longest, of those that have begun and are not queued.
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
    """An owner of leases, and the sagas that it holds.

    Attributes:
        sagas: how many sagas it holds.
        names: the names of these sagas.
        expired: how many of its leases have expired.
        heard_at: when it last wrote a checkpoint or a renewal.
        quietest_since: when it last wrote to the saga that it has left alone for the longest.
        first_lease_ends: when the first of its leases expires, unless it is renewed.
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
    """The queued sagas of one of the two queues. The messages of the `overdue` may be lost, and scans probe them."""

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
    """The holders of leases, the queued sagas, and the paused names."""

    now: datetime
    workers: tuple[Holder, ...]
    queue: tuple[Queue, ...]
    paused: tuple[PausedName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """The paused names."""

    now: datetime
    paused: tuple[PausedName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """The schedules that scans know.

    Attributes:
        last: by name, the last tick that was dealt with, or when a scan first saw the schedule.
    """

    now: datetime
    last: Mapping[str, datetime]


class ScanVerdict(StrEnum):
    """What a scan would do with an unfinished saga, or why it would skip it.

    PAUSES: the saga is due, and the scan would pause it with its name. PAUSED: it is paused already. OVERDUE: it is
    queued, and the scan would send a second message, because the first one is or may be lost.
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
    WAITING = "waiting"
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
    """How many sagas have a verdict, and the first of them in the order of the scan."""

    verdict: ScanVerdict
    sagas: int = 0
    first: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a scan would do now. The verdicts are in the order of `ScanVerdict`; those without a saga are left out."""

    now: datetime
    verdicts: tuple[Verdicts, ...]
