"""Contract tests of lost messages: they are found by the order of the queue, and by probes while no message arrives."""

from __future__ import annotations

from sagas.ids import new_saga_id
from sagas.storage.answers import ClaimResult
from sagas.storage.contract import ISagaStorage
from sagas.storage.lost_messages import OVERTAKING_SECONDS, PROBES
from sagas.storage.records import Claim, SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import MOST_PROBE_SECONDS, PROBE_SECONDS
from sagas.testing.storage_contract.base import ContractBase, ids, keys, new
from sagas.testing.storage_contract.dispatching import KINDS


class LostMessageContract(ContractBase):
    """`note_delivery`, and the messages that a scan sends again."""

    @KINDS
    def test_what_was_queued_before_a_message_that_arrived_has_lost_its_own(
        self, storage: ISagaStorage, pending: bool
    ) -> None:
        (lost,) = self._claim(storage, pending=pending)
        (arrived,) = self._claim_later(storage, pending=pending)

        storage.note_delivery(arrived)

        result = self.claim(storage, pending=pending)
        assert (keys(result), result.lost) == ([(lost.saga_id, lost.version)], 1)
        assert result.claims[0].queued_at != lost.queued_at
        # The message that replaces the lost one is in the broker now, so it is not sent again.
        for _ in range(3):
            assert self.claim(storage, pending=pending) == ClaimResult()
        self.acquired(self.acquire(storage, lost.saga_id, version=lost.version))

    def test_the_message_of_a_start_was_queued_when_its_saga_was_created(self, storage: ISagaStorage) -> None:
        lost = new()
        storage.create_sagas([lost], queued=True)
        self.pass_time(storage, OVERTAKING_SECONDS * 1.2)
        arrived = new()
        storage.create_sagas([arrived], queued=True)

        storage.note_delivery(Claim(arrived.id, 0, pending=True))

        assert ids(self.claim(storage, pending=True)) == [lost.id]

    def test_messages_may_overtake_each_other_for_a_moment(self, storage: ISagaStorage) -> None:
        self._claim(storage)
        self.pass_time(storage, OVERTAKING_SECONDS / 5)
        (arrived,) = self._claim(storage)

        storage.note_delivery(arrived)

        assert self.claim(storage) == ClaimResult()

    def test_an_older_message_that_arrives_later_hides_no_newer_one(self, storage: ISagaStorage) -> None:
        (older,) = self._claim(storage)
        (lost,) = self._claim(storage)
        (arrived,) = self._claim_later(storage)

        for claim in (arrived, older, Claim(older.saga_id, 1)):
            storage.note_delivery(claim)
        self.acquired(self.acquire(storage, older.saga_id))

        assert ids(self.claim(storage)) == [lost.saga_id]

    def test_a_message_of_one_queue_says_nothing_about_the_other(self, storage: ISagaStorage) -> None:
        self._claim(storage)
        (arrived,) = self._claim_later(storage, pending=True)

        storage.note_delivery(arrived)

        # The saga is probed, because no message arrives in its own queue. A probe delays the next probe.
        assert self.claim(storage, pending=False).lost == 1
        assert self.claim(storage, pending=False).lost == self.claim(storage, pending=True).lost == 0

    def test_no_more_than_the_limit_are_sent_again_at_once(self, storage: ISagaStorage) -> None:
        self._claim(storage, 5)
        (arrived,) = self._claim_later(storage)
        storage.note_delivery(arrived)

        assert [self.claim(storage, limit=3).lost for _ in range(3)] == [3, 2, 0]

    @KINDS
    def test_while_nothing_arrives_the_oldest_are_probed(self, storage: ISagaStorage, pending: bool) -> None:
        oldest = ids(self._claim(storage, PROBES, pending=pending))
        self.pass_time(storage, 0.01)
        self._claim(storage, 3, pending=pending)
        self.pass_time(storage, PROBE_SECONDS * 0.8)
        assert self.claim(storage, pending=pending) == ClaimResult()
        self.pass_time(storage, PROBE_SECONDS * 0.4)

        result = self.claim(storage, pending=pending, limit=1)

        assert (set(ids(result)), result.lost) == (set(oldest), PROBES)
        assert all(saga.version == (0 if pending else 1) for saga in map(storage.load, oldest))

    def test_each_probe_waits_twice_as_long_up_to_a_bound(self, storage: ISagaStorage) -> None:
        self._claim(storage)
        waits = PROBE_SECONDS
        while waits < MOST_PROBE_SECONDS * 2:
            self._is_probed_after(storage, min(waits, MOST_PROBE_SECONDS))
            waits *= 2
        self._is_probed_after(storage, MOST_PROBE_SECONDS)

    def test_counting_an_attempt_makes_no_probe_early_and_none_endless(self, storage: ISagaStorage) -> None:
        (claim,) = self._claim(storage)
        self.pass_time(storage, PROBE_SECONDS * 3)
        storage.increment_recovery_attempts(claim.saga_id)
        assert self.claim(storage).lost == 1

        self._is_probed_after(storage, PROBE_SECONDS)

    def test_while_messages_arrive_nothing_is_probed(self, storage: ISagaStorage) -> None:
        second = self._claim(storage, 2)[1]
        for _ in range(3):
            self.pass_time(storage, PROBE_SECONDS * 0.9)
            storage.note_delivery(Claim(new_saga_id(), 0))
            assert self.claim(storage) == ClaimResult()
        self.pass_time(storage, PROBE_SECONDS * 1.1)
        assert self.claim(storage).lost == PROBES
        self.acquired(self.acquire(storage, second.saga_id, version=second.version))

    def test_a_broker_that_answers_nothing_gets_few_messages_more_than_sagas(self, storage: ISagaStorage) -> None:
        # The publisher is slow, and sagas wait for busy workers: messages must not multiply.
        for _ in range(40):
            self.free(storage)
        sent = 0
        for _ in range(60):
            sent += len(self.claim(storage, limit=20).claims)
            self.pass_time(storage, 2)

        assert len(storage.find(SagaFilter(states=[SagaState.QUEUED]))) == 20
        # Probes become rarer the longer the sagas wait.
        assert 20 < sent <= 20 + 2 * 60 / PROBE_SECONDS

    def test_a_lost_message_costs_no_attempt_and_its_saga_keeps_its_place(self, storage: ISagaStorage) -> None:
        (claim,) = self._claim(storage)
        self.pass_time(storage, PROBE_SECONDS * 1.1)
        assert ids(self.claim(storage, limit=1)) == [claim.saga_id]

        saga = storage.load(claim.saga_id)
        assert (saga.recovery_attempts, saga.state, saga.log) == (0, SagaState.QUEUED, ())
        self.free(storage)
        assert self.claim(storage, limit=1) == ClaimResult()

    def _claim(self, storage: ISagaStorage, count: int = 1, *, pending: bool = False) -> list[Claim]:
        """Queue new sagas, all at once."""
        made = [self.start(storage) if pending else self.free(storage) for _ in range(count)]
        claims = {claim.saga_id: claim for claim in self.claim(storage, pending=pending, limit=1000).claims}
        return [claims[saga_id] for saga_id in made]

    def _claim_later(self, storage: ISagaStorage, *, pending: bool = False) -> list[Claim]:
        """Queue a new saga after messages could have overtaken each other, while others arrive."""
        self.pass_time(storage, OVERTAKING_SECONDS * 1.2)
        storage.note_delivery(Claim(new_saga_id(), 0, pending))
        return self._claim(storage, pending=pending)

    def _is_probed_after(self, storage: ISagaStorage, seconds: float) -> None:
        self.pass_time(storage, seconds * 0.9)
        assert self.claim(storage) == ClaimResult()
        self.pass_time(storage, seconds * 0.2)
        assert self.claim(storage).lost == 1
