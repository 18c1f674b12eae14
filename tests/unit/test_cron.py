"""When cron expressions are due: changes of daylight saving time, catching up, and what is refused."""

from __future__ import annotations

import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sagas.cron import Cron
from sagas.errors import DefinitionError

#: Clocks go forward from 2:00 to 3:00 on 28 March 2027, and back from 3:00 to 2:00 on 31 October 2027.
BERLIN = "Europe/Berlin"
SPRING, AUTUMN = datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)


def local(cron: Cron, after: datetime, count: int) -> list[str]:
    """The next ticks by the clocks of the zone, with its distance from UTC."""
    return [f"{tick.astimezone(cron.zone):%d %H:%M %z}" for tick in islice(cron.ticks(after), count)]


@pytest.mark.parametrize(
    ("expression", "ticks"),
    [
        # 2:30 does not exist on the 28th: the first moment after the gap.
        ("30 2 * * *", ["28 03:00 +0200", "29 02:30 +0200"]),
        ("0 3 * * *", ["28 03:00 +0200", "29 03:00 +0200"]),
        # Both 2:00, moved, and 3:00 are the same moment.
        ("0 2,3 * * *", ["28 03:00 +0200", "29 02:00 +0200"]),
        ("30 1 * * *", ["28 01:30 +0100", "29 01:30 +0200"]),
    ],
)
def test_a_daily_tick_whose_time_does_not_exist_comes_right_after_the_gap(expression: str, ticks: list[str]) -> None:
    assert local(Cron(expression, BERLIN), SPRING, 2) == ticks


@pytest.mark.parametrize(
    ("expression", "ticks"),
    [
        ("30 2 * * *", ["31 02:30 +0200", "01 02:30 +0100"]),
        ("0 3 * * *", ["31 03:00 +0100", "01 03:00 +0100"]),
        ("0 2,3 * * *", ["31 02:00 +0200", "31 03:00 +0100"]),
        ("0 2 * * *", ["31 02:00 +0200", "01 02:00 +0100"]),
    ],
)
def test_a_daily_tick_whose_time_exists_twice_comes_at_the_first(expression: str, ticks: list[str]) -> None:
    assert local(Cron(expression, BERLIN), AUTUMN, 2) == ticks


def test_an_expression_that_begins_with_a_star_follows_the_clock() -> None:
    hourly = Cron("0 * * * *", BERLIN)

    assert local(hourly, datetime(2027, 3, 28, 0, 30, tzinfo=UTC), 2) == ["28 03:00 +0200", "28 04:00 +0200"]
    assert local(hourly, datetime(2027, 10, 30, 23, 30, tzinfo=UTC), 3) == [
        "31 02:00 +0200",
        "31 02:00 +0100",
        "31 03:00 +0100",
    ]
    # In the missing hour there are none, in the repeated one there are twice as many.
    assert local(Cron("*/30 2 * * *", BERLIN), SPRING, 1) == ["29 02:00 +0200"]
    assert local(Cron("*/30 2 * * *", BERLIN), AUTUMN, 4)[-1] == "31 02:30 +0100"


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC"])
@pytest.mark.parametrize("time", ["0 0", "30 1", "0 2", "15 2", "59 2", "0 3", "30 23"])
def test_each_day_of_years_has_one_tick(zone: str, time: str) -> None:
    cron = Cron(f"{time} * * *", zone)
    ticks = list(islice(cron.ticks(datetime(2026, 1, 1, tzinfo=UTC)), 2 * 365))

    days = [tick.astimezone(cron.zone).date() for tick in ticks]

    assert [later - day for day, later in pairwise(days)] == [timedelta(days=1)] * (len(days) - 1)
    assert all(timedelta(hours=22) < later - tick < timedelta(hours=26) for tick, later in pairwise(ticks))


EXPRESSIONS = ["30 2 * * *", "0 2,3 * * *", "*/20 2 * * *", "0 * * * *", "*/7 * * * *", "5 0 * * 0", "0 4 1 * *"]


@settings(deadline=None)
@given(
    expression=st.sampled_from(EXPRESSIONS),
    change=st.sampled_from([SPRING, AUTUMN]),
    minutes=st.integers(0, 3 * 24 * 60),
    most=st.integers(1, 40),
)
# At the second 2:10 and at the second 2:00, by clocks that went back.
@example(expression="30 2 * * *", change=AUTUMN, minutes=13 * 60 + 10, most=1)
@example(expression="0 2,3 * * *", change=AUTUMN, minutes=13 * 60, most=1)
def test_where_one_begins_does_not_change_the_ticks(expression: str, change: datetime, minutes: int, most: int) -> None:
    cron, first = Cron(expression, BERLIN), change - timedelta(days=9)
    middle, end = change + timedelta(minutes=minutes, microseconds=minutes), change + timedelta(days=4)

    every = list(takewhile(lambda tick: tick <= end, cron.ticks(first)))

    assert list(takewhile(lambda tick: tick <= end, cron.ticks(middle))) == [tick for tick in every if tick > middle]
    assert cron.newest(most, after=first, until=middle) == [tick for tick in every if tick <= middle][-most:]


def test_ticks_begin_after_the_moment_itself() -> None:
    daily, tick = Cron("0 3 * * *", "UTC"), datetime(2027, 1, 1, 3, tzinfo=UTC)

    assert next(daily.ticks(tick)) == tick + timedelta(days=1)
    assert next(daily.ticks(tick - timedelta(microseconds=1))) == tick
    assert daily.newest(5, after=tick, until=tick + timedelta(days=1)) == [tick + timedelta(days=1)]
    assert daily.newest(5, after=tick, until=tick + timedelta(hours=23)) == []


def test_the_newest_ticks_of_a_frequent_expression_are_found_quickly() -> None:
    every_minute, now = Cron("* * * * *", "UTC"), datetime(2027, 1, 1, tzinfo=UTC)

    found = every_minute.newest(1, after=now - timedelta(days=20 * 365), until=now)

    assert found == [now]
    assert Cron("0 0 29 2 *", "UTC").newest(1, after=now - timedelta(days=3650), until=now) == [
        datetime(2024, 2, 29, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("61 * * * *", "which has a wrong minute: give minute, hour"),
        ("* 24 * * *", "wrong hour"),
        ("0 3 * * FUN", "wrong day-of-week"),
        ("*/0 * * * *", "wrong minute"),
        ("0 3 * *", "which has not five fields"),
        ("0 0 3 * * *", "which has not five fields"),
        ("@daily", "which has not five fields"),
        ("", "which has not five fields"),
        ("0 0 30 2 *", "wrong day-of-month"),
        ("* * */20 * 1L", "which is due on no day within 50 years"),
        (3, "which has not five fields"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused(expression: str, why: str) -> None:
    with pytest.raises(DefinitionError, match=why) as refused:
        Cron(expression, "UTC")

    assert str(refused.value).startswith(f"cron is {expression!r}")
    assert str(refused.value).endswith("as '0 3 * * *' for each day at three.")


@pytest.mark.parametrize(
    "zone", ["Europe/Atlantis", "", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", None, 2]
)
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(
        DefinitionError, match="which is no time zone here: give a name such as 'Europe/Berlin' or 'UTC'"
    ):
        Cron("0 3 * * *", zone)


def test_without_a_database_of_zones_the_cure_is_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tzdata", None)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        with pytest.raises(DefinitionError, match=r"this machine has no time zones: install the package tzdata"):
            Cron("0 3 * * *", "Europe/Paris")
        assert next(Cron("0 3 * * *", "UTC").ticks(SPRING)) == datetime(2027, 3, 28, 3, tzinfo=UTC)
    finally:
        zoneinfo.reset_tzpath(to=before)
