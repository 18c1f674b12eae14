"""Ids of sagas."""

from __future__ import annotations

import time
from uuid import RFC_4122

from sagas.ids import new_saga_id


def test_id_is_a_uuid_of_version_7() -> None:
    made = new_saga_id()

    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_hold_the_time_they_were_made_at_so_that_they_sort_by_age() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = new_saga_id().int >> 80
    after = time.time_ns() // 1_000_000

    assert before <= milliseconds <= after


def test_ids_made_in_one_millisecond_differ() -> None:
    assert len({new_saga_id() for _ in range(10_000)}) == 10_000
