"""A schedule: its arguments, its keys, and which ticks it catches up."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sagas import Saga, Schedule
from sagas.errors import ContextError, DefinitionError
from sagas.schedule import MOST_CAUGHT_UP, CatchUp, Due
from tests.samples import Stage, Trip, saga_of

SAGA = Stage().saga("hotel")
ON_TIME = timedelta(minutes=1)


def day(number: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2027, 1, number, hour, minute, tzinfo=UTC)


def schedule(cron: str = "0 3 * * *", **options: Any) -> Schedule[Trip]:
    return Schedule(SAGA, cron, **{"context": lambda tick: Trip(note=f"{tick:%d %H:%M %z}"), **options})


def due(catch_up: CatchUp, last: datetime, now: datetime, cron: str = "0 3 * * *") -> Due:
    return schedule(cron, catch_up=catch_up).due(last, now, on_time=ON_TIME)


def test_the_name_is_the_sagas_or_ones_own() -> None:
    renamed = saga_of([Stage().step("hotel")], name="trip", aliases=("voyage",))

    assert schedule().name == "trip"
    assert schedule(name="nightly").name == "nightly"
    # A saga that is renamed keeps its schedule.
    assert Schedule(renamed, "0 3 * * *", context=lambda _: Trip()).name == "voyage"


def test_a_tick_is_an_idempotency_key_in_utc() -> None:
    berlin = schedule(name="nightly", timezone="Europe/Berlin")

    assert berlin.key_at(berlin.next_tick(day(1))) == "schedule:nightly:2027-01-01T02:00:00Z"


def test_the_longest_name_fits_into_the_key_of_a_saga() -> None:
    assert len(schedule(name="n" * 200).key_at(day(1))) <= 255


def test_the_context_is_made_from_the_tick_in_the_zone_of_the_schedule() -> None:
    berlin = schedule(timezone="Europe/Berlin")

    assert berlin.context_at(day(1, 2)) == Trip(note="01 03:00 +0100")


def test_a_context_that_cannot_be_stored_is_refused_before_a_saga_is() -> None:
    with pytest.raises(ContextError):
        schedule(context=lambda tick: {"not": "a trip"}).context_at(day(1))


@pytest.mark.parametrize("catch_up", ["last", "all", "none"])
def test_a_tick_is_due_once_it_is_reached_and_until_it_is_noted(catch_up: CatchUp) -> None:
    tick = day(2, 3)

    assert due(catch_up, day(1, 3), tick - timedelta(microseconds=1)) == Due()
    assert due(catch_up, day(1, 3), tick) == Due(ticks=[tick], until=tick)
    assert due(catch_up, day(1, 3), tick + ON_TIME / 2) == Due(ticks=[tick], until=tick)
    assert due(catch_up, tick, tick + ON_TIME / 2) == Due()


def test_only_the_newest_missed_tick_is_caught_up_by_default() -> None:
    assert due("last", day(1, 3), day(4, 12)) == Due(ticks=[day(4, 3)], until=day(4, 3), skipped=True)
    assert due("last", day(3, 3), day(4, 12)) == Due(ticks=[day(4, 3)], until=day(4, 3))
    assert schedule().catch_up == "last"


def test_all_missed_ticks_are_caught_up_in_order() -> None:
    assert due("all", day(1, 3), day(4, 12)) == Due(ticks=[day(2, 3), day(3, 3), day(4, 3)], until=day(4, 3))


def test_no_more_than_the_newest_thousand_are_caught_up() -> None:
    found = due("all", day(1), day(3), cron="* * * * *")

    assert len(found.ticks) == MOST_CAUGHT_UP == 1000
    assert (found.ticks[0], found.ticks[-1]) == (day(3) - timedelta(minutes=999), day(3))
    assert found.skipped
    assert not due("all", day(3) - timedelta(minutes=1000), day(3), cron="* * * * *").skipped


def test_no_missed_tick_is_caught_up_if_none_are_wanted() -> None:
    assert due("none", day(1, 3), day(4, 12)) == Due(ticks=[], until=day(4, 3), skipped=True)
    # What is not older than a scan or two was not missed.
    assert due("none", day(1, 3), day(4, 3, 1) - timedelta(seconds=1)) == Due(
        ticks=[day(4, 3)], until=day(4, 3), skipped=True
    )
    assert due("none", day(3, 3), day(4, 3, 1) - timedelta(seconds=1)) == Due(ticks=[day(4, 3)], until=day(4, 3))


def test_a_last_tick_in_the_future_of_the_database_starts_nothing() -> None:
    assert due("all", day(9), day(4)) == Due()


async def _async_context(tick: datetime) -> Trip:
    return Trip()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cron": "0 25 * * *"}, "schedule 'trip': cron is '0 25 * * *', which has a wrong hour"),
        ({"timezone": "Europe/Atlantis"}, "schedule 'trip': timezone is 'Europe/Atlantis', which is no time zone"),
        ({"catch_up": "some"}, "schedule 'trip': catch_up is 'some': give 'last', 'all' or 'none'"),
        ({"context": Trip()}, "schedule 'trip': context is Trip"),
        ({"context": _async_context}, "and is not async"),
        ({"name": ""}, "is named '': give it a `name` of 1 to 200 characters"),
        ({"name": "n" * 201}, "give it a `name` of 1 to 200 characters"),
        ({"name": "nightly\0"}, "give it a `name`"),
        ({"name": 3}, "give it a `name`"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_work_is_refused_when_the_schedule_is_made(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(why)):
        schedule(**options)


@pytest.mark.parametrize("saga", [Saga, "trip", Trip, None])
def test_what_is_no_saga_class_is_refused(saga: Any) -> None:
    with pytest.raises(DefinitionError, match="is no Saga class: give the class itself"):
        Schedule(saga, "0 3 * * *", context=lambda tick: Trip())
