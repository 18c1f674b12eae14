"""Storing new sagas, each at most once per idempotency key, and reading them back."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from sagas.errors import AlreadyStarted, SagaExists, SagaNotFound
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage.base import QUEUE, ClaimResult, ISagaStorage, NewSaga, Refusal, SagaFilter, completed, note
from sagas.testing.storage_contract.foundation import WRITTEN, Foundation, all_at_once, ids


def _new(key: str | None = None, *, name: str = "order", context: str = "{}") -> NewSaga:
    return NewSaga(id=new_saga_id(), name=name, context=context, idempotency_key=key)


class StartingContract(Foundation):
    """`create_sagas`."""

    def test_a_new_saga_is_stored_as_given(self, storage: ISagaStorage) -> None:
        context = {"to": "Zoë 🚚 \\ \"quoted\" 'too'", "lines": [1, 2.5, None, True], "note": "100 %s :name"}
        new = NewSaga(
            id=new_saga_id(),
            name="order",
            context=json.dumps(context),
            idempotency_key="order-1",
            definition_version="2",
        )

        assert storage.create_sagas([new], owner=None) == [(new.id, True)]

        saga = storage.load(new.id)
        assert (saga.id, saga.name, saga.idempotency_key) == (new.id, "order", "order-1")
        assert json.loads(saga.context) == context
        assert saga.definition_version == "2"
        assert (saga.recovery_attempts, saga.interrupted, saga.last_error, saga.log) == (0, False, None, ())
        assert (saga.finished_at, saga.dead) == (None, False)
        assert saga.created_at.utcoffset() is not None

    @pytest.mark.parametrize("context", WRITTEN)
    def test_a_context_is_kept_as_it_was_written(self, storage: ISagaStorage, context: str) -> None:
        one, *many = [_new(context=context) for _ in range(3)]

        storage.create_sagas([one], owner=None)
        storage.create_sagas(many, owner=None)

        assert [storage.load(saga.id).context for saga in (one, *many)] == [context] * 3

    @pytest.mark.parametrize("bad", ["a\ud800", "\udfff", "a\0b"], ids=ascii)
    def test_text_that_no_database_can_hold_is_refused(self, storage: ISagaStorage, bad: str) -> None:
        for refused in (
            lambda: storage.create_sagas([_new(bad)], owner=None),
            lambda: storage.create_sagas([_new(name=bad)], owner=None),
            lambda: storage.find(SagaFilter(name=bad)),
            lambda: storage.pause(bad, by="ann", because="why"),
            lambda: storage.pause("order", by=bad, because="why"),
            lambda: storage.pause("order", by="ann", because=bad),
            lambda: note("retry", by="ann", because=bad),
        ):
            with pytest.raises(ValueError, match="no database can hold: give text without NUL"):
                refused()
        assert storage.pauses() == []

    def test_a_saga_without_an_owner_is_pending_and_due_at_once(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage, owner=None)

        saga = storage.load(saga_id)
        assert (saga.status, saga.version, saga.lease_owner) == (SagaStatus.PENDING, 0, None)
        assert ids(self.claim(storage, pending=True).claims) == [saga_id]

    def test_a_saga_for_the_queue_is_pending_and_marked(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage, owner=QUEUE)

        saga = storage.load(saga_id)
        assert (saga.status, saga.version, saga.lease_owner) == (SagaStatus.PENDING, 0, QUEUE)
        self.pass_time(storage, self.a_while / 2)
        assert self.claim(storage, pending=True) == ClaimResult()

    def test_a_saga_for_a_worker_is_running_and_held_at_version_1(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage, owner="worker-1")

        saga = storage.load(saga_id)
        assert (saga.status, saga.version, saga.lease_owner) == (SagaStatus.RUNNING, 1, "worker-1")
        assert self.refused(self.take(storage, saga_id)).why is Refusal.HELD

    def test_many_are_stored_in_order(self, storage: ISagaStorage) -> None:
        many = [_new() for _ in range(50)]

        assert storage.create_sagas(many, owner=None) == [(saga.id, True) for saga in many]

    def test_none_are_stored_from_an_empty_batch(self, storage: ISagaStorage) -> None:
        assert storage.create_sagas([], owner=None) == []

    def test_the_same_key_again_stores_nothing_and_names_the_existing_saga(self, storage: ISagaStorage) -> None:
        first, second = _new("key", context='{"n": 1}'), _new("key", context='{"n": 2}')
        storage.create_sagas([first], owner="worker-1", for_seconds=self.a_while)
        before = storage.load(first.id)

        assert storage.create_sagas([second], owner=QUEUE, for_seconds=self.a_while) == [(first.id, False)]
        assert storage.load(first.id) == before
        with pytest.raises(SagaNotFound):
            storage.load(second.id)

    def test_the_very_same_saga_again_is_not_new(self, storage: ISagaStorage) -> None:
        # What happens when a start is repeated because its answer was lost.
        new = _new("key")
        storage.create_sagas([new], owner=None)

        assert storage.create_sagas([new], owner=None) == [(new.id, False)]

    def test_the_key_of_a_finished_saga_stays_taken(self, storage: ISagaStorage) -> None:
        first = _new("key")
        storage.create_sagas([first], owner=None)
        hold = self.taken(self.take(storage, first.id)).hold
        storage.checkpoint(hold, completed("reserve", Action.ACT), status=SagaStatus.COMPLETED)

        assert storage.create_sagas([_new("key")], owner=None) == [(first.id, False)]

    def test_the_same_key_under_another_name_is_another_saga(self, storage: ISagaStorage) -> None:
        order, refund = _new("key", name="order"), _new("key", name="refund")

        assert storage.create_sagas([order], owner=None) == [(order.id, True)]
        assert storage.create_sagas([refund], owner=None) == [(refund.id, True)]

    def test_sagas_without_a_key_are_all_new(self, storage: ISagaStorage) -> None:
        first, second = _new(), _new()

        assert storage.create_sagas([first], owner=None) == [(first.id, True)]
        assert storage.create_sagas([second], owner=None) == [(second.id, True)]

    def test_a_key_twice_in_one_batch_is_stored_once(self, storage: ISagaStorage) -> None:
        first, other, again = _new("key"), _new("other"), _new("key")

        created = storage.create_sagas([first, other, again], owner=None)

        assert created == [(first.id, True), (other.id, True), (first.id, False)]
        assert {saga.id for saga in storage.find(SagaFilter())} == {first.id, other.id}

    def test_old_new_and_keyless_in_one_batch_are_answered_in_order(self, storage: ISagaStorage) -> None:
        old = _new("old")
        storage.create_sagas([old], owner=None)
        new, keyless, elsewhere = _new("new"), _new(), _new("old", name="refund")

        created = storage.create_sagas([keyless, _new("old"), new, elsewhere], owner=None)

        assert created == [(keyless.id, True), (old.id, False), (new.id, True), (elsewhere.id, True)]

    def test_an_id_that_exists_is_refused_and_nothing_of_the_batch_is_stored(self, storage: ISagaStorage) -> None:
        first = _new("key", context='{"n": 1}')
        storage.create_sagas([first], owner="worker-1", for_seconds=self.a_while)
        before = storage.load(first.id)
        other = _new()
        twice = NewSaga(id=other.id, name="refund", context="{}")
        again = NewSaga(id=first.id, name="order", context='{"n": 2}')

        for batch, named in [([again], first.id), ([other, again], first.id), ([other, twice], other.id)]:
            with pytest.raises(SagaExists, match=str(named)):
                storage.create_sagas(batch, owner=None)

        assert [saga.id for saga in storage.find(SagaFilter())] == [first.id]
        assert storage.load(first.id) == before

    def test_the_same_saga_twice_in_one_batch_is_new_once(self, storage: ISagaStorage) -> None:
        new = _new("key")

        assert storage.create_sagas([new, new], owner=None) == [(new.id, True), (new.id, False)]

    def test_a_conflict_that_is_to_be_told_stores_nothing_of_the_batch(self, storage: ISagaStorage) -> None:
        known = _new("known")
        storage.create_sagas([known], owner=None, on_conflict="raise")

        for batch in ([_new("known")], [_new("a"), _new("known"), _new()], [_new("b"), _new("b")]):
            with pytest.raises(AlreadyStarted) as caught:
                storage.create_sagas(batch, owner=None, on_conflict="raise")
            if len(batch) != 2:
                assert (caught.value.saga_id, caught.value.idempotency_key) == (known.id, "known")

        assert [saga.id for saga in storage.find(SagaFilter())] == [known.id]
        new = [_new("a"), _new()]
        assert storage.create_sagas(new, owner=None, on_conflict="raise") == [(saga.id, True) for saga in new]

    def test_of_many_batches_at_once_that_share_a_key_one_is_stored_whole(self, storage: ISagaStorage) -> None:
        def start(number: int) -> bool:
            try:
                storage.create_sagas([_new(f"own {number}"), _new("shared")], owner=None, on_conflict="raise")
            except AlreadyStarted:
                return False
            return True

        assert sum(all_at_once(start)) == 1
        assert len(storage.find(SagaFilter())) == 2

    def test_of_many_starts_at_once_with_one_key_exactly_one_is_new(self, storage: ISagaStorage) -> None:
        started = all_at_once(lambda _: storage.create_sagas([_new("key")], owner=None)[0])

        assert sum(is_new for _, is_new in started) == 1
        assert len({saga_id for saga_id, _ in started}) == 1


class ReadingContract(Foundation):
    """`load` and `find`."""

    def test_loading_an_unknown_saga_raises_saga_not_found(self, storage: ISagaStorage) -> None:
        saga_id = new_saga_id()

        with pytest.raises(SagaNotFound, match=str(saga_id)):
            storage.load(saga_id)

    def test_a_saga_is_loaded_with_its_own_log_in_the_order_written(self, storage: ISagaStorage) -> None:
        hold, other = self.run(storage), self.run(storage)
        for step in ("reserve", "charge", "ship"):
            storage.checkpoint(hold, completed(step, Action.ACT), status=SagaStatus.RUNNING)
            storage.checkpoint(other, completed(f"other {step}", Action.ACT), status=SagaStatus.RUNNING)

        log = storage.load(hold.saga_id).log

        assert [entry.step for entry in log] == ["reserve", "charge", "ship"]
        assert [entry.id for entry in log] == sorted({entry.id for entry in log})

    def test_the_newest_are_found_first_up_to_the_limit(self, storage: ISagaStorage) -> None:
        started = []
        for saga_id in sorted(new_saga_id() for _ in range(5)):
            storage.create_sagas([NewSaga(id=saga_id, name="order", context="{}")], owner=None)
            started.append(saga_id)
            self.pass_time(storage, 0.01)

        assert self._found(storage, SagaFilter()) == started[::-1]
        assert self._found(storage, SagaFilter(limit=2)) == [started[4], started[3]]

    @pytest.mark.parametrize("value", [0, -1, True, 1.5, 10**20])
    def test_what_is_no_limit_of_a_listing_is_refused(self, storage: ISagaStorage, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^limit is {value}"):
            storage.find(SagaFilter(limit=value))

    def test_sagas_are_found_without_their_logs(self, storage: ISagaStorage) -> None:
        saga_id = self.finish(storage)

        (found,) = storage.find(SagaFilter())

        assert found.log == ()
        assert (found.id, found.status) == (saga_id, SagaStatus.COMPLETED)

    def test_sagas_are_found_by_status(self, storage: ISagaStorage) -> None:
        pending, failed_id = self.start(storage), self.free(storage, SagaStatus.FAILED)
        self.finish(storage)

        assert self._found(storage, SagaFilter(statuses=[SagaStatus.FAILED])) == [failed_id]
        either = SagaFilter(statuses=(SagaStatus.PENDING, SagaStatus.FAILED))
        assert set(self._found(storage, either)) == {pending, failed_id}

    def test_sagas_are_found_by_name(self, storage: ISagaStorage) -> None:
        self.start(storage, name="order")
        refund = self.start(storage, name="refund")

        assert self._found(storage, SagaFilter(name="refund")) == [refund]

    def test_the_dead_are_told_from_those_that_will_be_tried_again(self, storage: ISagaStorage) -> None:
        dead, waiting, done = self.die(storage), self.free(storage, SagaStatus.FAILED), self.finish(storage)

        assert self._found(storage, SagaFilter(dead=True)) == [dead]
        assert set(self._found(storage, SagaFilter(dead=False))) == {waiting, done}

    def test_every_wish_of_a_filter_must_be_met(self, storage: ISagaStorage) -> None:
        self.free(storage, SagaStatus.FAILED, name="order")
        self.free(storage, SagaStatus.RUNNING, name="refund")
        wanted = self.free(storage, SagaStatus.FAILED, name="refund")

        assert self._found(storage, SagaFilter(statuses=[SagaStatus.FAILED], name="refund", dead=False)) == [wanted]

    def _found(self, storage: ISagaStorage, wanted: SagaFilter) -> list[UUID]:
        return [saga.id for saga in storage.find(wanted)]
