"""Starts the sagas of schedules that are due. Every scan does it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sagas.errors import SchemaAhead, SchemaBehind, StorageUnavailable
from sagas.schedule import AnySchedule
from sagas.storage.contract import ISagaStorage
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: Cron counts minutes, so a tick that is a minute old was not missed, even if scans are more frequent.
_ON_TIME_SECONDS: Final = 60.0
#: Sagas started in one statement.
_BATCH: Final = 100

#: Stores sagas of a schedule, given contexts and idempotency keys; returns for each its id and whether it is new.
Start = Callable[[AnySchedule, Sequence[Any], Sequence[str]], list[tuple[UUID, bool]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What one scan did for the schedules.

    Attributes:
        sagas: ids of the sagas that it started.
        failed: names of schedules that are due, but whose sagas could not be started.
    """

    sagas: tuple[UUID, ...] = ()
    failed: tuple[str, ...] = ()


def on_time(scan_interval_seconds: float) -> timedelta:
    """Return the age up to which a tick is on time: two scans, and at least a minute."""
    return timedelta(seconds=max(2 * scan_interval_seconds, _ON_TIME_SECONDS))


class Scheduler:
    """Starts the sagas of schedules that are due.

    A tick is noted after its saga was started. If this process dies in between, the next scan starts the tick again,
    and its idempotency key makes that the same saga.

    Args:
        storage: its clock decides what is due, and it has the last tick of each schedule.
        start: stores sagas; the scan that follows sends them.
        scan_interval_seconds: how often scans run.
    """

    def __init__(self, storage: ISagaStorage, start: Start, *, scan_interval_seconds: float) -> None:
        self._storage = storage
        self._start = start
        self._on_time = on_time(scan_interval_seconds)
        self._reported: dict[str, str] = {}

    def start_due(self, schedules: Iterable[AnySchedule]) -> Started:
        """Start a saga for each tick that is due. A schedule that fails is reported and does not stop the others.

        Raises:
            StorageUnavailable, SchemaBehind, SchemaAhead: as from the storage.
        """
        schedules = list(schedules)
        if not schedules:
            return Started()
        ticks = self._storage.schedule_ticks([schedule.name for schedule in schedules])
        started: list[UUID] = []
        failed: list[str] = []
        for schedule in schedules:
            last = ticks.last.get(schedule.name)
            if last is None:
                continue  # another scan makes it known at this moment
            try:
                started += self._start_ticks(schedule, last, ticks.now)
            except _ContextFailed as error:
                self._report(schedule, f"its context for {error.tick:%Y-%m-%d %H:%M:%S %Z} failed", error.cause)
                started += error.started
                failed.append(schedule.name)
            except (StorageUnavailable, SchemaBehind, SchemaAhead):
                raise
            except Exception as error:
                self._report(schedule, "its saga could not be started", error)
                failed.append(schedule.name)
            else:
                self._reported.pop(schedule.name, None)
        return Started(sagas=tuple(started), failed=tuple(failed))

    def _start_ticks(self, schedule: AnySchedule, last: datetime, now: datetime) -> list[UUID]:
        due = schedule.due(last, now, on_time=self._on_time)
        if due.until is None:
            return []
        started: list[UUID] = []
        for place in range(0, len(due.ticks), _BATCH):
            batch = due.ticks[place : place + _BATCH]
            contexts, error = _contexts(schedule, batch)
            if contexts:
                keys = [schedule.key_at(tick) for tick in batch[: len(contexts)]]
                started += (saga_id for saga_id, is_new in self._start(schedule, contexts, keys) if is_new)
                self._storage.note_tick(schedule.name, batch[len(contexts) - 1])
            if error is not None:
                # The later ticks wait, so that none of them is lost and their order is kept.
                raise _ContextFailed(batch[len(contexts)], error, started)
        self._storage.note_tick(schedule.name, due.until)
        if due.skipped:
            logger.warning(
                "schedule %r skipped ticks after %s that no scan was there for (catch_up=%r)",
                *(schedule.name, f"{last:%Y-%m-%d %H:%M:%S %Z}", schedule.catch_up),
            )
        return started

    def _report(self, schedule: AnySchedule, what: str, error: Exception) -> None:
        """Log a failure once, although each scan tries again."""
        failure = f"{what} with {type(error).__name__}"
        if self._reported.get(schedule.name) != failure:
            self._reported[schedule.name] = failure
            logger.error(
                "schedule %r is due, but %s (%s). Correct it; scans try again.",
                *(schedule.name, failure, error),
                exc_info=error,
            )


class _ContextFailed(Exception):
    def __init__(self, tick: datetime, cause: Exception, started: Sequence[UUID]) -> None:
        super().__init__(tick, cause)
        self.tick, self.cause, self.started = tick, cause, started


def _contexts(schedule: AnySchedule, ticks: Sequence[datetime]) -> tuple[list[Any], Exception | None]:
    """Return the contexts of these ticks up to the first that fails, and its error."""
    contexts: list[Any] = []
    for tick in ticks:
        try:
            contexts.append(schedule.context_at(tick))
        except Exception as error:  # the user's function may raise anything
            return contexts, error
    return contexts, None
