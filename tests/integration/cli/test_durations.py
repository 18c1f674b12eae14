"""Durations as an operator types them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer

from sagas.cli.durations import parse_age, parse_time, parse_wait


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), (" 10m", 600), ("0.5h", 1800), ("3d", 259_200), ("36500d", 3_153_600_000)]
)
def test_an_age_is_a_number_and_its_unit(age: str, seconds: float) -> None:
    assert parse_age(age) == seconds


@pytest.mark.parametrize("age", ["10", "ten minutes", "0s", "-1h", "3w", "1e9d", "36501d", f"{'9' * 400}d", ""])
def test_what_is_no_age_is_refused_with_an_example_of_one(age: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not an age: give a number above 0 and its unit, as 90s"):
        parse_age(age)


@pytest.mark.parametrize("written", ["-1", "nan", "inf", "9e9", "soon"])
def test_a_wait_is_a_number_of_seconds_up_to_a_day(written: str) -> None:
    assert parse_wait("86400") == 86_400
    with pytest.raises(typer.BadParameter, match="is no number of seconds between 0 and 86400"):
        parse_wait(written)


def test_a_time_is_in_iso_8601_and_in_utc_unless_it_says_otherwise() -> None:
    moment = datetime(2026, 11, 26, 13, 30, tzinfo=UTC)

    assert parse_time("2026-11-26") == datetime(2026, 11, 26, tzinfo=UTC)
    assert parse_time(" 2026-11-26 13:30") == parse_time("2026-11-26T14:30+01:00") == parse_time(moment) == moment
    for written in ("today", "26.11.2026", ""):
        with pytest.raises(typer.BadParameter, match="is no time: write it as 2026-11-26, '2026-11-26 14:30' or"):
            parse_time(written)
