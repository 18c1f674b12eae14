"""`sagas schedules`: what is due when, and what `sagas scan` says of schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.integration.cli.conftest import Command

MODULE = {"SAGAS_MODULES": "tests.integration.cli.scheduled_shop"}
NOTE = "INSERT INTO saga_schedules VALUES (:name, CAST(:tick AS timestamptz))"


def test_schedules_are_listed_with_their_last_and_next_ticks(sagas: Command, sql: Callable[..., Any]) -> None:
    # A tick of the nightly schedule that it has dealt with, and the time at which the weekly one was first seen.
    sql(NOTE, name="nightly", tick="2999-01-01 03:00:00+00")
    sql(NOTE, name="place-order", tick="2999-01-01 03:00:00+00")
    sql(NOTE, name="retired", tick="2026-01-01 03:00:00+00")

    rows = [line.split("  ") for line in sagas("schedules", **MODULE).stdout.splitlines()]

    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["NAME", "SAGA", "CRON", "ZONE", "CATCH UP", "LAST (UTC)", "NEXT (UTC)"],
        ["nightly", "place-order", "0 3 * * *", "UTC", "last", "2999-01-01 03:00:00", "2999-01-02 03:00:00"],
        ["place-order", "place-order", "30 9 * * MON", "Europe/Berlin", "all", "-", "2999-01-07 08:30:00"],
        ["retired", "not in SAGAS_MODULES", "-", "-", "-", "2026-01-01 03:00:00", "-"],
    ]


def test_schedules_as_json_say_which_are_late(sagas: Command, sql: Callable[..., Any]) -> None:
    sql(NOTE, name="nightly", tick="2026-01-01 03:00:00+00")

    found = json.loads(sagas("schedules", "--json", **MODULE).stdout)

    late, new = found["schedules"]
    assert late == {
        "name": "nightly",
        "saga": "place-order",
        "cron": "0 3 * * *",
        "timezone": "UTC",
        "catch_up": "last",
        "last_tick": "2026-01-01T03:00:00Z",
        "next_tick": "2026-01-02T03:00:00Z",
        "late": True,
    }
    # No scan has seen it yet: it begins after the next one.
    assert (new["name"], new["last_tick"], new["late"]) == ("place-order", None, False)
    assert new["next_tick"] > found["at"]


def test_without_any_schedule_a_sentence_says_so(sagas: Command) -> None:
    assert sagas("schedules").stdout == "no schedule is defined in SAGAS_MODULES, and scans know none\n"
    assert json.loads(sagas("schedules", "--json").stdout)["schedules"] == []


def test_listing_schedules_makes_none_known_to_scans(sagas: Command, sql: Callable[..., Any]) -> None:
    sagas("schedules", **MODULE)

    assert json.loads(sagas("schedules", "--json").stdout)["schedules"] == []
