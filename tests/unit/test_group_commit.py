"""Writes of many coroutines share a commit, and the trouble of one is not that of the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from sagas import MemorySagaStorage, SagaStatus
from sagas.errors import LeaseLost, SagaExists, StorageUnavailable
from sagas.group_commit import GroupWriter
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.answers import Applied
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import Progressed, Transition
from tests.samples import DEADLINE_SECONDS

STEP = Progressed(events=(completed("hotel", Action.ACT),), status=SagaStatus.RUNNING)


class Watched(MemorySagaStorage):
    """Notes the size of each group, and holds the first one until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[int] = []
        self.creates: list[int] = []
        self.release = threading.Event()
        self.away = False

    def apply_many(self, asked: Sequence[tuple[Lease, Transition]]) -> list[Applied | LeaseLost]:
        self.groups.append(len(asked))
        if len(self.groups) == 1:
            assert self.release.wait(DEADLINE_SECONDS)
        if self.away:
            raise StorageUnavailable("gone")
        return super().apply_many(asked)

    def create_sagas(self, sagas: Sequence[NewSaga], **options: Any) -> Any:
        self.creates.append(len(sagas))
        return super().create_sagas(sagas, **options)


def new(name: str = "trip") -> NewSaga:
    return NewSaga(id=new_saga_id(), name=name, context="{}")


def held(storage: MemorySagaStorage) -> Lease:
    saga, request = new(), LeaseRequest(owner="me", seconds=60)
    storage.create_sagas([saga], lease=request)
    return Lease(saga.id, 1, "me", request.token)


async def outcomes(*writes: Any) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), DEADLINE_SECONDS)


def test_what_comes_while_a_commit_is_under_way_shares_the_next_one() -> None:
    storage = Watched()
    writer, leases = GroupWriter(storage), [held(storage) for _ in range(20)]

    async def write() -> list[Any]:
        first = asyncio.ensure_future(writer.apply(leases[0], STEP))
        while not storage.groups:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(writer.apply(lease, STEP)) for lease in leases[1:]]
        await asyncio.sleep(0)
        storage.release.set()
        return await outcomes(first, *others)

    applied = asyncio.run(write())

    assert storage.groups == [1, 19]
    assert all(isinstance(each, Applied) for each in applied)
    assert all(len(storage.load(lease.saga_id).log) == 1 for lease in leases)


def test_a_lost_lease_is_told_to_its_own_saga_alone() -> None:
    storage = Watched()
    storage.release.set()
    mine, lost = held(storage), held(storage)
    storage.reclaim("me", max_recovery_attempts=5)
    mine = held(storage)

    async def write() -> list[Any]:
        writer = GroupWriter(storage)
        return await outcomes(writer.apply(mine, STEP), writer.apply(lost, STEP))

    kept, refused = asyncio.run(write())

    assert isinstance(kept, Applied)
    assert isinstance(refused, LeaseLost)


def test_a_saga_that_cannot_be_stored_keeps_no_other_from_being_stored() -> None:
    storage, request = Watched(), LeaseRequest(owner="me", seconds=60)
    there = new()
    storage.create_sagas([there])
    sagas = [new(), there, new()]

    async def create() -> list[Any]:
        writer = GroupWriter(storage)
        return await outcomes(*(writer.create(saga, request) for saga in sagas))

    first, refused, last = asyncio.run(create())

    assert [first[0], last[0]] == [sagas[0].id, sagas[2].id]
    assert isinstance(refused, SagaExists)


def test_a_database_that_is_away_fails_the_whole_group_and_not_the_next() -> None:
    storage = Watched()
    storage.release.set()
    leases = [held(storage) for _ in range(3)]

    async def write() -> tuple[list[Any], list[Any]]:
        writer = GroupWriter(storage)
        storage.away = True
        failed = await outcomes(*(writer.apply(lease, STEP) for lease in leases))
        storage.away = False
        return failed, await outcomes(*(writer.apply(lease, STEP) for lease in leases))

    failed, applied = asyncio.run(write())

    assert all(isinstance(each, StorageUnavailable) for each in failed)
    assert all(isinstance(each, Applied) for each in applied)


@pytest.mark.parametrize("loops", [1, 2])
def test_a_coroutine_that_is_cancelled_or_whose_loop_ended_stops_no_other(loops: int) -> None:
    storage = Watched()
    storage.release.set()
    writer = GroupWriter(storage)

    async def write() -> Applied:
        lease = held(storage)
        cancelled = asyncio.ensure_future(writer.apply(lease, STEP))
        await asyncio.sleep(0)
        cancelled.cancel()
        return await asyncio.wait_for(writer.apply(held(storage), STEP), DEADLINE_SECONDS)

    for _ in range(loops):
        assert isinstance(asyncio.run(write()), Applied)
