"""Who holds a saga and what happens to it next, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from sagas.duration import duration, when
from sagas.inspection.models import SagaDetails
from sagas.inspection.standing import in_brief, in_words
from sagas.progress import Action, EntryStatus, SagaStatus
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import LogEntry, NewSaga, Pause, SagaState, completed

NOW = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
SAGA_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
RECORD = NewSaga(id=SAGA_ID, name="place-order", context="{}").as_record(
    now=NOW, lease=LeaseRequest(owner="w/1", seconds=60)
)

PAST, FUTURE = NOW - timedelta(seconds=40), NOW + timedelta(seconds=25)
READY = {"state": SagaState.READY, "lease_owner": None}
PAUSED = {"status": SagaStatus.FAILED, "state": SagaState.PAUSED, "lease_owner": None, "available_at": PAST}
DEAD = {"status": SagaStatus.FAILED, "state": SagaState.DEAD, "lease_owner": None}
QUEUED = {"status": SagaStatus.PENDING, "state": SagaState.QUEUED, "lease_owner": None}
FINISHED = {"status": SagaStatus.COMPLETED, "state": SagaState.FINISHED, "lease_owner": None}


@pytest.mark.parametrize(
    ("stored", "brief", "words"),
    [
        (FINISHED, "", "nothing more happens to it"),
        (DEAD, "dead", f"dead: see to the cause, then `sagas recover {SAGA_ID}` runs it once more"),
        (
            QUEUED | {"available_at": FUTURE},
            "in the queue",
            "in the queue: the next worker that is free takes it",
        ),
        (
            QUEUED | {"available_at": PAST},
            "in the queue",
            "in the queue: the next worker that is free takes it; the next scans send it again if its message is lost",
        ),
        (
            PAUSED,
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
            READY | {"status": SagaStatus.FAILED, "available_at": FUTURE},
            "until 2026-11-22 19:38:30",
            "waits until 2026-11-22 19:38:30 (in 25 s); the next scan after that sends it to a worker",
        ),
        (
            READY | {"status": SagaStatus.PENDING, "available_at": PAST},
            "due",
            "due since 2026-11-22 19:37:25 (40 s ago): the next scan sends it to a worker",
        ),
        (
            READY | {"state": SagaState.WAITING, "available_at": FUTURE},
            "until 2026-11-22 19:38:30",
            "waits for a signal, until 2026-11-22 19:38:30 (in 25 s)",
        ),
    ],
)
def test_a_saga_is_described_by_who_acts_on_it_next(stored: dict[str, Any], brief: str, words: str) -> None:
    record = replace(RECORD, **stored)

    assert in_brief(record, NOW) == brief
    assert in_words(SagaDetails(now=NOW, record=record)) == words


PAUSE = Pause(name="place-order", actor="ann@ops", reason="a strike", since=PAST)
BY_WHOM = "by ann@ops since 2026-11-22 19:37:25: a strike"


@pytest.mark.parametrize(
    ("stored", "ending"),
    [
        (PAUSED, f"` too; paused {BY_WHOM}"),
        (
            {"available_at": FUTURE},
            "; bob@ops asked it back: given back at the next step's boundary"
            f"; its name is paused, so it is given back at the next step's boundary and paused; {BY_WHOM}",
        ),
        (READY | {"available_at": PAST}, f"worker; its name is paused, so it is paused instead; {BY_WHOM}"),
        (FINISHED, "nothing more happens to it"),
        (DEAD, "` runs it once more"),
    ],
)
def test_what_operators_did_is_told_where_it_changes_what_happens(stored: dict[str, Any], ending: str) -> None:
    record = replace(RECORD, **stored)
    details = SagaDetails(now=NOW, record=record, pause=PAUSE, yield_requested_by="bob@ops")

    assert in_words(details).endswith(ending)


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


# -- waiting ----------------------------------------------------------------------------------------------------------


def armed(step: str) -> LogEntry:
    return LogEntry(step=step, action=Action.ACT, status=EntryStatus.ARMED)


@pytest.mark.parametrize(
    ("seconds", "log", "words", "brief"),
    [
        (
            7200,
            (armed("courier"),),
            "waits for courier, until 2026-11-22 21:38:05 (in 2 h)",
            "until 2026-11-22 21:38:05",
        ),
        (None, (armed("courier"),), "waits for courier, without a limit", "for a signal"),
        (None, (armed("a"), completed("a", Action.ACT), armed("b")), "waits for b, without a limit", "for a signal"),
        (None, (armed("a"), armed("b")), "waits for a and b, without a limit", "for a signal"),
        (None, (), "waits for a signal, without a limit", "for a signal"),
        (-60, (armed("a"),), "due since 2026-11-22 19:37:05 (60 s ago): the next scan sends it to a worker", "due"),
    ],
)
def test_a_saga_that_waits_tells_for_what_and_until_when(
    seconds: int | None, log: tuple[LogEntry, ...], words: str, brief: str
) -> None:
    due = None if seconds is None else NOW + timedelta(seconds=seconds)
    waiting = replace(RECORD, state=SagaState.WAITING, lease_owner=None, lease_token=None, available_at=due, log=log)

    assert in_words(SagaDetails(now=NOW, record=waiting)) == words
    assert in_brief(waiting, NOW) == brief
