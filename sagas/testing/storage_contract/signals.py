"""Contract tests of what comes from outside and of time: signals, the inbox, start times, deadlines and tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from sagas.errors import InboxMoved, LeaseLost
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.answers import Applied, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import LogEntry, SagaRecord, SagaState, Signal, SignalKind, failed
from sagas.storage.transitions import Ended, Progressed, Suspended, Transition
from sagas.testing.storage_contract.base import (
    COMPENSATING,
    DONE,
    FAILED,
    RUNNING,
    WRITTEN,
    ContractBase,
    all_at_once,
    failed_attempt,
    ids,
    keys,
    new,
)
from sagas.testing.storage_contract.fencing import TRANSITIONS

ARMED: Final = LogEntry(step="courier", action=Action.ACT, status=EntryStatus.ARMED, seconds=60.0)
#: Every transition that depends on the inbox, in each way in which a storage may write it.
SEEING: Final[dict[str, Callable[[int | None], Transition]]] = {
    "a wait": lambda seen: Suspended(events=(ARMED,), status=RUNNING, after_seconds=60, waiting=True, seen=seen),
    "a wait without end": lambda seen: Suspended(
        events=(), status=RUNNING, after_seconds=None, waiting=True, seen=seen
    ),
    "a retry": lambda seen: Suspended(events=(DONE,), status=COMPENSATING, after_seconds=60, seen=seen),
    "a timeout": lambda seen: Progressed(events=(DONE,), status=RUNNING, context='{"n": 1}', seen=seen),
    "a timeout with what follows": lambda seen: Progressed(
        events=(DONE,), status=RUNNING, in_flight=("charge",), seen=seen
    ),
    "an abort": lambda seen: Progressed(
        events=(failed("courier", Action.ACT, Verdict.ABORT),), status=COMPENSATING, seen=seen
    ),
    "the last action": lambda seen: Ended(events=(DONE,), status=SagaStatus.COMPLETED, seen=seen),
    "an end": lambda seen: Ended(events=(), status=SagaStatus.COMPLETED, seen=seen),
}
_SEEING: Final = pytest.mark.parametrize("transition", SEEING.values(), ids=SEEING.keys())


def signal(saga_id: UUID, signal_id: str = "1", *, name: str = "courier", **values: Any) -> Signal:
    """Return a signal to be stored."""
    return Signal(saga_id=saga_id, name=name, signal_id=signal_id, **values)


def cancel(saga_id: UUID, signal_id: str = "1") -> Signal:
    """Return a request to cancel to be stored."""
    return Signal(saga_id=saga_id, kind=SignalKind.CANCEL, signal_id=signal_id, actor="ann", reason="why")


class SignalContract(ContractBase):
    """`add_signal` and `signals`."""

    @pytest.mark.parametrize("payload", [*WRITTEN, None])
    def test_a_signal_is_kept_as_it_was_sent(self, storage: ISagaStorage, payload: str | None) -> None:
        sent = signal(self.start(storage), "id 'é' 🚚", payload=payload, actor="Zoë", reason='she "asked"')

        assert storage.add_signal(sent) is True

        (kept,) = storage.signals(sent.saga_id)
        assert (kept, kept.id > 0) == (sent, True)
        assert kept.sent_at is not None
        assert kept.sent_at.utcoffset() is not None

    def test_a_request_to_cancel_is_kept_with_who_asked_and_why(self, storage: ISagaStorage) -> None:
        sent = cancel(self.start(storage))

        storage.add_signal(sent)

        assert storage.signals(sent.saga_id) == [sent]

    def test_the_signals_of_a_saga_are_read_oldest_first(self, storage: ISagaStorage) -> None:
        one, other = self.start(storage), self.start(storage)
        for saga_id, signal_id in ((one, "b"), (other, "x"), (one, "a"), (one, "c")):
            storage.add_signal(signal(saga_id, signal_id))
        storage.deliver([one])
        storage.add_signal(signal(one, "d"))

        read = storage.signals(one)

        assert [each.signal_id for each in read] == ["b", "a", "c", "d"]
        assert [each.id for each in read] == sorted({each.id for each in read})
        assert storage.signals(new_saga_id()) == []

    def test_the_same_signal_twice_is_one(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)
        first = signal(saga_id, payload="1")
        others = [signal(saga_id, "2"), signal(saga_id, name="call"), cancel(saga_id), signal(self.start(storage))]

        assert [storage.add_signal(each) for each in (first, *others)] == [True] * 5
        assert storage.add_signal(signal(saga_id, payload="2", actor="bob")) is False
        storage.deliver([saga_id])
        assert storage.add_signal(first) is False

        assert storage.signals(saga_id)[0].payload == "1"
        assert storage.load(saga_id).inbox == 4

    def test_of_many_equal_signals_at_once_exactly_one_is_new(self, storage: ISagaStorage) -> None:
        saga_id = self.start(storage)

        added = all_at_once(lambda _: storage.add_signal(signal(saga_id)))

        assert sum(added) == len(storage.signals(saga_id)) == 1

    def test_storing_a_signal_changes_nothing_of_its_saga(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)
        before = storage.load(saga_id)

        storage.add_signal(signal(saga_id))
        storage.add_signal(cancel(saga_id))

        assert storage.load(saga_id) == before

    def test_pruning_deletes_the_signals_of_the_saga_and_no_others(self, storage: ISagaStorage) -> None:
        finished, other = self.finish(storage), self.start(storage)
        for saga_id in (finished, other):
            storage.add_signal(signal(saga_id))
        storage.deliver([finished])
        storage.add_signal(signal(finished, "late"))
        self.pass_time(storage, 1)

        assert storage.prune(older_than_seconds=0, limit=10) == 1

        assert (storage.signals(finished), len(storage.signals(other))) == ([], 1)
        assert storage.undelivered(older_than_seconds=0, limit=10) == [other]

    def test_a_saga_is_found_by_its_name_and_key(self, storage: ISagaStorage) -> None:
        one, other = new("key"), new("key", name="refund")
        storage.create_sagas([one, other, new()])

        assert storage.find_id("order", "key") == one.id
        assert storage.find_id("refund", "key") == other.id
        assert storage.find_id("order", "another") is None
        assert storage.find_id("ship", "key") is None


class DeliveringContract(ContractBase):
    """`deliver` and `undelivered`."""

    @pytest.mark.parametrize("seconds", [None, 60.0], ids=["without end", "for a time"])
    @pytest.mark.parametrize("kind", [signal, cancel])
    def test_a_saga_that_waits_is_queued_for_its_message(
        self, storage: ISagaStorage, kind: Callable[[UUID], Signal], seconds: float | None
    ) -> None:
        saga_id = self.wait(storage, seconds)
        storage.add_signal(kind(saga_id))

        claims = storage.deliver([saga_id])

        assert keys(claims) == [(saga_id, 1)]
        assert claims[0].pending is False
        assert claims[0].queued_at is not None
        saga = storage.load(saga_id)
        assert (saga.state, saga.inbox, saga.version) == (SagaState.QUEUED, 1, 1)
        assert ids(self.claim(storage)) == []
        assert self.acquired(self.acquire(storage, saga_id, version=1)).record.inbox == 1

    def test_a_signal_is_only_counted_by_a_saga_that_does_not_wait(self, storage: ISagaStorage) -> None:
        suspended = self.run(storage)
        storage.apply(suspended, Suspended(events=(), status=RUNNING, after_seconds=60))
        ((later, _),) = storage.create_sagas([new()], after_seconds=60)
        for saga_id in (
            *(self.start(storage), self.start(storage, queued=True), later, suspended.saga_id),
            *(self.run(storage).saga_id, self.free(storage), self.in_queue(storage).saga_id),
            *(self.die(storage), self.finish(storage)),
        ):
            before = storage.load(saga_id)
            storage.add_signal(signal(saga_id))

            assert storage.deliver([saga_id]) == []
            assert storage.load(saga_id) == replace(before, inbox=1), before.state

    def test_a_request_to_cancel_ends_a_backoff(self, storage: ISagaStorage) -> None:
        lease = self.recover(storage)
        storage.apply(lease, failed_attempt(after_seconds=60))

        woken = self._cancelled(storage, lease.saga_id)

        assert (woken.state, woken.status, woken.recovery_attempts) == (SagaState.QUEUED, FAILED, 1)
        self.acquired(self.acquire(storage, lease.saga_id, version=lease.version))

    def test_a_request_to_cancel_ends_the_wait_for_a_start(self, storage: ISagaStorage) -> None:
        ((saga_id, _),) = storage.create_sagas([new()], after_seconds=60)
        storage.add_signal(cancel(saga_id))

        (claim,) = storage.deliver([saga_id])

        assert (claim.saga_id, claim.version, claim.pending) == (saga_id, 0, True)
        assert storage.load(saga_id).state is SagaState.QUEUED

    def test_a_request_to_cancel_revives_a_dead_saga_with_all_its_attempts(self, storage: ISagaStorage) -> None:
        saga_id = self.die(storage)

        woken = self._cancelled(storage, saga_id)

        assert (woken.state, woken.recovery_attempts) == (SagaState.QUEUED, 0)
        self.acquired(self.acquire(storage, saga_id, version=woken.version))

    def _cancelled(self, storage: ISagaStorage, saga_id: UUID) -> SagaRecord:
        storage.add_signal(cancel(saga_id))
        storage.add_signal(signal(saga_id))
        assert ids(storage.deliver([saga_id])) == [saga_id]
        return storage.load(saga_id)

    def test_a_request_to_cancel_leaves_the_rest_to_whoever_has_the_saga(self, storage: ISagaStorage) -> None:
        for saga_id in (
            *(self.start(storage), self.start(storage, queued=True), self.run(storage).saga_id),
            *(self.free(storage), self.in_queue(storage).saga_id, self.finish(storage)),
        ):
            before = storage.load(saga_id)
            storage.add_signal(cancel(saga_id))

            assert storage.deliver([saga_id]) == []
            assert storage.load(saga_id) == replace(before, inbox=1), before.state

    def test_a_signal_is_delivered_once(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)
        for signal_id in ("1", "2", "3"):
            storage.add_signal(signal(saga_id, signal_id))

        assert [keys(storage.deliver([saga_id])) for _ in range(2)] == [[(saga_id, 1)], []]
        assert storage.load(saga_id).inbox == 3

    def test_deliveries_at_once_count_each_signal_once_and_wake_the_saga_once(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)

        def send(number: int) -> list[UUID]:
            storage.add_signal(signal(saga_id, str(number)))
            return ids(storage.deliver([saga_id]))

        claimed = all_at_once(send)

        assert [claim for claims in claimed for claim in claims] == [saga_id]
        assert storage.load(saga_id).inbox == len(claimed)

    @pytest.mark.parametrize("kind", [signal, cancel])
    def test_posting_stores_a_signal_and_delivers_it(
        self, storage: ISagaStorage, kind: Callable[[UUID], Signal]
    ) -> None:
        lease, saga_id = self.run(storage), self.wait(storage)
        other, sent = kind(lease.saga_id), replace(kind(saga_id), payload='{"a":  1.50}')

        assert storage.post_signal(other) == (True, [])
        is_new, claims = storage.post_signal(sent)

        assert (is_new, keys(claims)) == (True, [(saga_id, 1)])
        assert claims[0].queued_at is not None
        assert (storage.signals(saga_id), storage.load(saga_id).state) == ([sent], SagaState.QUEUED)
        assert [storage.load(each).inbox for each in (lease.saga_id, saga_id)] == [1, 1]
        assert storage.deliver([lease.saga_id, saga_id]) == []
        assert storage.post_signal(sent) == (False, [])
        assert storage.load(saga_id).inbox == 1

    def test_posting_a_known_signal_delivers_what_its_sender_left(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)
        storage.add_signal(signal(saga_id))

        is_new, claims = storage.post_signal(signal(saga_id))

        assert (is_new, ids(claims), storage.load(saga_id).inbox) == (False, [saga_id], 1)

    def test_posts_at_once_count_each_signal_once_and_wake_the_saga_once(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)

        posted = all_at_once(lambda number: storage.post_signal(signal(saga_id, str(number // 2))))

        assert sum(is_new for is_new, _ in posted) == storage.load(saga_id).inbox == len(posted) / 2
        assert [claim.saga_id for _, claims in posted for claim in claims] == [saga_id]

    def test_claims_come_in_the_order_of_the_ids(self, storage: ISagaStorage) -> None:
        waiting = [self.wait(storage) for _ in range(5)]
        for saga_id in waiting:
            storage.add_signal(signal(saga_id))

        asked = [waiting[3], new_saga_id(), waiting[0], waiting[3], waiting[4]]

        assert ids(storage.deliver(asked)) == [waiting[3], waiting[0], waiting[4]]
        assert [storage.load(saga_id).inbox for saga_id in waiting] == [1, 0, 0, 1, 1]
        assert storage.deliver([]) == []

    def test_a_saga_that_was_delivered_to_but_not_sent_is_due_at_once(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage)
        storage.add_signal(signal(saga_id))

        storage.release_claims(storage.deliver([saga_id]))

        assert ids(self.claim(storage)) == [saga_id]

    def test_only_signals_that_nobody_delivered_for_so_long_are_forgotten(self, storage: ISagaStorage) -> None:
        old, older, delivered = (self.start(storage) for _ in range(3))
        for saga_id in (older, delivered, older):
            storage.add_signal(signal(saga_id, str(new_saga_id())))
        storage.deliver([delivered])
        self.pass_time(storage, self.a_while)
        storage.add_signal(signal(old))
        fresh = self.start(storage)
        self.pass_time(storage, self.a_while)
        storage.add_signal(signal(fresh))

        assert storage.undelivered(older_than_seconds=self.a_while * 1.5, limit=10) == [older]
        assert set(storage.undelivered(older_than_seconds=self.a_while / 2, limit=10)) == {older, old}
        assert storage.undelivered(older_than_seconds=self.a_while / 2, limit=1) == [older]
        storage.deliver([older, old, fresh])
        assert storage.undelivered(older_than_seconds=0, limit=10) == []

    def test_delivering_deletes_the_signals_of_a_saga_that_is_gone(self, storage: ISagaStorage) -> None:
        # No delivery could ever count them, so each scan would find them again, and so many would hide the others.
        gone, waiting = new_saga_id(), self.wait(storage)
        for saga_id in (gone, waiting):
            storage.add_signal(signal(saga_id))

        assert ids(storage.deliver([gone, waiting])) == [waiting]

        self.pass_time(storage, 1)
        assert storage.undelivered(older_than_seconds=0, limit=10) == []
        assert (storage.signals(gone), len(storage.signals(waiting))) == ([], 1)


class InboxContract(ContractBase):
    """`seen`: a holder that has not read all that was delivered cannot put its saga down, time it out or end it."""

    @_SEEING
    def test_a_transition_is_written_if_all_was_read(
        self, storage: ISagaStorage, transition: Callable[[int | None], Transition]
    ) -> None:
        for seen in (0, 2):
            lease = self.recover(storage)
            for signal_id in range(seen):
                storage.add_signal(signal(lease.saga_id, str(signal_id)))
            storage.deliver([lease.saga_id])

            applied = storage.apply(lease, transition(seen))

            saga = storage.load(lease.saga_id)
            assert (applied.state, applied.inbox, saga.inbox) == (saga.state, seen, seen)
            assert len(applied.log) == len(saga.log) == len(transition(seen).events)

    @_SEEING
    @pytest.mark.parametrize("seen", [0, 1, 3])
    def test_nothing_is_written_if_more_was_delivered(
        self, storage: ISagaStorage, transition: Callable[[int | None], Transition], seen: int
    ) -> None:
        lease = self.recover(storage)
        for signal_id in ("1", "2"):
            storage.add_signal(signal(lease.saga_id, signal_id))
        storage.deliver([lease.saga_id])
        before = storage.load(lease.saga_id)

        with pytest.raises(InboxMoved) as caught:
            storage.apply(lease, transition(seen))

        assert caught.value.inbox == 2
        assert storage.load(lease.saga_id) == before
        storage.apply(lease, transition(2))

    @_SEEING
    def test_a_signal_that_is_not_delivered_stops_nobody(
        self, storage: ISagaStorage, transition: Callable[[int | None], Transition]
    ) -> None:
        lease = self.recover(storage)
        storage.add_signal(signal(lease.saga_id))

        assert storage.apply(lease, transition(0)).inbox == 0

    def test_a_transition_that_names_no_inbox_is_always_written(self, storage: ISagaStorage) -> None:
        for name, transition in {**TRANSITIONS, **{name: make(None) for name, make in SEEING.items()}}.items():
            lease = self.recover(storage)
            storage.add_signal(signal(lease.saga_id))
            storage.deliver([lease.saga_id])

            assert storage.apply(lease, transition).inbox == 1, name

    @_SEEING
    def test_a_lost_lease_is_said_before_an_inbox_that_moved(
        self, storage: ISagaStorage, transition: Callable[[int | None], Transition]
    ) -> None:
        lease = self.run(storage)
        storage.add_signal(signal(lease.saga_id))
        storage.deliver([lease.saga_id])

        with pytest.raises(LeaseLost):
            storage.apply(replace(lease, version=7), transition(0))

    def test_of_many_those_that_moved_are_said_at_their_places_and_stop_no_other(self, storage: ISagaStorage) -> None:
        leases = [self.recover(storage) for _ in range(2 * len(SEEING))]
        moved = {lease.saga_id for lease in leases[::2]}
        for saga_id in moved:
            storage.add_signal(signal(saga_id))
        storage.deliver(list(moved))

        asked = [make(0) for make in SEEING.values() for _ in range(2)]
        results = storage.apply_many(list(zip(leases, asked, strict=True)))

        for lease, transition, result in zip(leases, asked, results, strict=True):
            saga = storage.load(lease.saga_id)
            if lease.saga_id in moved:
                assert isinstance(result, InboxMoved)
                assert (result.inbox, saga.state, saga.log) == (1, SagaState.RUNNING, ())
            else:
                assert isinstance(result, Applied)
                assert (result.state, len(saga.log)) == (saga.state, len(transition.events))

    def test_a_saga_that_waits_without_end_is_never_due(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)

        applied = storage.apply(lease, SEEING["a wait without end"](0))

        assert (applied.state, applied.available_at) == (SagaState.WAITING, None)
        self.pass_time(storage, 1_000_000 if self.a_while > 10 else self.a_while)
        assert ids(self.claim(storage)) == []
        self.refused(self.acquire(storage, lease.saga_id), Refusal.WAITING)
        self.acquired(self.acquire(storage, lease.saga_id, by_hand=True))

    def test_a_saga_that_waits_for_a_time_is_due_after_it(self, storage: ISagaStorage) -> None:
        saga_id = self.wait(storage, self.a_while)

        saga = storage.load(saga_id)
        assert (saga.state, saga.lease_owner, saga.lease_token) == (SagaState.WAITING, None, None)
        assert ids(self.claim(storage)) == []
        self.refused(self.acquire(storage, saga_id), Refusal.WAITING)
        self.pass_time(storage, self.a_while * 1.5)
        assert keys(self.claim(storage)) == [(saga_id, 1)]

    def test_the_beginning_of_a_wait_is_kept_with_its_length(self, storage: ISagaStorage) -> None:
        lease = self.run(storage)
        storage.apply(lease, Suspended(events=(ARMED,), status=RUNNING, after_seconds=60, waiting=True, seen=0))

        (row,) = storage.load(lease.saga_id).log

        assert (row.status, row.seconds) == (EntryStatus.ARMED, 60.0)

    def test_no_saga_is_put_down_beside_a_signal_that_comes_at_that_moment(self, storage: ISagaStorage) -> None:
        for _ in range(5):
            lease = self.recover(storage)
            saga_id = lease.saga_id

            def act(number: int, lease: Any = lease, saga_id: UUID = saga_id) -> object:
                if number % 2:
                    storage.add_signal(signal(saga_id, str(number)))
                    return storage.deliver([saga_id])
                if number == 0:
                    try:
                        return storage.apply(lease, SEEING["a wait without end"](0))
                    except InboxMoved as error:
                        return error
                return None

            results = all_at_once(act, 4)

            saga = storage.load(saga_id)
            assert saga.inbox == 2
            if isinstance(results[0], InboxMoved):
                assert saga.state is SagaState.RUNNING
            else:
                assert saga.state is SagaState.QUEUED
                assert sorted(map(len, (results[1], results[3]))) == [0, 1]  # type: ignore[arg-type]


class StartTimeContract(ContractBase):
    """`create_sagas` with a time, tags and deadlines."""

    @pytest.mark.parametrize("many", [1, 3], ids=["one", "many"])
    @pytest.mark.parametrize("way", ["at", "after"])
    def test_a_saga_that_begins_later_is_due_then(self, storage: ISagaStorage, way: str, many: int) -> None:
        now = storage.load(self.run(storage).saga_id).created_at
        given = [new(str(number)) for number in range(many)]
        when: dict[str, Any] = {"at": now + timedelta(seconds=self.a_while)} if way == "at" else {}

        storage.create_sagas(given, **when or {"after_seconds": self.a_while})

        started = [saga.id for saga in given]
        for saga_id in started:
            saga = storage.load(saga_id)
            assert (saga.status, saga.state) == (SagaStatus.PENDING, SagaState.READY)
            self.refused(self.acquire(storage, saga_id), Refusal.WAITING)
        assert storage.claim_by_id(started) == []
        assert ids(self.claim(storage, pending=True)) == []
        self.pass_time(storage, self.a_while * 1.5)
        assert set(ids(self.claim(storage, pending=True))) == set(started)

    def test_a_time_in_the_past_is_now(self, storage: ISagaStorage) -> None:
        now = storage.load(self.start(storage, queued=True)).created_at
        late = new()

        storage.create_sagas([late], at=now - timedelta(days=1))

        assert ids(self.claim(storage, pending=True)) == [late.id]

    @pytest.mark.parametrize("many", [1, 3], ids=["one", "many"])
    def test_a_deadline_counts_from_the_start(self, storage: ISagaStorage, many: int) -> None:
        now = storage.load(self.start(storage)).created_at
        at = now + timedelta(days=2)
        starts: list[dict[str, Any]] = [{}, {"queued": True}, {"after_seconds": 86400.0}, {"at": at}]
        for start, days in zip(starts, (0, 0, 1, 2), strict=True):
            given = [new(deadline_seconds=3600.0) for _ in range(many)]

            storage.create_sagas(given, **start)

            for each in given:
                saga = storage.load(each.id)
                assert saga.deadline_at is not None
                after = saga.deadline_at - (now if "at" in start else saga.created_at)
                assert abs(after - timedelta(days=days, hours=1)) < timedelta(minutes=5), start

        assert storage.load(self.start(storage)).deadline_at is None

    def test_tags_are_kept_and_none_are_none(self, storage: ISagaStorage) -> None:
        tags = {"customer": "c-7", "": "", "ü \"'": "🚚\\n"}
        given = [new(tags=tags), new(), new(tags={})]

        storage.create_sagas(given[:1])
        storage.create_sagas(given[1:])

        assert [storage.load(saga.id).tags for saga in given] == [tags, None, {}]
