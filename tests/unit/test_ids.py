"""Ids of sagas."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from uuid import RFC_4122, UUID

from sagas import ISagaStorage, SagaEngine
from sagas.ids import new_saga_id
from sagas.storage.saga_filter import SagaFilter
from tests.samples import Stage, Trip


def test_id_is_a_uuid_of_version_7() -> None:
    made = new_saga_id()

    assert type(made) is UUID
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_hold_the_time_they_were_made_at() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = new_saga_id().int >> 80
    after = time.time_ns() // 1_000_000

    assert before <= milliseconds <= after


def test_ids_of_a_process_increase_within_a_millisecond() -> None:
    made = [new_saga_id() for _ in range(10_000)]

    assert made == sorted(set(made))


def test_ids_of_several_threads_increase() -> None:
    made: list[UUID] = []
    lock = Lock()

    def make(_: int) -> None:
        for _ in range(1000):
            with lock:
                made.append(new_saga_id())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))

    assert made == sorted(set(made))


def test_ids_of_a_forked_child_are_not_its_parents() -> None:
    new_saga_id()
    reading, writing = os.pipe()
    child = os.fork()
    mine = [new_saga_id() for _ in range(1000)]
    if child == 0:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(b"".join(made.bytes for made in mine))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)

    assert len(theirs) == 16_000
    assert not {made.bytes for made in mine} & {theirs[i : i + 16] for i in range(0, len(theirs), 16)}


def test_sagas_started_within_a_millisecond_are_listed_newest_first(storage: ISagaStorage) -> None:
    engine = SagaEngine(storage)
    saga = Stage().saga("hotel", name="listed-in-order")
    started = engine.start_many(saga, [Trip() for _ in range(200)])
    started.append(engine.start(saga, Trip()))

    listed = storage.find(SagaFilter(name="listed-in-order", limit=500))

    assert [record.id for record in listed] == started[::-1]
