"""The scan that finds sagas nobody works on, and what it does when the broker fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from sagas import ISagaStorage, MemorySagaStorage, PostgresSagaStorage, RetryPolicy, SagaStatus
from sagas.errors import ConfigurationError, InvalidSagaId, SagaNotFound
from sagas.progress import EntryStatus
from sagas.recovery import ScanReport, parse_saga_id, scan
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import Claim
from tests.samples import SETTINGS, Clock, FakeDispatcher, QuickEngine, Stage, Trip

FULL = ConnectionError("fully booked")


class World:
    """A storage and its time, an engine that starts sagas without telling the broker, and the broker."""

    def __init__(self, storage: ISagaStorage, forward: Callable[[float], None]) -> None:
        self.storage, self.forward = storage, forward
        self.stage = Stage()
        self.engine = QuickEngine(storage)
        self.dispatcher = FakeDispatcher()

    def pending(self) -> UUID:
        """A saga that never ran, free."""
        return self.engine.start(self.stage.saga("hotel"), Trip())

    def due(self) -> UUID:
        """A saga whose second attempt at a step is due."""
        saga = self.stage.saga(self.stage.step("hotel", [FULL], retry=RetryPolicy(first_delay=60)))
        saga_id = self.engine.run(saga, Trip()).saga_id
        self.forward(60)
        return saga_id

    def crashed(self, attempts: int) -> UUID:
        """A saga whose worker died in a recovery, after so many failed attempts."""
        saga_id = self.due()
        self.storage.set_recovery_attempts(saga_id, attempts)
        request = LeaseRequest(owner="dead/1.1", seconds=30)
        assert isinstance(self.storage.acquire(saga_id, request, max_recovery_attempts=3), Acquired)
        self.forward(30)
        return saga_id

    def scan(self, **settings: int) -> ScanReport:
        return scan(self.storage, self.dispatcher, SETTINGS.model_copy(update=settings))


@pytest.fixture(params=["memory", "postgresql"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        clock = Clock()
        yield World(MemorySagaStorage(clock), clock.forward)
        return
    storage: PostgresSagaStorage = request.getfixturevalue("emptied_storage")

    def forward(seconds: float) -> None:
        with storage._connections.cursor() as cursor:
            cursor.execute(
                "UPDATE saga_executions SET available_at = available_at - make_interval(secs => %(seconds)s)",
                {"seconds": seconds},
            )

    yield World(storage, forward)


def test_scan_sends_each_due_saga_once_whether_it_ever_ran_or_not(world: World) -> None:
    pending, due = world.pending(), world.due()

    assert set(world.scan().dispatched) == {pending, due}
    assert set(world.dispatcher.sent) == {Claim(pending, 0, pending=True), Claim(due, 1)}
    assert world.scan() == ScanReport()
    assert len(world.dispatcher.sent) == 2


def test_message_of_a_scan_brings_its_saga_to_its_end(world: World) -> None:
    world.due()
    world.scan()
    (claim,) = world.dispatcher.sent

    assert world.engine.recover(claim.saga_id, version=claim.version).outcome == "completed"


def test_what_is_not_due_is_not_sent(world: World) -> None:
    world.engine.run(world.stage.saga("hotel"), Trip())
    later = world.stage.saga(world.stage.step("hotel", [FULL], retry=RetryPolicy(first_delay=600)))
    world.engine.run(later, Trip())

    assert world.scan() == ScanReport()


def test_scan_keeps_the_queue_at_its_limit(world: World) -> None:
    started = {world.pending() for _ in range(5)}

    first = world.scan(scan_limit=2)
    second = world.scan(scan_limit=4)
    third = world.scan(scan_limit=4)

    assert [len(report.dispatched) for report in (first, second, third)] == [2, 2, 0]
    assert {*first.dispatched, *second.dispatched} < started


def test_sagas_the_broker_did_not_take_are_free_for_the_next_scan(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    started = {world.pending() for _ in range(3)}
    world.dispatcher.capacity = 1

    report = world.scan()

    assert (len(report.dispatched), report.unsent) == (1, 2)
    assert "the broker failed; 2 sagas stay due" in caplog.text
    world.dispatcher.capacity = None
    again = world.scan()
    assert {*report.dispatched, *again.dispatched} == started
    assert len(again.dispatched) == 2


def test_message_that_the_broker_lost_is_sent_again(world: World) -> None:
    saga_id = world.due()
    world.scan()
    world.forward(10)

    report = world.scan()

    assert (report.missing, report.dispatched) == (1, (saga_id,))


def test_nothing_is_sent_again_while_messages_reach_workers(world: World) -> None:
    world.due()
    world.scan()
    world.forward(10)
    world.storage.note_delivery(Claim(UUID(int=0), 1))

    assert world.scan() == ScanReport()


def test_saga_of_a_dead_worker_is_sent_to_another_and_its_crash_counted(world: World) -> None:
    saga_id = world.crashed(attempts=0)

    assert world.scan().dispatched == (saga_id,)
    stored = world.storage.load(saga_id)
    assert (stored.recovery_attempts, stored.log[-1].status, stored.log[-1].worker) == (1, EntryStatus.LOST, "dead/1.1")
    assert stored.last_error == "worker dead/1.1 died or was cut off while holding the lease"


def test_saga_that_crashed_its_worker_once_too_often_is_reported_dead_and_not_sent(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    saga_id = world.crashed(attempts=2)

    with caplog.at_level(logging.ERROR):
        report = world.scan()

    assert (report.died, report.dispatched) == ((saga_id,), ())
    assert f"saga {saga_id} is dead: the crash of its worker spent its last attempt" in caplog.text
    assert world.storage.load(saga_id).dead
    assert world.scan() == ScanReport()


def test_recovery_that_reclaims_the_last_lease_finds_the_saga_dead(world: World) -> None:
    saga_id = world.crashed(attempts=2)

    report = world.engine.recover(saga_id)

    assert (report.outcome, report.status) == ("skipped", SagaStatus.FAILED)
    assert report.message.startswith("its worker died, which was failed attempt 3, so it is dead now")
    assert world.engine.recover(saga_id, by_hand=True).outcome == "completed"


def test_report_is_plain_data_for_flower() -> None:
    died = UUID(int=2)
    report = ScanReport(dispatched=(UUID(int=1),), died=(died,), missing=3, unsent=4)

    assert json.loads(json.dumps(report.as_json())) == {
        **{"dispatched": 1, "died": [str(died)], "missing": 3, "unsent": 4},
        **{"scheduled": 0, "schedules_failed": []},
    }


def test_engine_without_a_dispatcher_says_so_when_it_is_to_scan() -> None:
    with pytest.raises(ConfigurationError, match="this engine has no dispatcher to send sagas to workers with"):
        QuickEngine(MemorySagaStorage()).scan()


def test_engine_scans_with_its_own_dispatcher() -> None:
    dispatcher, storage = FakeDispatcher(), MemorySagaStorage()
    saga_id = QuickEngine(storage).start(Stage().saga("hotel"), Trip())

    assert QuickEngine(storage, dispatcher=dispatcher).scan().dispatched == (saga_id,)


# -- ids ----------------------------------------------------------------------------------------------------------


def test_id_is_read_from_text_or_taken_as_it_is() -> None:
    saga_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

    assert parse_saga_id(saga_id) is saga_id
    assert parse_saga_id(" 01890A5D-AC96-774B-BCCE-B302099A8057\n") == saga_id


@pytest.mark.parametrize("text", ["", "hotel", "01890a5d", None, 7, "x" * 10_000])
def test_text_that_is_no_id_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InvalidSagaId) as caught:
        parse_saga_id(text)

    message = str(caught.value)
    assert message.startswith(repr(str(text)[:100]))
    assert message.endswith(
        "is not a saga's id, which is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057: copy it from `sagas list`."
    )


def test_id_that_no_saga_has_is_refused_by_name() -> None:
    saga_id = "01890a5d-ac96-774b-bcce-b302099a8057"

    with pytest.raises(
        SagaNotFound, match=f"no saga has the id {saga_id}: check it, or see whether the saga was pruned"
    ):
        QuickEngine(MemorySagaStorage()).recover(saga_id)
