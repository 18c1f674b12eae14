"""What a program sees of a saga: `get` and `wait` return a `SagaView`, `find` returns a `SagaSummary` of each saga."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sagas.context import ContextCodec
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict, aborted
from sagas.storage.records import LogEntry, SagaRecord, SagaState


@dataclass(frozen=True, kw_only=True)
class SagaSummary:
    """One saga as it was when it was read, without what its log says. Nothing in it changes the saga.

    Attributes:
        id: the saga's id.
        name: the name that is stored; for a renamed saga its oldest name.
        status: how the business process stands.
        state: who may act on the saga now.
        idempotency_key: the key that it was started with, if any.
        tags: what it was started with to be found by.
        until: when a saga that waits goes on by itself. None if it waits without an end, or does not wait.
        held_by: the worker that runs it now.
        recovery_attempts: how many attempts at the saga have failed since it last made progress.
        last_error: what failed last.
        created_at, updated_at, finished_at: when it was started, last written, and ended, by the database's clock.
        deadline_at: when it is to have ended; None if it has no deadline.
        context_json: the context as it is stored.
    """

    id: UUID
    name: str
    status: SagaStatus
    state: SagaState
    idempotency_key: str | None
    tags: Mapping[str, str]
    until: datetime | None
    held_by: str | None
    recovery_attempts: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    deadline_at: datetime | None
    context_json: str = field(repr=False)
    codec: InitVar[ContextCodec[Any] | None] = None

    def __post_init__(self, codec: ContextCodec[Any] | None) -> None:
        object.__setattr__(self, "_codec", codec)  # no field, so that `asdict` returns plain data

    @property
    def context(self) -> Any:
        """The context, read anew at each use: of the type that the saga's class declares, else plain JSON data.

        Raises:
            ContextError: the context does not fit the class. `context_json` has it as it is stored.
        """
        codec: ContextCodec[Any] | None = self.__dict__["_codec"]
        return json.loads(self.context_json) if codec is None else codec.load(self.context_json)

    @property
    def dead(self) -> bool:
        """Whether all recovery attempts are spent, so that only an operator makes the saga go on."""
        return self.state is SagaState.DEAD

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself: the saga is COMPLETED, COMPENSATED or dead."""
        return is_over(self.status, self.state)


@dataclass(frozen=True, kw_only=True)
class SagaView(SagaSummary):
    """One saga as it was when it was read, with what its log says. Nothing in it changes the saga.

    Attributes:
        done: the steps that have completed and that are not compensated, in the order in which they completed.
        waiting_for: the steps that the saga waits for: waits and sleeps, and steps that are tried again later.
    """

    done: tuple[str, ...]
    waiting_for: tuple[str, ...]


def is_over(status: SagaStatus, state: SagaState) -> bool:
    """Whether a saga has finished or is dead."""
    return status.finished or state is SagaState.DEAD


def summary_of(record: SagaRecord, codec: ContextCodec[Any] | None = None) -> SagaSummary:
    """Return what a program sees of a saga without its log.

    Args:
        record: the saga.
        codec: reads its context; None for plain data.
    """
    return SagaSummary(**_columns(record, codec))


def view_of(record: SagaRecord, codec: ContextCodec[Any] | None = None) -> SagaView:
    """Return what a program sees of a saga with its log. Arguments are those of `summary_of`."""
    return SagaView(**_columns(record, codec), done=_done(record.log), waiting_for=waiting_for(record))


def _columns(record: SagaRecord, codec: ContextCodec[Any] | None) -> dict[str, Any]:
    names = (
        *("id", "name", "status", "state", "idempotency_key", "recovery_attempts", "last_error"),
        *("created_at", "updated_at", "finished_at", "deadline_at"),
    )
    return {name: getattr(record, name) for name in names} | {
        "tags": dict(record.tags or {}),
        "until": record.available_at if record.state in (SagaState.READY, SagaState.WAITING) else None,
        "held_by": record.lease_owner,
        "context_json": record.context,
        "codec": codec,
    }


def _done(log: Iterable[LogEntry]) -> tuple[str, ...]:
    done: dict[str, None] = {}
    for entry in log:
        if entry.status not in (EntryStatus.COMPLETED, EntryStatus.SKIPPED):
            continue
        if entry.action is Action.ACT:
            done[entry.step] = None
        elif entry.action is Action.COMPENSATE:
            done.pop(entry.step, None)
    return tuple(done)


def waiting_for(record: SagaRecord) -> tuple[str, ...]:
    """Return the names of the waits that have begun and not ended, and of the steps that are to be tried again."""
    if record.status.finished:
        return ()
    backward = aborted(record.log)
    waiting: dict[str, None] = {}
    for entry in record.log:
        if entry.action is not (Action.COMPENSATE if backward else Action.ACT):
            continue
        retried = entry.status is EntryStatus.FAILED and entry.verdict is not Verdict.ABORT
        if retried or entry.status is EntryStatus.ARMED:
            waiting[entry.step] = None
        else:
            waiting.pop(entry.step, None)
    return tuple(waiting)
