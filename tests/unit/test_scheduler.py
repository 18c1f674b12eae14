"""The scan starts the sagas of schedules that are due, and reports those that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from sagas import MemorySagaStorage, SagaStatus, Schedule, Settings
from sagas.errors import StorageUnavailable
from sagas.ids import new_saga_id
from sagas.recovery import ScanReport
from sagas.storage.records import NewSaga, SagaRecord
from sagas.storage.saga_filter import SagaFilter
from tests.samples import Clock, FakeDispatcher, QuickEngine, Stage, Trip

MINUTE, DAY = 60.0, 86_400.0


class World:
    """An engine with schedules, whose clock begins at midnight, and its broker."""

    def __init__(self) -> None:
        self.clock, self.dispatcher = Clock(), FakeDispatcher()
        self.storage = Storage(self.clock)
        self.saga = Stage().saga("hotel")
        self.engine = self.new_engine()

    def new_engine(self, *schedules: Schedule[Any]) -> QuickEngine:
        """An engine of another process, with these schedules or else those of the first."""
        engine = QuickEngine(self.storage, dispatcher=self.dispatcher, settings=Settings(scan_interval_seconds=5))
        for schedule in schedules or (self.engine.registry.schedules if hasattr(self, "engine") else ()):
            engine.registry.add_schedule(schedule)
        return engine

    def add(
        self, cron: str = "0 3 * * *", context: Callable[[datetime], Trip] | None = None, **options: Any
    ) -> Schedule[Trip]:
        def at(tick: datetime) -> Trip:
            return Trip(note=f"{tick:%d %H:%M}")

        schedule = Schedule(self.saga, cron, context=context or at, **options)
        self.engine.registry.add_schedule(schedule)
        return schedule

    def scan(self, after: float = 0.0) -> ScanReport:
        self.clock.forward(after)
        return self.engine.scan()

    def started(self) -> list[SagaRecord]:
        """The sagas, the oldest first."""
        return sorted(self.storage.find(SagaFilter(limit=10_000)), key=lambda saga: saga.id)

    def keys(self) -> list[str]:
        return [(saga.idempotency_key or "").removeprefix("schedule:") for saga in self.started()]


class Storage(MemorySagaStorage):
    """Dies at the next call of this method."""

    dies_at: str | None = None

    def note_tick(self, name: str, tick: datetime) -> None:
        self._maybe_die("note_tick")
        super().note_tick(name, tick)

    def create_sagas(self, *args: Any, **kwargs: Any) -> Any:
        self._maybe_die("create_sagas")
        return super().create_sagas(*args, **kwargs)

    def _maybe_die(self, method: str) -> None:
        if self.dies_at == method:
            self.dies_at = None
            raise StorageUnavailable(f"gone at {method}")


@pytest.fixture
def world() -> World:
    return World()


def test_a_due_schedule_starts_its_saga_and_the_same_scan_sends_it(world: World) -> None:
    world.add(name="nightly")
    assert world.scan() == ScanReport()
    assert world.scan(2 * DAY / 24) == ScanReport()

    report = world.scan(DAY / 24)

    (saga,) = world.started()
    assert (report.scheduled, report.dispatched) == ((saga.id,), (saga.id,))
    assert (saga.idempotency_key, saga.status) == ("schedule:nightly:2031-05-01T03:00:00Z", SagaStatus.PENDING)
    assert [claim.saga_id for claim in world.dispatcher.sent] == [saga.id]
    assert '"01 03:00"' in saga.context
    assert saga.tags == {"schedule": "nightly"}
    assert world.scan(5).scheduled == ()


def test_a_new_schedule_begins_with_the_first_tick_after_a_scan_saw_it(world: World) -> None:
    world.clock.forward(DAY / 24 * 4)
    world.add(catch_up="all")

    assert world.scan().scheduled == ()
    assert world.scan(DAY / 24 * 22).scheduled == ()
    assert len(world.scan(DAY / 24).scheduled) == 1
    assert world.keys() == ["trip:2031-05-02T03:00:00Z"]


def test_schedules_of_one_saga_have_their_own_ticks_and_sagas(world: World) -> None:
    world.add(name="north", timezone="Europe/Oslo")
    world.add(name="south", timezone="UTC")
    world.scan()

    assert len(world.scan(DAY).scheduled) == 2
    assert world.keys() == ["north:2031-05-01T01:00:00Z", "south:2031-05-01T03:00:00Z"]


@pytest.mark.parametrize("moment", ["create_sagas", "note_tick"])
def test_a_scan_that_dies_midway_loses_no_tick_and_starts_none_twice(world: World, moment: str) -> None:
    world.add()
    world.scan()
    world.storage.dies_at = moment
    with pytest.raises(StorageUnavailable, match=f"gone at {moment}"):
        world.scan(DAY)

    other = world.new_engine().scan()

    assert world.keys() == ["trip:2031-05-01T03:00:00Z"]
    # It was started by one of the two, and is sent by the second.
    assert (len(other.scheduled), len(other.dispatched)) == ((1, 1) if moment == "create_sagas" else (0, 1))


@pytest.mark.parametrize(("catch_up", "days"), [("last", ["04"]), ("all", ["01", "02", "03", "04"]), ("none", [])])
def test_missed_ticks_are_caught_up_as_the_schedule_says(
    world: World, catch_up: str, days: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    world.add(catch_up=catch_up)
    world.scan()

    with caplog.at_level(logging.WARNING, "sagas"):
        report = world.scan(4 * DAY)

    assert world.keys() == [f"trip:2031-05-{day}T03:00:00Z" for day in days]
    assert len(report.scheduled) == len(days)
    skipped = "schedule 'trip' skipped ticks after 2031-05-01 00:00:00 UTC that no scan was there for"
    assert (skipped in caplog.text) == (catch_up != "all")
    assert world.scan(5).scheduled == ()
    assert len(world.scan(DAY / 24 * 3 - 5).scheduled) == 1


def test_many_missed_ticks_are_started_and_noted_in_batches(world: World) -> None:
    world.add("* * * * *", catch_up="all")
    world.scan()
    notes: list[datetime] = []
    note = world.storage.note_tick
    world.storage.note_tick = lambda name, tick: (notes.append(tick), note(name, tick))[1]  # type: ignore[method-assign]

    report = world.scan(250 * MINUTE)

    assert len(set(world.keys())) == len(report.scheduled) == 250
    assert [round((tick - notes[0]) / timedelta(minutes=1)) for tick in notes] == [0, 100, 150, 150]


def failing(*days: int) -> Callable[[datetime], Trip]:
    def context(tick: datetime) -> Trip:
        if tick.day in days:
            raise LookupError(f"no books for {tick.day}")
        return Trip()

    return context


def test_a_context_that_fails_stops_neither_the_scan_nor_other_schedules(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.add(name="broken", context=failing(1))
    world.add(name="sound")
    world.scan()
    ((other, _),) = world.storage.create_sagas([NewSaga(id=new_saga_id(), name="trip", context="{}")])

    report = world.scan(DAY)

    assert report.schedules_failed == ("broken",)
    assert report.as_json()["schedules_failed"] == ["broken"]
    assert world.keys() == ["", "sound:2031-05-01T03:00:00Z"]
    assert set(report.dispatched) == {other, *report.scheduled}
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == (
        "schedule 'broken' is due, but its context for 2031-05-01 03:00:00 UTC failed with LookupError "
        "(no books for 1). Correct it; scans try again."
    )
    assert error.exc_info is not None


def test_a_failure_is_logged_once_and_again_after_a_success(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(context=failing(1, 3))
    world.scan()
    for _ in range(3):
        assert world.scan(DAY / 4).schedules_failed == (("trip",) if world.clock.now.hour else ())
    assert caplog.text.count("failed with LookupError") == 1

    world.scan(DAY)  # the second day's tick succeeds
    world.scan(DAY)

    assert caplog.text.count("failed with LookupError") == 2


def test_ticks_behind_a_failing_one_wait_until_the_code_is_corrected(world: World) -> None:
    world.add(catch_up="all", context=failing(3))
    world.scan()

    report = world.scan(5 * DAY)

    assert (len(report.scheduled), report.schedules_failed) == (2, ("trip",))
    corrected = Schedule(world.saga, "0 3 * * *", context=lambda tick: Trip(), catch_up="all")
    assert len(world.new_engine(corrected).scan().scheduled) == 3
    assert world.keys() == [f"trip:2031-05-0{day}T03:00:00Z" for day in (1, 2, 3, 4, 5)]


def test_a_context_of_the_wrong_type_is_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(context=lambda tick: "books")  # type: ignore[arg-type,return-value]
    world.scan()

    assert world.scan(DAY).schedules_failed == ("trip",)
    assert "failed with ContextError" in caplog.text


def test_a_failing_start_is_reported_and_other_schedules_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.add(name="first")
    world.add(name="second")
    world.scan()
    create, failures = world.storage.create_sagas, [RuntimeError("no space left")]

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return create(*args, **kwargs)

    monkeypatch.setattr(world.storage, "create_sagas", fails_once)
    report = world.scan(DAY)

    assert (report.schedules_failed, world.keys()) == (("first",), ["second:2031-05-01T03:00:00Z"])
    assert "schedule 'first' is due, but its saga could not be started with RuntimeError (no space left)" in caplog.text


def test_an_engine_without_schedules_asks_the_storage_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.storage, "schedule_ticks", None)

    assert world.scan() == ScanReport()


def test_a_schedule_that_another_scan_makes_known_waits_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    ticks = world.storage.schedule_ticks
    monkeypatch.setattr(world.storage, "schedule_ticks", lambda names: type(ticks(names))(now=world.clock.now, last={}))

    assert world.scan() == ScanReport()
