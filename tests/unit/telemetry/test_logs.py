"""Every line about a saga carries which saga, and which step, whatever thread or module it comes from."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pythonjsonlogger.json import JsonFormatter

import sagas
from sagas import MemorySagaStorage, RetryPolicy
from sagas.errors import LeaseLost, StorageUnavailable
from sagas.lease import LeaseKeeper
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.transitions import GaveBack
from sagas.telemetry import SagaAttributes
from tests.samples import DEADLINE_SECONDS, Clock, FakeDispatcher, FlakyStorage, QuickEngine, Stage, Trip, always

ATTRIBUTES = ("saga_id", "saga_name", "step", "action", "attempt")


class _Kept(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The lines of the engine, from the finest."""
    engine, kept = logging.getLogger("sagas"), _Kept()
    level = engine.level
    engine.setLevel(logging.DEBUG)
    engine.addHandler(kept)
    yield kept.records
    engine.removeHandler(kept)
    engine.setLevel(level)


def carried(record: logging.LogRecord) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in ATTRIBUTES)


def test_every_line_of_a_run_carries_its_saga_and_step(records: list[logging.LogRecord], stage: Stage) -> None:
    hotel = stage.step("hotel", [ConnectionError("full")], retry=RetryPolicy(max_attempts=2, first_delay=1))
    saga = stage.saga("flight", hotel, stage.step("car", always(ValueError("no car"))))

    report = QuickEngine(MemorySagaStorage()).run(saga, Trip())

    about = (str(report.saga_id), "trip")
    assert [carried(record) for record in records] == [
        (*about, "hotel", "act", 1),
        (*about, "car", "act", 1),
        (*about, "flight", "compensate", 1),  # the end, after the last step
    ]


def test_lines_of_a_recovery_that_fails_carry_them_too(records: list[logging.LogRecord], stage: Stage) -> None:
    engine = QuickEngine(MemorySagaStorage())
    saga_id = engine.start(stage.saga("flight"), Trip())
    engine._resolver = lambda _: 1 / 0  # type: ignore[assignment,return-value]

    engine.recover(saga_id)

    assert [record.getMessage().partition(": ")[2][:6] for record in records] == ["this a", "failed"]
    assert {carried(record)[:2] for record in records} == {(str(saga_id), "trip")}


def test_lines_of_a_decline_carry_them(records: list[logging.LogRecord], stage: Stage) -> None:
    storage = MemorySagaStorage()
    saga_id = QuickEngine(storage).start(stage.saga("flight"), Trip())

    QuickEngine(storage).recover(saga_id)

    assert [carried(record) for record in records] == [(str(saga_id), "trip", None, None, None)]
    assert "declined" in records[0].getMessage()


def test_lines_of_a_lost_lease_carry_them(records: list[logging.LogRecord], stage: Stage) -> None:
    storage = MemorySagaStorage()

    def stolen(_: Trip, call) -> None:
        record = storage.load(call.saga_id)
        lease = Lease(record.id, record.version, str(record.lease_owner), record.lease_token or uuid4())
        storage.apply(lease, GaveBack(status=record.status))

    report = QuickEngine(storage).run(stage.saga("flight", stage.step("hotel", [stolen])), Trip())

    assert report.outcome == "lost"
    assert [carried(record) for record in records] == [(str(report.saga_id), "trip", "hotel", "act", 1)]


@pytest.mark.parametrize(
    "error", [LeaseLost("gone"), StorageUnavailable("away"), RuntimeError("unforeseen")], ids=lambda e: type(e).__name__
)
def test_lines_of_the_lease_keeper_carry_them(records: list[logging.LogRecord], stage: Stage, error: Exception) -> None:
    renewed = threading.Event()

    class Broken(MemorySagaStorage):
        def renew(self, *_: object) -> bool:
            raise error

    engine = QuickEngine(Broken())
    engine._keeper = LeaseKeeper(engine.storage, 0.3)

    def wait_for_the_keeper(*_: object) -> None:
        for _ in range(round(DEADLINE_SECONDS / 0.02)):
            if records:
                return
            renewed.wait(0.02)
        pytest.fail("the keeper said nothing")

    report = engine.run(stage.saga(stage.step("long", [wait_for_the_keeper])), Trip())

    assert carried(records[0]) == (str(report.saga_id), "trip", "long", "act", 1)


def test_a_line_about_waiting_for_the_database_carries_them(
    records: list[logging.LogRecord], clock: Clock, stage: Stage
) -> None:
    storage = FlakyStorage(clock)
    storage.failures = [("apply", "before")]

    report = QuickEngine(storage).run(stage.saga("flight"), Trip())

    assert "waiting for the database" in records[0].getMessage()
    assert carried(records[0]) == (str(report.saga_id), "trip", "flight", "act", 1)


def test_the_line_about_a_saga_that_died_of_crashes_carries_its_id(
    records: list[logging.LogRecord], clock: Clock, stage: Stage
) -> None:
    storage = MemorySagaStorage(clock)
    engine = QuickEngine(storage, dispatcher=FakeDispatcher())
    saga_id = engine.start(stage.saga("flight"), Trip())
    for _ in range(2):
        storage.set_recovery_attempts(saga_id, 2)
        request = LeaseRequest(owner="dead/1.1", seconds=30)
        assert isinstance(storage.acquire(saga_id, request, max_recovery_attempts=3), Acquired)
        clock.forward(31)
        engine.scan()

    (died,) = (record for record in records if record.levelno == logging.ERROR)
    assert carried(died) == (str(saga_id), None, None, None, None)


def test_what_steps_log_carries_them_once_the_filter_is_installed(stage: Stage) -> None:
    shop = logging.getLogger("shop")
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    handler.addFilter(SagaAttributes())
    handler.setFormatter(JsonFormatter("%(message)s %(saga_id)s %(saga_name)s %(step)s %(action)s %(attempt)s"))
    shop.addHandler(handler)

    async def later(*_: object) -> None:
        shop.warning("asked the airline")

    try:
        saga = stage.saga(
            stage.step("hotel", [lambda *_: shop.warning("asked the hotel")]),
            stage.step("car", [lambda *_: shop.warning("asked in a thread")], timeout=DEADLINE_SECONDS),
            stage.step("flight", [later]),
            stage.step("seat", [later], timeout=DEADLINE_SECONDS),
        )
        report = QuickEngine(MemorySagaStorage()).run(saga, Trip())
        shop.warning("done")
    finally:
        shop.removeHandler(handler)

    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    about = {"saga_id": str(report.saga_id), "saga_name": "trip", "action": "act", "attempt": 1}
    assert lines == [
        {"message": "asked the hotel", "step": "hotel", **about},
        {"message": "asked in a thread", "step": "car", **about},
        {"message": "asked the airline", "step": "flight", **about},
        {"message": "asked the airline", "step": "seat", **about},
        {"message": "done", **dict.fromkeys(ATTRIBUTES)},
    ]


def test_what_a_step_that_was_left_behind_logs_late_is_still_its_own(stage: Stage) -> None:
    shop = logging.getLogger("shop")
    go_on, said = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        go_on.wait(DEADLINE_SECONDS)
        shop.warning("late")
        said.set()

    def next_one(*_: object) -> None:
        go_on.set()
        assert said.wait(DEADLINE_SECONDS)

    handler = _Kept()
    handler.addFilter(SagaAttributes())
    shop.addHandler(handler)
    saga = stage.saga(
        stage.step("slow", [slow], timeout=0.05, retry=RetryPolicy(max_attempts=1)),
        name="trip",
    )
    undone = stage.saga(stage.step("other", [next_one]), name="other")
    engine = QuickEngine(MemorySagaStorage())
    try:
        report = engine.run(saga, Trip())
        engine.run(undone, Trip())
    finally:
        shop.removeHandler(handler)

    assert [carried(record) for record in handler.records] == [(str(report.saga_id), "trip", "slow", "act", 1)]


FORGED = "boom\n2026-01-01 FORGED ERROR\x1b[31m \u202e\u200b\u2028"


def test_errors_and_names_forge_no_line_of_the_log(stage: Stage) -> None:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    handler.setFormatter(logging.Formatter("%(levelname)s %(saga_name)s %(step)s %(message)s"))
    engine = logging.getLogger("sagas")
    engine.addHandler(handler)
    storage = MemorySagaStorage()
    saga = stage.saga("hotel", stage.step("car\n\u2028", [ValueError(FORGED)]), name="trip\nFORGED\u202e")
    try:
        report = QuickEngine(storage).run(saga, Trip())
        broken = QuickEngine(storage, resolver=lambda _: (_ for _ in ()).throw(RuntimeError(FORGED)))
        failed = broken.run(saga, Trip())
    finally:
        engine.removeHandler(handler)

    assert report.outcome == "compensated"
    assert failed.outcome == "failed"
    lines = printed.getvalue().split("\n")[:-1]
    shown = "boom\\n2026-01-01 FORGED ERROR\\x1b[31m \\u202e\\u200b\\u2028"
    assert lines[0].startswith(r"WARNING trip\nFORGED\u202e car\n\u2028 saga ")
    assert lines[0].endswith(f"ValueError: {shown}")
    assert f"RuntimeError: {shown}" in lines
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if re.match(r"2026|FORGED", line)]
    assert failed.message.endswith(shown)


def test_no_module_of_the_engine_logs_by_a_logger_without_them() -> None:
    """A plain logger is for what is about no saga and quotes nothing: each such module is named here."""
    plain = set()
    for root in (sagas,):
        folder = Path(root.__file__ or "").parent
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                    plain.add(str(path.relative_to(folder.parent)))
    assert plain == {
        "sagas/telemetry/logs.py",
        "sagas/testing/crashes/matrix.py",
    }


def test_ids_are_text_which_any_formatter_can_print(records: list[logging.LogRecord], stage: Stage) -> None:
    QuickEngine(MemorySagaStorage()).run(stage.saga("flight"), Trip())
    saga_id, *_ = carried(records[0])
    assert isinstance(saga_id, str)
    assert UUID(saga_id)
