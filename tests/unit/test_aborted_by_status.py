"""`increment_recovery_attempts(id, SagaStatus.COMPENSATING)` aborts a saga: recovery undoes what was done."""

from __future__ import annotations

from uuid import UUID

import pytest

from sagas import ISagaStorage, MemorySagaStorage, SagaStatus
from sagas.execution import holder_failed
from sagas.ids import new_saga_id
from sagas.progress import Action
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import GaveBack, Progressed
from tests.samples import QuickEngine, Stage, Trip


@pytest.fixture(params=["memory", "postgres"])
def storage(request: pytest.FixtureRequest) -> ISagaStorage:
    """Both of them."""
    return MemorySagaStorage() if request.param == "memory" else request.getfixturevalue("emptied_storage")


class Case:
    """A trip by hotel, car and flight, of which some steps are done."""

    def __init__(self, storage: ISagaStorage, *done: str) -> None:
        self.stage = Stage()
        self.saga = self.stage.saga("hotel", "car", "flight")
        self.engine = QuickEngine(storage, sagas=[self.saga])
        new = NewSaga(id=new_saga_id(), name=self.saga.stored_name(), context=self.saga.codec.dump(Trip()))
        request = LeaseRequest(owner="worker-1", seconds=60)
        storage.create_sagas([new], lease=request)
        self.lease = Lease(new.id, 1, request.owner, request.token)
        for step in done:
            storage.apply(self.lease, Progressed(events=(completed(step, Action.ACT),), status=SagaStatus.RUNNING))

    def give_back(self, *, in_doubt: bool = False) -> None:
        """Put it down, because what ran it failed in the middle of a step, or in between."""
        events = (holder_failed(OSError("cut off"), None),) if in_doubt else ()
        self.engine.storage.apply(self.lease, GaveBack(status=SagaStatus.RUNNING, events=events))

    @property
    def id(self) -> UUID:
        return self.lease.saga_id

    def recover(self) -> list[str]:
        """What recovery does; it compensates to the end."""
        report = self.engine.recover(self.id)
        assert report.status is SagaStatus.COMPENSATED, report
        return self.stage.seen


@pytest.mark.parametrize("finally_failed", [False, True])
def test_what_is_done_is_undone_and_nothing_else(storage: ISagaStorage, finally_failed: bool) -> None:
    case = Case(storage, "hotel", "car")
    case.give_back()

    storage.increment_recovery_attempts(case.id, new_status=SagaStatus.COMPENSATING)
    if finally_failed:
        storage.increment_recovery_attempts(case.id, new_status=SagaStatus.FAILED)

    assert case.recover() == ["compensate car", "compensate hotel"]


def test_step_that_may_have_begun_is_undone_too(storage: ISagaStorage) -> None:
    case = Case(storage, "hotel")
    case.give_back(in_doubt=True)

    storage.increment_recovery_attempts(case.id, new_status=SagaStatus.COMPENSATING)

    assert case.recover() == ["compensate car", "compensate hotel"]


def test_saga_that_had_done_everything_is_undone_whole(storage: ISagaStorage) -> None:
    case = Case(storage, "hotel", "car", "flight")
    case.give_back(in_doubt=True)

    storage.increment_recovery_attempts(case.id, new_status=SagaStatus.COMPENSATING)

    assert case.recover() == ["compensate flight", "compensate car", "compensate hotel"]


def test_saga_that_never_ran_never_runs(storage: ISagaStorage) -> None:
    case = Case(storage)
    saga_id = case.engine.start(case.saga, Trip())

    storage.increment_recovery_attempts(saga_id, new_status=SagaStatus.COMPENSATING)

    assert case.engine.recover(saga_id).status is SagaStatus.COMPENSATED
    assert case.stage.seen == []
