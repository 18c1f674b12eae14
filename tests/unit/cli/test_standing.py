"""Who holds a saga and what happens to it next, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sagas.storage.XXX import PAUSED, QUEUE

from sagas.cli.standing import in_brief, in_words, next_step
from sagas.cli.words import duration, when
from sagas.errors import ConfigurationError
from sagas.progress import Action, SagaStatus, Verdict
from sagas.registry import Registry
from sagas.storage.operator_answers import Surroundings
from sagas.storage.records import Lease, LogEntry, NewSaga, Pause, completed, failed
from tests.integration.cli.shop import PlaceOrder

NOW = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
SAGA_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
RECORD = NewSaga(id=SAGA_ID, name="place-order", context="{}").as_record(Lease(SAGA_ID, 1, "w/1"))

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
            {"status": SagaStatus.PENDING, "lease_owner": QUEUE, "available_at": FUTURE},
            "in the queue",
            "in the queue: the next worker that is free takes it",
        ),
        (
            {"status": SagaStatus.PENDING, "lease_owner": QUEUE, "available_at": PAST},
            "in the queue",
            "in the queue: the next worker that is free takes it, or, if its message is gone from the broker, "
            "the next scans send it again",
        ),
        (
            {"status": SagaStatus.FAILED, "lease_owner": PAUSED},
            "paused",
            f"its name is paused: `sagas resume place-order` lets it go on, `sagas recover {SAGA_ID}` too",
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


PAUSE = Pause(name="place-order", by="ann@ops", because="a strike", since=PAST)
BY_WHOM = "by ann@ops since 2026-11-22 19:37:25: a strike"


@pytest.mark.parametrize(
    ("stored", "ending"),
    [
        ({"lease_owner": PAUSED}, f"` too; paused {BY_WHOM}"),
        (
            {"available_at": FUTURE},
            "; bob@ops asked it back: given back at the next step's boundary"
            f"; its name is paused, so it is given back at the next step's boundary and parked; {BY_WHOM}",
        ),
        (
            {"lease_owner": None, "available_at": PAST},
            f"worker; its name is paused, so it is parked instead; {BY_WHOM}",
        ),
        ({"status": SagaStatus.COMPLETED, "lease_owner": None}, "nothing more happens to it"),
        ({"status": SagaStatus.FAILED, "lease_owner": None}, "` runs it once more"),
    ],
)
def test_what_operators_did_is_told_where_it_changes_what_happens(stored: dict[str, Any], ending: str) -> None:
    surroundings = Surroundings(now=NOW, pause=PAUSE, asked_back_by="bob@ops")

    assert in_words(replace(RECORD, **stored), NOW, surroundings).endswith(ending)


RESERVED = completed("reserve", Action.ACT)
UNPAID = failed("pay", Action.ACT, Verdict.TURN_BACK, 2)
STUCK = failed("reserve", Action.COMPENSATE, Verdict.GIVE_UP)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ((), "act reserve, attempt 1"),
        ((RESERVED, failed("pay", Action.ACT, Verdict.RETRY)), "act pay, attempt 2"),
        ((RESERVED, UNPAID, STUCK), "compensate reserve, attempt 2"),
        ((RESERVED, completed("pay", Action.ACT)), "none is left: it ends as COMPLETED"),
    ],
)
def test_the_next_step_is_told_in_either_direction(log: tuple[LogEntry, ...], words: str) -> None:
    record = replace(RECORD, log=log, definition_version=PlaceOrder.definition_version)

    told = next_step(record, Registry([PlaceOrder]))

    assert told is not None
    assert told.words == words
    assert (told.step, told.attempt) == ((None, None) if "none" in words else (words.split()[1][:-1], int(words[-1])))


def test_a_step_that_a_worker_died_in_may_have_begun() -> None:
    told = next_step(replace(RECORD, interrupted=True), Registry([PlaceOrder]))

    assert told is not None
    assert told.words == "act reserve, attempt 1, which may have begun before"


def test_without_fitting_code_the_next_step_is_unknown_and_why_is_told() -> None:
    foreign = replace(RECORD, log=(completed("wrap", Action.ACT),))

    for code, record, why in (
        (ConfigurationError("SAGAS_MODULES names 'x', which cannot be imported."), RECORD, "SAGAS_MODULES names 'x'"),
        (Registry(), RECORD, "no saga named 'place-order' is known here"),
        (Registry([PlaceOrder]), foreign, "the log of this saga tells of step 'wrap'"),
    ):
        told = next_step(record, code)
        assert told is not None
        assert told.words.startswith(f"unknown to this shell: {why}")
        assert told.step is None


def test_a_finished_saga_has_no_next_step() -> None:
    assert next_step(replace(RECORD, status=SagaStatus.COMPENSATED), Registry()) is None


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
