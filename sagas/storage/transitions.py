"""The five transitions that a holder can ask the storage to write. An illegal one cannot be constructed.

Some name the inbox that the holder has `seen`: how many signals and requests it has read. If more were delivered since,
nothing is written, and `apply` raises `InboxMoved`. So no saga falls asleep, times out or ends beside an unread signal.

`Transition` is their sum type. `change_of` turns any of them into the columns that it sets, so that every storage
writes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from sagas.outbox import EnqueuedTask
from sagas.progress import Action, EntryStatus, SagaStatus
from sagas.storage.records import LogEntry, SagaState

_ACTIVE: Final = (SagaStatus.RUNNING, SagaStatus.COMPENSATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """An action ended, and the holder continues.

    A completed or skipped action sets the recovery attempts to 0, and the saga is no longer suspect. An operator's note
    does neither.

    Attributes:
        events: rows for the log, at least one.
        status: RUNNING or COMPENSATING.
        context: the context as changed; None leaves it.
        in_flight: the steps that begin next; None leaves what is stored.
        seen: the inbox that the holder has read, if what it writes depends on it.
        outbox: tasks that are written to the outbox.
    """

    events: tuple[LogEntry, ...]
    status: SagaStatus
    context: str | None = None
    in_flight: tuple[str, ...] | None = None
    seen: int | None = None
    outbox: tuple[EnqueuedTask, ...] = ()

    def __post_init__(self) -> None:
        _require_active(self.status)
        if not self.events:
            raise ValueError("Progressed has no events: give at least one row for the log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The saga has to wait: it is given back, and is due after this time.

    Attributes:
        events: rows for the log.
        status: RUNNING or COMPENSATING.
        after_seconds: when it is due; None for never, which only a saga that waits for a signal can be.
        context: the context as changed; None leaves it.
        waiting: whether it waits for a signal or a time, rather than for another attempt.
        seen: the inbox that the holder has read.
        outbox: tasks that are written to the outbox.
    """

    events: tuple[LogEntry, ...]
    status: SagaStatus
    after_seconds: float | None
    context: str | None = None
    waiting: bool = False
    seen: int | None = None
    outbox: tuple[EnqueuedTask, ...] = ()

    def __post_init__(self) -> None:
        _require_active(self.status)
        if self.after_seconds is None and not self.waiting:
            raise ValueError("a saga that waits for no signal must be due some time: give after_seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveBack:
    """The holder gives the saga back unchanged; no attempt is spent.

    Attributes:
        status: any status but COMPLETED and COMPENSATED.
        after_seconds: when it is due.
        queued: whether a message is about to be sent for it.
        events: rows for the log.
        last_error: the reason, for the operator; None leaves the one that is stored.
    """

    status: SagaStatus
    after_seconds: float = 0.0
    queued: bool = False
    events: tuple[LogEntry, ...] = ()
    last_error: str | None = None

    def __post_init__(self) -> None:
        if self.status.finished:
            raise ValueError(f"a saga cannot be given back as {self.status}: end it with Ended.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """This attempt at the saga failed and is counted. The saga is FAILED until the next one, and dead after the last.

    Attributes:
        events: rows for the log.
        after_seconds: when the next attempt is due.
        max_recovery_attempts: after how many failed attempts the saga is dead.
        last_error: the reason, for the operator; None takes it from the events.
    """

    events: tuple[LogEntry, ...]
    after_seconds: float
    max_recovery_attempts: int
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The saga ends.

    Attributes:
        events: rows for the log.
        status: COMPLETED or COMPENSATED.
        context: the context as changed; None leaves it.
        seen: the inbox that the holder has read; None if it does not matter, as to a saga that was compensated.
        outbox: tasks that are written to the outbox.
    """

    events: tuple[LogEntry, ...]
    status: SagaStatus
    context: str | None = None
    seen: int | None = None
    outbox: tuple[EnqueuedTask, ...] = ()

    def __post_init__(self) -> None:
        if not self.status.finished:
            raise ValueError(f"a saga cannot end as {self.status}: choose COMPLETED or COMPENSATED.")


Transition: TypeAlias = Progressed | Suspended | GaveBack | FailedAttempt | Ended


def outbox_of(transition: Transition) -> tuple[EnqueuedTask, ...]:
    """Return the tasks that a transition writes to the outbox."""
    return transition.outbox if isinstance(transition, Progressed | Suspended | Ended) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The columns that a transition sets.

    Attributes:
        status, state: the new values; the state is DEAD instead if a counted attempt reaches the maximum.
        after_seconds: when the saga is due, if it is given back; None for never.
        resets: whether the recovery attempts become 0, and the saga is no longer suspect.
        counts: whether one recovery attempt is added.
        max_recovery_attempts: the maximum, if an attempt is counted.
        context, in_flight, last_error: the new values; None leaves the stored ones.
        clears_error: whether the last error is deleted.
        seen: the inbox that the saga must have; None for any.
    """

    status: SagaStatus
    state: SagaState
    after_seconds: float | None = 0.0
    resets: bool = False
    counts: bool = False
    max_recovery_attempts: int = 0
    context: str | None = None
    in_flight: tuple[str, ...] | None = None
    last_error: str | None = None
    clears_error: bool = False
    seen: int | None = None


def change_of(transition: Transition) -> Change:
    """Return the columns that a transition sets."""
    resets = any(map(_is_progress, transition.events))
    error = next(filter(None, map(describe, reversed(transition.events))), None)
    match transition:
        case Progressed(status=status, context=context, in_flight=in_flight, seen=seen):
            return Change(
                status=status,
                state=SagaState.RUNNING,
                resets=resets,
                context=context,
                in_flight=in_flight,
                last_error=error,
                seen=seen,
            )
        case Suspended(status=status, after_seconds=after, context=context, waiting=waiting, seen=seen):
            return Change(
                status=status,
                state=SagaState.WAITING if waiting else SagaState.READY,
                after_seconds=after,
                resets=resets,
                context=context,
                last_error=error,
                seen=seen,
            )
        case GaveBack(status=status, after_seconds=after, queued=queued, last_error=last_error):
            return Change(
                status=status,
                state=SagaState.QUEUED if queued else SagaState.READY,
                after_seconds=PROBE_SECONDS if queued else after,
                resets=resets or any(entry.action is Action.OPERATOR for entry in transition.events),
                last_error=last_error or error,
            )
        case FailedAttempt(after_seconds=after, max_recovery_attempts=maximum, last_error=last_error):
            return Change(
                status=SagaStatus.FAILED,
                state=SagaState.READY,
                after_seconds=after,
                resets=resets,
                counts=True,
                max_recovery_attempts=maximum,
                last_error=last_error or error,
            )
        case Ended(status=status, context=context, seen=seen):
            return Change(
                status=status,
                state=SagaState.FINISHED,
                resets=True,
                context=context,
                last_error=error,
                clears_error=status is SagaStatus.COMPLETED,
                seen=seen,
            )


#: Seconds after which a scan asks whether the message of a queued saga is lost; doubled by each probe.
PROBE_SECONDS: Final = 5.0
MOST_PROBE_SECONDS: Final = 600.0


def describe(entry: LogEntry) -> str | None:
    """Return one line about a failed action, for `last_error`; None if the row is not a failed action of a step."""
    if entry.status is not EntryStatus.FAILED or entry.action not in (Action.ACT, Action.COMPENSATE):
        return None
    return f"{entry.step}, {entry.action}, attempt {entry.attempt}: {entry.error_type}: {entry.message}"


def _is_progress(entry: LogEntry) -> bool:
    done = (EntryStatus.COMPLETED, EntryStatus.SKIPPED)
    return entry.status in done and entry.action in (Action.ACT, Action.COMPENSATE)


def _require_active(status: SagaStatus) -> None:
    if status not in _ACTIVE:
        raise ValueError(f"a saga that continues cannot be {status}: give RUNNING or COMPENSATING.")
