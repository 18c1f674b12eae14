"""Contract tests of storing new sagas, at most one for an idempotency key, and of reading them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from sagas.errors import AlreadyStarted, DefinitionNotFound, LeaseLost, SagaExists, SagaNotFound
from sagas.ids import new_saga_id
from sagas.progress import Action, SagaStatus
from sagas.storage.answers import Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import Definition, NewSaga, SagaState, completed, note
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Ended, Progressed
from sagas.testing.storage_contract.base import DONE, FAILED, RUNNING, WRITTEN, ContractBase, all_at_once, ids, new

#: The least difference between two times.
INSTANT: Final = timedelta(microseconds=1)
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
FAR: Final = datetime.max.replace(tzinfo=UTC)


class StartingContract(ContractBase):
    """`create_sagas`."""

    def test_a_new_saga_is_stored_as_given(self, storage: ISagaStorage) -> None:
        context = {"to": "Zoë 🚚 \\ \"quoted\" 'too'", "lines": [1, 2.5, None, True], "note": "100 %s :name"}
        given = new("order-1", context=json.dumps(context), definition_version="2", definition="ab", traceparent="00-1")

        assert storage.create_sagas([given]) == [(given.id, True)]

        saga = storage.load(given.id)
        assert (saga.id, saga.name, saga.idempotency_key) == (given.id, "order", "order-1")
        assert json.loads(saga.context) == context
        assert (saga.definition_version, saga.definition, saga.traceparent) == ("2", "ab", "00-1")
        assert (saga.recovery_attempts, saga.suspect, saga.in_flight) == (0, False, None)
        assert (saga.last_error, saga.log, saga.finished_at) == (None, (), None)
        assert (saga.root_id, saga.depth) == (given.id, 0)
        assert saga.created_at.utcoffset() is not None

    @pytest.mark.parametrize("context", WRITTEN)
    def test_a_context_is_kept_as_it_was_written(self, storage: ISagaStorage, context: str) -> None:
        one, *many = [new(context=context) for _ in range(3)]

        storage.create_sagas([one])
        storage.create_sagas(many)

        assert [storage.load(saga.id).context for saga in (one, *many)] == [context] * 3

    @pytest.mark.parametrize("bad", ["a\ud800", "\udfff", "a\0b"], ids=ascii)
    def test_text_that_no_database_can_hold_is_refused(self, storage: ISagaStorage, bad: str) -> None:
        for refused in (
            lambda: storage.create_sagas([new(bad)]),
            lambda: storage.create_sagas([new(name=bad)]),
            lambda: storage.find(SagaFilter(name=bad)),
            lambda: storage.find(SagaFilter(key=bad)),
            lambda: storage.find(SagaFilter(tags={"customer": bad})),
            lambda: storage.find(SagaFilter(tags={bad: "c-7"})),
            lambda: storage.pause(bad, actor="ann", reason="why"),
            lambda: storage.pause("order", actor=bad, reason="why"),
            lambda: storage.pause("order", actor="ann", reason=bad),
            lambda: note("retry", actor="ann", reason=bad),
        ):
            with pytest.raises(ValueError, match="no database can hold: give text without NUL"):
                refused()
        assert storage.pauses() == []

    def test_a_saga_is_pending_ready_and_due_at_once(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        saga = storage.load(saga_id)
        assert (saga.status, saga.state, saga.version) == (SagaStatus.PENDING, SagaState.READY, 0)
        assert (saga.lease_owner, saga.lease_token) == (None, None)
        assert ids(self.claim(storage, pending=True)) == [saga_id]

    def test_a_saga_whose_message_is_sent_is_pending_and_queued(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage, queued=True)

        saga = storage.load(saga_id)
        assert (saga.status, saga.state, saga.version) == (SagaStatus.PENDING, SagaState.QUEUED, 0)
        assert ids(self.claim(storage, pending=True)) == []

    def test_a_saga_for_a_worker_is_running_and_held_at_version_1(self, storage: ISagaStorage) -> None:
        lease = self.run(storage, owner="worker-1")

        saga = storage.load(lease.saga_id)
        assert (saga.status, saga.state, saga.version) == (RUNNING, SagaState.RUNNING, 1)
        assert (saga.lease_owner, saga.lease_token, saga.in_flight) == ("worker-1", lease.token, None)
        self.refused(self.acquire(storage, lease.saga_id), Refusal.HELD)
        storage.renew(lease, self.a_while)

    def test_many_are_stored_in_order_and_none_from_an_empty_batch(self, storage: ISagaStorage) -> None:
        many = [new() for _ in range(50)]

        assert storage.create_sagas(many) == [(saga.id, True) for saga in many]
        assert storage.create_sagas([]) == []

    def test_the_same_key_again_stores_nothing_and_returns_the_existing_saga(self, storage: ISagaStorage) -> None:
        first, second = new("key", context='{"n": 1}'), new("key", context='{"n": 2}')
        storage.create_sagas([first], lease=LeaseRequest(owner="worker-1", seconds=self.a_while))
        before = storage.load(first.id)

        assert storage.create_sagas([second], queued=True) == [(first.id, False)]
        assert storage.load(first.id) == before
        with pytest.raises(SagaNotFound):
            storage.load(second.id)

    def test_the_very_same_saga_again_is_not_new(self, storage: ISagaStorage) -> None:
        # A start is repeated because its answer was lost.
        given = new("key")
        storage.create_sagas([given])

        assert storage.create_sagas([given]) == [(given.id, False)]

    def test_the_key_of_a_finished_saga_stays_taken(self, storage: ISagaStorage) -> None:
        first = new("key")
        storage.create_sagas([first])
        lease = self.acquired(self.acquire(storage, first.id)).lease
        storage.apply(lease, Ended(events=(DONE,), status=SagaStatus.COMPLETED))

        assert storage.create_sagas([new("key")]) == [(first.id, False)]

    def test_another_name_or_no_key_makes_another_saga(self, storage: ISagaStorage) -> None:
        given = [new("key", name="order"), new("key", name="refund"), new(), new()]

        assert [storage.create_sagas([saga]) for saga in given] == [[(saga.id, True)] for saga in given]

    def test_old_new_and_keyless_in_one_batch_are_answered_in_order(self, storage: ISagaStorage) -> None:
        old = new("old")
        storage.create_sagas([old])
        first, keyless, elsewhere = new("new"), new(), new("old", name="refund")

        created = storage.create_sagas([keyless, new("old"), first, elsewhere, new("new")])

        assert created == [
            (keyless.id, True),
            (old.id, False),
            (first.id, True),
            (elsewhere.id, True),
            (first.id, False),
        ]
        assert len(storage.find(SagaFilter())) == 4

    def test_an_id_that_exists_is_refused_and_nothing_of_the_batch_is_stored(self, storage: ISagaStorage) -> None:
        first = new("key", context='{"n": 1}')
        storage.create_sagas([first], lease=LeaseRequest(owner="worker-1", seconds=self.a_while))
        before = storage.load(first.id)
        other = new()
        twice = NewSaga(id=other.id, name="refund", context="{}")
        again = NewSaga(id=first.id, name="order", context='{"n": 2}')

        for batch, named in [([again], first.id), ([other, again], first.id), ([other, twice], other.id)]:
            with pytest.raises(SagaExists, match=str(named)):
                storage.create_sagas(batch)

        assert [saga.id for saga in storage.find(SagaFilter())] == [first.id]
        assert storage.load(first.id) == before

    def test_the_same_saga_twice_in_one_batch_is_new_once(self, storage: ISagaStorage) -> None:
        given = new("key")

        assert storage.create_sagas([given, given]) == [(given.id, True), (given.id, False)]

    def test_a_conflict_that_is_to_raise_stores_nothing_of_the_batch(self, storage: ISagaStorage) -> None:
        known = new("known")
        storage.create_sagas([known], on_conflict="raise")

        for batch in ([new("known")], [new("a"), new("known"), new()], [new("b"), new("b")]):
            with pytest.raises(AlreadyStarted) as caught:
                storage.create_sagas(batch, on_conflict="raise")
            if len(batch) != 2:
                assert (caught.value.saga_id, caught.value.idempotency_key) == (known.id, "known")

        assert [saga.id for saga in storage.find(SagaFilter())] == [known.id]
        more = [new("a"), new()]
        assert storage.create_sagas(more, on_conflict="raise") == [(saga.id, True) for saga in more]

    def test_of_many_batches_at_once_that_share_a_key_one_is_stored_whole(self, storage: ISagaStorage) -> None:
        def start(number: int) -> bool:
            try:
                storage.create_sagas([new(f"own {number}"), new("shared")], on_conflict="raise")
            except AlreadyStarted:
                return False
            return True

        assert sum(all_at_once(start)) == 1
        assert len(storage.find(SagaFilter())) == 2

    def test_of_many_starts_at_once_with_one_key_exactly_one_is_new(self, storage: ISagaStorage) -> None:
        started = all_at_once(lambda _: storage.create_sagas([new("key")])[0])

        assert sum(is_new for _, is_new in started) == 1
        assert len({saga_id for saga_id, _ in started}) == 1


class DefinitionContract(ContractBase):
    """`register_definition`, `load_definition` and `set_definition`."""

    def test_a_definition_is_stored_as_given_and_once(self, storage: ISagaStorage) -> None:
        given = Definition(hash="f" * 64, name="order", graph='{"zebra": 1,"apple": [1.50, "é"]}')

        for _ in range(2):
            storage.register_definition(given)
        all_at_once(lambda _: storage.register_definition(given))

        assert storage.load_definition(given.hash) == given

    def test_loading_an_unknown_definition_raises_definition_not_found(self, storage: ISagaStorage) -> None:
        with pytest.raises(DefinitionNotFound, match="0" * 64):
            storage.load_definition("0" * 64)

    def test_a_holder_gives_an_older_saga_its_definition(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        before = storage.load(lease.saga_id)

        storage.set_definition(lease, "abc")

        after = storage.load(lease.saga_id)
        assert (before.definition, after.definition) == (None, "abc")
        assert (after.version, after.state, after.available_at) == (1, SagaState.RUNNING, before.available_at)
        self.pass_time(storage, self.a_while * 1.5)
        self.acquire(storage, lease.saga_id)
        with pytest.raises(LeaseLost):
            storage.set_definition(lease, "def")


class ReadingContract(ContractBase):
    """`load` and `find`."""

    def test_loading_an_unknown_saga_raises_saga_not_found(self, storage: ISagaStorage) -> None:
        saga_id = new_saga_id()

        with pytest.raises(SagaNotFound, match=str(saga_id)):
            storage.load(saga_id)

    def test_a_saga_is_loaded_with_its_own_log_in_the_order_written(self, storage: ISagaStorage) -> None:
        lease, other = self.run(storage), self.run(storage)
        for step in ("reserve", "charge", "ship"):
            for writer, name in ((lease, step), (other, f"other {step}")):
                storage.apply(writer, Progressed(events=(completed(name, Action.ACT),), status=RUNNING))

        log = storage.load(lease.saga_id).log

        assert [entry.step for entry in log] == ["reserve", "charge", "ship"]
        assert [entry.id for entry in log] == sorted({entry.id for entry in log})

    def test_the_newest_are_found_first_up_to_the_limit(self, storage: ISagaStorage) -> None:
        started = sorted(new_saga_id() for _ in range(5))
        storage.create_sagas([NewSaga(id=saga_id, name="order", context="{}") for saga_id in started])

        assert self._found(storage, SagaFilter()) == started[::-1]
        assert self._found(storage, SagaFilter(limit=2)) == [started[4], started[3]]

    @pytest.mark.parametrize("value", [0, -1, True, 1.5, 10**20])
    def test_what_is_no_limit_of_a_listing_is_refused(self, storage: ISagaStorage, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^limit is {value}"):
            storage.find(SagaFilter(limit=value))

    def test_sagas_are_found_without_their_logs(self, storage: ISagaStorage) -> None:
        saga_id = self.finish(storage)

        (found,) = storage.find(SagaFilter())

        assert (found.id, found.status, found.log) == (saga_id, SagaStatus.COMPLETED, ())

    def test_sagas_are_found_by_status_state_and_name_together(self, storage: ISagaStorage) -> None:
        pending, waits, dead = self.start(storage), self.free(storage, FAILED), self.die(storage)
        done, refund = self.finish(storage), self.free(storage, FAILED, name="refund")

        for wanted, found in (
            (SagaFilter(statuses=[FAILED]), {waits, dead, refund}),
            (SagaFilter(statuses=(SagaStatus.PENDING, SagaStatus.COMPLETED)), {pending, done}),
            (SagaFilter(states=[SagaState.DEAD]), {dead}),
            (SagaFilter(states=[SagaState.FINISHED, SagaState.READY]), {pending, waits, done, refund}),
            (SagaFilter(name="refund"), {refund}),
            (SagaFilter(statuses=[FAILED], states=[SagaState.READY], name="order"), {waits}),
        ):
            assert set(self._found(storage, wanted)) == found

    def test_a_saga_is_found_by_its_key_below_each_name(self, storage: ISagaStorage) -> None:
        order, refund = new("k", name="order"), new("k", name="refund")
        storage.create_sagas([order, refund, new("another"), new()])

        assert self._found(storage, SagaFilter(name="order", key="k")) == [order.id]
        assert set(self._found(storage, SagaFilter(key="k"))) == {order.id, refund.id}
        assert self._found(storage, SagaFilter(name="parcel", key="k")) == []

    def test_sagas_are_found_by_all_their_tags(self, storage: ISagaStorage) -> None:
        both = new(tags={"customer": "c-7", "region": "é'u\\"})
        one, none = new(tags={"customer": "c-7"}), new()
        storage.create_sagas([both, one, none, new(tags={"customer": "c-8"})])

        for tags, found in (
            ({"customer": "c-7"}, {both.id, one.id}),
            ({"customer": "c-7", "region": "é'u\\"}, {both.id}),
            ({"region": "c-7"}, set()),
            ({"customer": "c"}, set()),
        ):
            assert set(self._found(storage, SagaFilter(tags=tags))) == found
        assert len(self._found(storage, SagaFilter(tags={}))) == 4
        assert storage.find(SagaFilter(tags={"region": "é'u\\"}))[0].tags == both.tags

    def test_sagas_are_found_by_the_time_of_their_start(self, storage: ISagaStorage) -> None:
        old = self.start(storage)
        self.pass_time(storage, self.a_while)
        young = self.start(storage)
        began = storage.load(young).created_at

        assert self._found(storage, SagaFilter(created_after=began)) == [young]
        assert self._found(storage, SagaFilter(created_before=began)) == [old]
        assert self._found(storage, SagaFilter(created_after=began + INSTANT)) == []
        assert self._found(storage, SagaFilter(created_before=began + INSTANT)) == [young, old]
        assert self._found(storage, SagaFilter(created_after=LONG_AGO, created_before=FAR)) == [young, old]

    def test_sagas_are_found_by_the_time_of_their_last_write_or_of_their_end(self, storage: ISagaStorage) -> None:
        done, silent = self.finish(storage), self.start(storage)
        lease = self.run(storage)
        self.pass_time(storage, self.a_while / 2)
        storage.apply(lease, Progressed(events=(completed("reserve", Action.ACT),), status=RUNNING))
        written = storage.load(lease.saga_id).updated_at
        ended = storage.load(done).finished_at
        assert ended is not None

        assert self._found(storage, SagaFilter(updated_after=written)) == [lease.saga_id]
        assert set(self._found(storage, SagaFilter(updated_before=written))) == {done, silent}
        assert self._found(storage, SagaFilter(updated_after=written + INSTANT)) == []
        assert done in self._found(storage, SagaFilter(updated_after=ended))
        assert done not in self._found(storage, SagaFilter(updated_after=ended + INSTANT))
        storage.increment_recovery_attempts(done)
        assert self._found(storage, SagaFilter(updated_after=written)) == [lease.saga_id]

    def test_a_page_begins_after_the_last_saga_of_the_page_before(self, storage: ISagaStorage) -> None:
        started = [self.start(storage) for _ in range(5)]
        pages: list[list[UUID]] = []

        for _ in range(4):
            last = pages[-1][-1] if pages else None
            pages.append(self._found(storage, SagaFilter(name="order", after=last, limit=2)))
            self.start(storage)  # a newer saga is in no later page

        assert pages == [started[:-3:-1], started[2:0:-1], started[:1], []]

    def test_status_and_state_are_read_alone(self, storage: ISagaStorage) -> None:
        pending, held, dead, done = self.start(storage), self.run(storage), self.die(storage), self.finish(storage)

        assert _state_of(storage, pending) == (SagaStatus.PENDING, SagaState.READY)
        assert _state_of(storage, held.saga_id) == (RUNNING, SagaState.RUNNING)
        assert _state_of(storage, dead) == (FAILED, SagaState.DEAD)
        assert _state_of(storage, done) == (SagaStatus.COMPLETED, SagaState.FINISHED)
        with pytest.raises(SagaNotFound):
            storage.head(new_saga_id())

    def _found(self, storage: ISagaStorage, wanted: SagaFilter) -> list[UUID]:
        return [saga.id for saga in storage.find(wanted)]


def _state_of(storage: ISagaStorage, saga_id: UUID) -> tuple[SagaStatus, SagaState]:
    head = storage.head(saga_id)
    return head.status, head.state
