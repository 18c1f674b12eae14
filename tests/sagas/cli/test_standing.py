"""Who holds a saga and what happens to it next, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from sagas.cli.standing import in_brief, in_words
from sagas.cli.words import duration, when
from sagas.progress import SagaStatus
from sagas.storage.base import QUEUE, Hold, NewSaga

NOW = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
SAGA_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
RECORD = NewSaga(id=SAGA_ID, name="place-order", context="{}").as_record(Hold(SAGA_ID, 1, "w/1"))

PAST, FUTURE = NOW - timedelta(seconds=40), NOW + timedelta(seconds=25)


@pytest.mark.parametrize(
    ("stored", "brief", "words"),
    [
        ({"status": SagaStatus.COMPLETED, "lease_owner": None}, "", "nothing more happens to it"),
        ({"status": SagaStatus.COMPENSATED, "lease_owner": None}, "", "nothing more happens to it"),
        (
            {"status": SagaStatus.FAILED, "lease_owner": None},
            "dead",
            f"dead: see to the cause, then `sagas recover {SAGA_ID}` runs it once more",
        ),
        (
            {"status": SagaStatus.PENDING, "lease_owner": QUEUE, "available_at": PAST},
            "in the queue",
            "in the queue: the next worker that is free takes it",
        ),
        (
            {"available_at": FUTURE},
            "held by w/1",
            "held by w/1 until 2026-11-22 19:38:30 (in 25 s), renewed while that worker lives",
        ),
        (
            {"available_at": PAST},
            "lease of w/1 ran out",
            "the lease of w/1 ran out at 2026-11-22 19:37:25 (40 s ago): the next scan sends it to another worker",
        ),
        (
            {"status": SagaStatus.FAILED, "lease_owner": None, "available_at": FUTURE},
            "until 2026-11-22 19:38:30",
            "waits until 2026-11-22 19:38:30 (in 25 s); the next scan after that sends it to a worker",
        ),
        (
            {"status": SagaStatus.PENDING, "lease_owner": None, "available_at": PAST},
            "due",
            "due since 2026-11-22 19:37:25 (40 s ago): the next scan sends it to a worker",
        ),
    ],
)
def test_a_saga_is_told_by_who_acts_on_it_next(stored: dict[str, Any], brief: str, words: str) -> None:
    record = replace(RECORD, **stored)

    assert in_brief(record, NOW) == brief
    assert in_words(record, NOW) == words


def test_a_time_is_in_utc_whatever_zone_the_database_speaks() -> None:
    moment = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert when(moment, NOW + timedelta(minutes=7)) == "2026-11-22 19:38:05 (7 min ago)"
    assert when(moment, NOW - timedelta(seconds=7)) == "2026-11-22 19:38:05 (in 7 s)"
    assert when(None, NOW) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_a_duration_is_in_the_largest_unit_that_fits_twice(seconds: float, text: str) -> None:
    assert duration(seconds) == text
