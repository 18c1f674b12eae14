"""The words of the timeline: one row of the log at a time, and what numbers the attempts at the saga."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sagas.ids import new_saga_id
from sagas.inspection.timeline import Event, timeline
from sagas.progress import Action, EntryStatus, Verdict
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import LogEntry, NewSaga, SagaRecord, completed, failed, note

NOW = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
LOST = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, version=2, worker="w/1", in_flight=("a",))


def events(*log: LogEntry, **stored: Any) -> list[Event]:
    new = NewSaga(id=new_saga_id(), name="place-order", context="{}")
    record = new.as_record(now=NOW, lease=LeaseRequest(owner="w/2", seconds=60))
    fields = {name: getattr(record, name) for name in record.__slots__}
    return timeline(SagaRecord(**{**fields, "available_at": NOW + timedelta(seconds=60), "log": log, **stored}), NOW)


def words(*log: LogEntry, **stored: Any) -> list[str]:
    return [event.what for event in events(*log, **stored)]


def holder(status: EntryStatus, **fields: Any) -> LogEntry:
    return LogEntry(step="holder", action=Action.HOLDER, status=status, **fields)


def gave_up(step: str, attempt: int) -> LogEntry:
    return failed(step, Action.COMPENSATE, Verdict.FAIL_ATTEMPT, attempt)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (LOST, "holder lost: it was killed, froze or was cut off; in flight: a"),
        (
            holder(EntryStatus.LOST, in_flight=()),
            "holder lost: it was killed, froze or was cut off; in flight: nothing",
        ),
        (holder(EntryStatus.LOST), "holder lost: it was killed, froze or was cut off"),
        (holder(EntryStatus.DECLINED, message="no step\n'b'"), "declined, no attempt spent: no step 'b'"),
        (
            holder(EntryStatus.FAILED, in_flight=("a", "b"), error_type="ContextError", message="it is too large"),
            "attempt 1 at the saga failed; in flight: a, b: ContextError: it is too large",
        ),
        (failed("a", Action.COMPENSATE, Verdict.SET_ASIDE, 3), "compensate failed, attempt 3; other steps are "),
        (failed("a", Action.ACT, Verdict.RETRY, in_doubt=True), "act failed, attempt 1, in doubt; the step is retried"),
        (note("retry", actor="ann", reason="it is up\nagain"), "operator: retry, by ann: it is up again"),
        (completed("a", Action.ACT, 2), "act completed at attempt 2"),
    ],
)
def test_each_kind_of_row_is_told_in_words(entry: LogEntry, what: str) -> None:
    (told,) = words(entry)

    assert told.startswith(what)


def test_the_failed_attempts_at_the_saga_are_numbered_as_they_are_counted() -> None:
    numbers = [
        what.split()[what.split().index("at") - 1]
        for what in words(
            *(gave_up("b", 1), LOST, gave_up("b", 2), completed("b", Action.COMPENSATE, 3), gave_up("a", 1)),
            *(holder(EntryStatus.FAILED), note("recover", actor="ann", reason="-"), gave_up("a", 2)),
            *(note("retry", actor="ann", reason="-"), gave_up("a", 3)),
        )
        if "at the saga" in what
    ]

    assert numbers == ["1", "3", "1", "2", "3", "1"]


@pytest.mark.parametrize(
    "lost", [holder(EntryStatus.LOST, version=1), holder(EntryStatus.LOST, version=2, worker="w/shared")]
)
def test_a_crash_that_spends_no_attempt_is_not_numbered(lost: LogEntry) -> None:
    assert words(lost, gave_up("b", 1))[1].startswith("compensate failed, attempt 1; attempt 1 at the saga failed")


def test_a_crash_is_still_told_once_the_saga_has_gone_on() -> None:
    told = events(completed("a", Action.ACT), LOST, completed("b", Action.ACT))

    assert [(event.step, event.bad) for event in told] == [("a", False), (None, True), ("b", False)]
    assert told[1].worker == "w/1"


def test_an_operators_abort_is_of_no_step() -> None:
    abort = LogEntry(
        step="b", action=Action.ACT, status=EntryStatus.FAILED, verdict=Verdict.ABORT, actor="ann", reason="unwanted"
    )

    (told,) = events(abort)

    assert (told.step, told.what) == (None, "operator: compensate, by ann: unwanted")


def test_a_row_of_a_newer_version_is_shown_by_its_own_words() -> None:
    entry = LogEntry(step="a", action="signal\x1b", status="received")  # type: ignore[arg-type]

    assert words(entry) == ["signal\\x1b received"]


# -- waits, signals, requests to cancel and deadlines -----------------------------------------------------------------

ARMED = LogEntry(
    step="courier",
    action=Action.ACT,
    status=EntryStatus.ARMED,
    seconds=3600.0,
    message="waits for a signal",
    created_at=NOW,
)
SIGNAL = {"id": 7, "signal_id": "evt-1", "sent_at": "2026-11-22T20:38:05+01:00", "payload": "null"}
TIMED_OUT = replace(completed("courier", Action.ACT), message="no signal came in time")


def said(step: str, **fields: Any) -> LogEntry:
    return LogEntry(step=step, action=Action.OPERATOR, status=EntryStatus.COMPLETED, **fields)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (ARMED, "waits for a signal, until 2026-11-22 20:38:05"),
        (replace(ARMED, seconds=None), "waits for a signal, without a limit"),
        (replace(ARMED, message="sleeps"), "sleeps, until 2026-11-22 20:38:05"),
        (
            replace(completed("courier", Action.ACT), signal=SIGNAL, actor="portal"),
            "signal received from portal, id evt-1, sent 2026-11-22 19:38:05",
        ),
        (
            replace(completed("courier", Action.ACT), signal=SIGNAL),
            "signal received, id evt-1, sent 2026-11-22 19:38:05",
        ),
        (
            said("signal refused", signal=SIGNAL, message="it does not validate"),
            "signal refused, id evt-1, sent 2026-11-22 19:38:05: it does not validate",
        ),
        (
            said("cancel", signal=SIGNAL, actor="ann", reason="out of\nstock", verdict=Verdict.ABORT),
            "cancelled by ann; the saga aborts: out of stock",
        ),
        (
            said("cancel", signal=SIGNAL, reason="out of stock"),
            "request to cancel came too late, past the pivot: out of stock",
        ),
        (
            said("deadline", message="the deadline was 12:00", verdict=Verdict.ABORT),
            "the deadline was 12:00; the saga aborts",
        ),
        (
            said("deadline", message="the deadline was 12:00"),
            "the deadline was 12:00; it is past its pivot, so it goes on",
        ),
    ],
)
def test_each_kind_of_row_about_waiting_is_told_in_words(entry: LogEntry, what: str) -> None:
    assert words(entry) == [what]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (TIMED_OUT, "no signal came in time; the saga goes on"),
        (
            replace(TIMED_OUT, status=EntryStatus.FAILED, verdict=Verdict.ABORT, error_type="WaitTimedOut"),
            "no signal came in time; the saga aborts",
        ),
        (completed("courier", Action.ACT), "slept"),
        (failed("courier", Action.ACT, Verdict.RETRY), "act failed, attempt 1; the step is retried: None: None"),
        (replace(completed("courier", Action.ACT), actor="ann", reason="by phone"), "operator: act completed, by ann"),
    ],
)
def test_the_end_of_a_wait_is_told_by_how_it_ended(entry: LogEntry, what: str) -> None:
    assert words(ARMED, entry)[1].startswith(what)


def test_a_saga_that_waited_was_not_given_back_and_requests_are_of_no_step() -> None:
    told = events(
        replace(ARMED, version=1),
        replace(completed("courier", Action.ACT), signal=SIGNAL, version=2),
        replace(said("cancel", signal=SIGNAL), version=2),
        replace(said("deadline", message="the deadline was 12:00"), version=3),
    )

    assert [event.step for event in told] == ["courier", "courier", None, None]
