"""How long a program that waits for a saga pauses, and when it stops to wait."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sagas import SagaError, SagaStatus, WaitTimedOut
from sagas.errors import StorageUnavailable
from sagas.ids import new_saga_id
from sagas.waiting import FIRST_PAUSE, LONGEST_PAUSE, Patience

SAGA_ID = new_saga_id()
SEEN = (SAGA_ID, SagaStatus.RUNNING)


class Seconds:
    """A clock in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def pauses(patience: Patience, clock: Seconds) -> list[float]:
    """Pause until the time is over; return the pauses."""
    paused: list[float] = []
    while len(paused) < 1000:
        try:
            paused.append(patience.pause_after(SEEN))
        except WaitTimedOut:
            break
        clock.now += paused[-1]
    return paused


def test_pauses_grow_from_50_milliseconds_to_a_second_and_fill_the_time() -> None:
    clock = Seconds()

    paused = pauses(Patience(SAGA_ID, 30.0, clock=clock), clock)

    assert (paused[0], max(paused)) == (FIRST_PAUSE, LONGEST_PAUSE) == (0.05, 1.0)
    assert all(before <= after for before, after in pairwise(paused[:-1]))
    assert sum(paused) == pytest.approx(30.0)
    assert len(paused) < 45


def test_no_time_allows_no_pause_and_no_timeout_allows_any_number() -> None:
    clock = Seconds()
    assert pauses(Patience(SAGA_ID, 0, clock=clock), clock) == []

    patience = Patience(SAGA_ID, None, clock=clock)
    for _ in range(100):
        clock.now += 1e6
        last = patience.pause_after(SEEN)
    assert last == LONGEST_PAUSE


def test_the_error_says_which_saga_has_which_status_after_how_long() -> None:
    with pytest.raises(
        WaitTimedOut, match=rf"^saga {SAGA_ID} has not ended within 0 seconds and is RUNNING: "
    ) as caught:
        Patience(SAGA_ID, 0).pause_after(SEEN)

    assert (caught.value.saga_id, caught.value.status) == SEEN
    assert isinstance(caught.value, SagaError)
    assert isinstance(caught.value, TimeoutError)


def test_a_database_that_is_away_at_the_end_leaves_the_status_unknown() -> None:
    away = StorageUnavailable("the database did not answer: start it.")

    with pytest.raises(WaitTimedOut, match=r"within 0 seconds is unknown, because the database did not") as caught:
        Patience(SAGA_ID, 0).pause_after(away)

    assert (caught.value.saga_id, caught.value.status, caught.value.__cause__) == (None, None, away)
