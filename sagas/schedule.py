"""What a user writes to have sagas started at certain times."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Literal, get_args

from sagas.context import ContextT
from sagas.cron import Cron
from sagas.definition import Saga
from sagas.errors import DefinitionError
from sagas.storable import is_storable

#: What becomes of ticks during which no scan ran.
CatchUp = Literal["all", "last", "none"]
#: At most so many missed ticks are caught up, the newest ones.
MOST_CAUGHT_UP: Final = 1000
#: The name and a time are in idempotency keys, which have 255 characters.
MAX_SCHEDULE_NAME_LENGTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a schedule has to do at some moment.

    Attributes:
        ticks: for which sagas are to be started, the oldest first.
        until: the newest tick that is past, started or skipped; None if there is none.
        skipped: whether there are past ticks for which no saga is to be started.
    """

    ticks: Sequence[datetime] = ()
    until: datetime | None = None
    skipped: bool = False


class Schedule(Generic[ContextT]):
    """Starts a saga at each time that a cron expression names. Put it in a module that SAGAS_MODULES names.

    Each time is a *tick*. Its saga has the idempotency key `schedule:<name>:<tick in UTC>`, so each tick starts one
    saga, however many beats and scans there are. The saga is tagged with `schedule` and the name. A new schedule begins
    with the first tick after a scan has seen it.

    Args:
        saga: the class.
        cron: minute, hour, day of the month, month and day of the week, as `0 3 * * *` for each day at three.
        context: called with the tick, in the schedule's time zone; it returns the context to start the saga with. It
            runs within the scan, so it must be quick.
        timezone: a name of the time zone database.
        catch_up: what becomes of ticks that were missed because no scan ran. "last" starts one saga for the newest of
            them, "all" one for each of the newest 1000, "none" starts none.
        name: stable and unique; default: the saga's. With another name, the schedule is a new one.

    Raises:
        DefinitionError: an argument cannot be used.
    """

    def __init__(
        self,
        saga: type[Saga[ContextT]],
        cron: str,
        *,
        context: Callable[[datetime], ContextT],
        timezone: str = "UTC",
        catch_up: CatchUp = "last",
        name: str | None = None,
    ) -> None:
        if not (isinstance(saga, type) and issubclass(saga, Saga) and saga is not Saga):
            raise DefinitionError(
                f"{saga!r:.60} is no Saga class: give the class itself, as Schedule(CloseBooks, ...)."
            )
        self.saga = saga
        self.name = saga.stored_name() if name is None else name
        if not _is_name(self.name):
            raise DefinitionError(
                f"a schedule of {saga.__name__} is named {self.name!r:.60}: give it a `name` of 1 to "
                f"{MAX_SCHEDULE_NAME_LENGTH} characters without NUL, and without halves of surrogate pairs."
            )
        try:
            self.cron = Cron(cron, timezone)
        except DefinitionError as error:
            raise DefinitionError(f"schedule {self.name!r}: {error}") from error
        if catch_up not in get_args(CatchUp):
            raise DefinitionError(
                f"schedule {self.name!r}: catch_up is {catch_up!r:.60}: give 'last', 'all' or 'none'."
            )
        self.catch_up: CatchUp = catch_up
        if not callable(context) or inspect.iscoroutinefunction(context):
            raise DefinitionError(
                f"schedule {self.name!r}: context is {context!r:.60}: give a function of the tick that returns the "
                "context, and is not async."
            )
        self._context = context

    def __repr__(self) -> str:
        return f"Schedule({self.saga.__name__}, {self.cron.expression!r}, name={self.name!r})"

    def context_at(self, tick: datetime) -> ContextT:
        """Return the context of a tick's saga, checked.

        Raises:
            ContextError: it cannot be stored.
            Exception: whatever the user's function raises.
        """
        context = self._context(tick.astimezone(self.cron.zone))
        self.saga.codec.dump_checked(context)
        return context

    def key_at(self, tick: datetime) -> str:
        """Return the idempotency key of a tick's saga."""
        return f"schedule:{self.name}:{tick.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    def due(self, last: datetime, now: datetime, *, on_time: timedelta) -> Due:
        """Return what has to be done now.

        Args:
            last: the newest tick that was dealt with before.
            now: the database's time.
            on_time: a tick that is no older was not missed.
        """
        if self.next_tick(last) > now:
            return Due()
        (until,) = self.cron.newest(1, after=last, until=now)
        after = max(last, now - on_time) if self.catch_up == "none" else last
        most = 1 if self.catch_up == "last" else MOST_CAUGHT_UP
        ticks = self.cron.newest(most + 1, after=after, until=now)
        skipped = len(ticks) > most or (after > last and self.next_tick(last) <= after)
        return Due(ticks=ticks[-most:], until=until, skipped=skipped)

    def next_tick(self, after: datetime) -> datetime:
        """Return the first tick later than this moment, in UTC."""
        return next(self.cron.ticks(after))

    def is_tick(self, moment: datetime) -> bool:
        """Whether the schedule has a tick at this moment."""
        return self.next_tick(moment - timedelta(seconds=1)) == moment


AnySchedule = Schedule[Any]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_SCHEDULE_NAME_LENGTH and is_storable(name)
