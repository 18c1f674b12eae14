"""What a program sees of a saga, made from its row and its log alone."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from sagas.context import ContextCodec
from sagas.errors import ContextError
from sagas.ids import new_saga_id
from sagas.inspection.view import summary_of, view_of
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.records import LogEntry, NewSaga, SagaRecord, SagaState, completed, failed
from tests.samples import Trip

NOW: Final = datetime(2031, 5, 1, tzinfo=UTC)
LATER: Final = NOW + timedelta(minutes=5)
ACT, COMPENSATE = Action.ACT, Action.COMPENSATE
CODEC: Final = ContextCodec(Trip, owner="trip")


def record(*log: LogEntry, **values: Any) -> SagaRecord:
    new = NewSaga(
        id=new_saga_id(), name="trip", context='{"booked": ["hotel"]}', idempotency_key="k", tags={"customer": "c-7"}
    )
    started = new.as_record(now=NOW)
    return replace(started, **({"status": SagaStatus.RUNNING, "available_at": LATER} | values), log=log)


def armed(step: str) -> LogEntry:
    """A row with which a wait begins."""
    return LogEntry(step=step, action=ACT, status=EntryStatus.ARMED)


def test_a_view_has_what_the_row_says() -> None:
    stored = record(last_error="no room", recovery_attempts=2, deadline_at=LATER)

    view = view_of(stored)

    assert (view.id, view.name, view.status, view.state) == (stored.id, "trip", "RUNNING", "ready")
    assert (view.idempotency_key, view.tags, view.deadline_at) == ("k", {"customer": "c-7"}, LATER)
    assert (view.last_error, view.recovery_attempts, view.held_by) == ("no room", 2, None)
    assert (view.created_at, view.updated_at, view.finished_at) == (NOW, NOW, None)
    with pytest.raises(FrozenInstanceError):
        view.name = "another"  # type: ignore[misc]
    assert view_of(replace(stored, tags=None)).tags == {}


def test_the_context_is_of_its_type_if_the_class_is_known_and_plain_data_otherwise() -> None:
    stored = record()

    assert view_of(stored, CODEC).context == Trip(["hotel"])
    assert view_of(stored).context == {"booked": ["hotel"]}
    assert summary_of(stored, CODEC).context == Trip(["hotel"])
    assert view_of(stored, CODEC).context is not view_of(stored, CODEC).context


def test_a_context_that_does_not_fit_the_class_fails_only_when_it_is_read() -> None:
    view = view_of(record(context='{"booked": 7}'), CODEC)

    with pytest.raises(ContextError, match="booked"):
        view.context  # noqa: B018
    assert json.loads(view.context_json) == {"booked": 7}


def test_a_view_is_plain_data_for_asdict_and_prints_no_context() -> None:
    view = view_of(record(completed("hotel", ACT)), CODEC)

    assert asdict(view)["done"] == ("hotel",)
    assert "booked" not in repr(view)
    assert view == view_of(replace(record(completed("hotel", ACT)), id=view.id, root_id=view.id))


@pytest.mark.parametrize(
    ("state", "until"),
    [
        (SagaState.READY, LATER),
        (SagaState.WAITING, LATER),
        (SagaState.QUEUED, None),
        (SagaState.RUNNING, None),
        (SagaState.PAUSED, None),
        (SagaState.DEAD, None),
        (SagaState.FINISHED, None),
    ],
)
def test_only_a_saga_that_waits_for_a_time_has_one(state: SagaState, until: datetime | None) -> None:
    view = view_of(record(state=state))

    assert (view.until, view.dead) == (until, state is SagaState.DEAD)


def test_a_saga_is_over_once_it_has_finished_or_is_dead() -> None:
    over = {
        (status, state)
        for status in SagaStatus
        for state in SagaState
        if view_of(record(status=status, state=state)).over
    }

    assert over == {
        *((status, SagaState.DEAD) for status in SagaStatus),
        *((status, state) for status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED) for state in SagaState),
    }


@pytest.mark.parametrize(
    ("log", "done"),
    [
        ([], ()),
        ([completed("hotel", ACT), failed("car", ACT, Verdict.RETRY)], ("hotel",)),
        ([completed("hotel", ACT), LogEntry(step="car", action=ACT, status=EntryStatus.SKIPPED)], ("hotel", "car")),
        (
            [
                *(completed(step, ACT) for step in ("hotel", "car", "flight")),
                failed("visa", ACT, Verdict.ABORT),
                completed("flight", COMPENSATE),
                LogEntry(step="car", action=COMPENSATE, status=EntryStatus.SKIPPED),
            ],
            ("hotel",),
        ),
        ([LogEntry(step="", action=Action.HOLDER, status=EntryStatus.LOST), armed("courier")], ()),
    ],
)
def test_done_are_the_steps_that_completed_and_are_not_compensated(log: list[LogEntry], done: tuple[str, ...]) -> None:
    assert view_of(record(*log)).done == done


@pytest.mark.parametrize(
    ("log", "waiting_for"),
    [
        ([], ()),
        ([completed("hotel", ACT)], ()),
        ([failed("hotel", ACT, Verdict.RETRY)], ("hotel",)),
        ([failed("hotel", ACT, Verdict.FAIL_ATTEMPT)], ("hotel",)),
        ([failed("hotel", ACT, Verdict.RETRY), completed("hotel", ACT, 2)], ()),
        ([armed("courier")], ("courier",)),
        ([armed("courier"), completed("courier", ACT)], ()),
        ([armed("courier"), failed("hotel", ACT, Verdict.ABORT)], ()),
        (
            [completed("hotel", ACT), failed("car", ACT, Verdict.ABORT), failed("hotel", COMPENSATE, Verdict.RETRY)],
            ("hotel",),
        ),
    ],
)
def test_a_saga_waits_for_armed_waits_and_for_steps_that_are_tried_again(
    log: list[LogEntry], waiting_for: tuple[str, ...]
) -> None:
    assert view_of(record(*log)).waiting_for == waiting_for
    assert view_of(record(*log, status=SagaStatus.COMPLETED)).waiting_for == ()
