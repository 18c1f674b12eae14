"""Contract tests of the outbox: tasks are stored with the transition that asks for them, and claimed by scans."""

from __future__ import annotations

import pytest

from sagas.errors import LeaseLost
from sagas.outbox import EnqueuedTask
from sagas.progress import SagaStatus
from sagas.storage.answers import Applied
from sagas.storage.contract import ISagaStorage
from sagas.storage.transitions import Ended, Progressed, Suspended, Transition
from sagas.testing.storage_contract.base import DONE, RUNNING, WRITTEN, ContractBase, all_at_once

TASKS = (
    EnqueuedTask("mail", '{"args":[1,"é"],"kwargs":{},"options":{"task_id":"a"}}'),
    EnqueuedTask('a "name"', f'{{"args":[{WRITTEN[0]}],"kwargs":{{}},"options":{{}}}}'),
)
_WITH_TASKS: tuple[Transition, ...] = (
    Progressed(events=(DONE,), status=RUNNING, in_flight=("charge",), outbox=TASKS),
    Suspended(events=(DONE,), status=RUNNING, after_seconds=60, outbox=TASKS),
    Ended(events=(DONE,), status=SagaStatus.COMPLETED, outbox=TASKS),
)
_EVERY = pytest.mark.parametrize("transition", _WITH_TASKS, ids=lambda transition: type(transition).__name__)


class OutboxContract(ContractBase):
    """The outbox: a task is there if and only if its transition was applied, until it is deleted."""

    @_EVERY
    @pytest.mark.parametrize("many", [False, True])
    def test_tasks_are_stored_with_their_transition_and_returned_in_order(
        self, storage: ISagaStorage, transition: Transition, many: bool
    ) -> None:
        lease, other = self.run(storage), self.run(storage)
        plain = Progressed(events=(DONE,), status=RUNNING, in_flight=("charge",))

        if many:
            results = storage.apply_many([(other, plain), (lease, transition), (self.run(storage), plain)])
            assert not any(isinstance(result, LeaseLost) for result in results)
            applied = results[1]
            assert isinstance(applied, Applied)
        else:
            applied = storage.apply(lease, transition)

        assert [(task.task, task.arguments) for task in applied.outbox] == [(t.task, t.arguments) for t in TASKS]
        assert {task.saga_id for task in applied.outbox} == {lease.saga_id}
        self.pass_time(storage, self.a_while)
        assert storage.claim_outbox(older_than_seconds=self.a_while / 2, limit=10) == list(applied.outbox)

    @_EVERY
    def test_tasks_of_a_holder_that_lost_its_lease_are_not_stored(
        self, storage: ISagaStorage, transition: Transition
    ) -> None:
        lease = self.run(storage)
        self.pass_time(storage, self.a_while * 1.5)
        assert self.acquire(storage, lease.saga_id)

        with pytest.raises(LeaseLost):
            storage.apply(lease, transition)

        self.pass_time(storage, self.a_while)
        assert storage.claim_outbox(older_than_seconds=0, limit=10) == []

    def test_a_transition_without_tasks_stores_none(self, storage: ISagaStorage) -> None:
        applied = storage.apply(self.run(storage), Progressed(events=(DONE,), status=RUNNING, in_flight=("charge",)))

        assert applied.outbox == ()

    def test_tasks_are_claimed_once_they_are_old_and_again_after_as_long(self, storage: ISagaStorage) -> None:
        applied = storage.apply(self.run(storage), _WITH_TASKS[0])
        old = self.a_while / 2

        assert storage.claim_outbox(older_than_seconds=old, limit=10) == []
        self.pass_time(storage, self.a_while)
        assert storage.claim_outbox(older_than_seconds=old, limit=1) == [applied.outbox[0]]
        assert storage.claim_outbox(older_than_seconds=old, limit=10) == [applied.outbox[1]]
        assert storage.claim_outbox(older_than_seconds=old, limit=10) == []
        self.pass_time(storage, self.a_while)
        assert storage.claim_outbox(older_than_seconds=old, limit=10) == list(applied.outbox)

    def test_tasks_that_were_sent_are_deleted_and_unknown_ids_ignored(self, storage: ISagaStorage) -> None:
        applied = storage.apply(self.run(storage), _WITH_TASKS[2])

        storage.delete_from_outbox([applied.outbox[0].id, 10**9])
        storage.delete_from_outbox([])

        self.pass_time(storage, self.a_while)
        assert storage.claim_outbox(older_than_seconds=0, limit=10) == [applied.outbox[1]]

    def test_scans_at_once_claim_each_task_once(self, storage: ISagaStorage) -> None:
        for _ in range(5):
            storage.apply(self.run(storage), _WITH_TASKS[0])
        self.pass_time(storage, self.a_while)

        claimed = all_at_once(lambda _: storage.claim_outbox(older_than_seconds=self.a_while / 2, limit=100))

        ids = [task.id for tasks in claimed for task in tasks]
        assert len(ids) == len(set(ids)) == 10

    @pytest.mark.parametrize("wrong", [{"limit": 0}, {"older_than_seconds": -1}])
    def test_numbers_that_are_out_of_range_are_refused(self, storage: ISagaStorage, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            storage.claim_outbox(**{"older_than_seconds": 1, "limit": 1, **wrong})
