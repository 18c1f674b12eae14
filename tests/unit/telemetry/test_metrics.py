"""What an engine tells its observer, and what the metrics make of it."""

from __future__ import annotations

import subprocess
import sys
from typing import NoReturn
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sagas import MemorySagaStorage, RetryPolicy, SagaStatus
from sagas.errors import StorageUnavailable
from sagas.storage.answers import Acquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.transitions import GaveBack
from sagas.telemetry.metrics import Metrics
from tests.samples import Clock, FakeDispatcher, QuickEngine, Stage, Trip, always
from tests.unit.test_waits import CoolingOff, Courier

FULL = ConnectionError("fully booked")


class Watched:
    """An engine on its own storage whose metrics are in a registry of their own."""

    def __init__(self, clock: Clock, dispatcher: FakeDispatcher | None = None) -> None:
        self.registry = CollectorRegistry()
        self.clock = clock
        self.storage = MemorySagaStorage(clock)
        self.engine = QuickEngine(self.storage, observer=Metrics(self.registry), dispatcher=dispatcher)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def crash(self, saga_id, *, owner: str = "dead/1.1") -> None:
        """Somebody else takes the saga, and is never heard of again."""
        request = LeaseRequest(owner=owner, seconds=30)
        assert isinstance(self.storage.acquire(saga_id, request, max_recovery_attempts=3), Acquired)
        self.clock.forward(31)


@pytest.fixture
def watched(clock: Clock) -> Watched:
    return Watched(clock)


def test_each_action_counts_once_with_its_outcome_and_each_attempt_has_a_duration(
    watched: Watched, stage: Stage
) -> None:
    hotel = stage.step("hotel", [FULL], retry=RetryPolicy(max_attempts=2, first_delay=1))
    saga = stage.saga("flight", hotel, stage.step("car", always(ValueError("no car"))))

    assert watched.engine.run(saga, Trip()).status is SagaStatus.COMPENSATED

    expected = {
        ("flight", "act", "completed"): 1,
        ("hotel", "act", "retried"): 1,
        ("hotel", "act", "completed"): 1,
        ("car", "act", "failed"): 1,
        ("hotel", "compensate", "completed"): 1,
        ("flight", "compensate", "completed"): 1,
    }
    found = {
        (sample.labels["step"], sample.labels["action"], sample.labels["outcome"]): sample.value
        for family in watched.registry.collect()
        for sample in family.samples
        if sample.name == "sagas_steps_total"
    }
    assert found == expected
    hotel_labels = {"saga": "trip", "step": "hotel", "action": "act"}
    assert watched.value("sagas_step_duration_seconds_count", **hotel_labels) == 2
    assert watched.value("sagas_runs_total", saga="trip", outcome="compensated") == 1
    assert watched.value("sagas_worker_running", saga="trip") == 0


def test_a_saga_is_running_while_its_step_acts(watched: Watched, stage: Stage) -> None:
    seen = []
    look = stage.step("look", [lambda *_: seen.append(watched.value("sagas_worker_running", saga="trip"))])

    watched.engine.run(stage.saga(look), Trip())

    assert seen == [1]


def test_a_takeover_is_counted_when_the_holder_was_cut_off_and_not_when_it_failed(
    watched: Watched, stage: Stage
) -> None:
    saga = stage.saga("flight")
    saga_id = watched.engine.start(saga, Trip())
    watched.crash(saga_id)
    watched.engine.recover(saga_id)
    assert watched.value("sagas_takeovers_total", saga="trip") == 1

    failing = stage.saga(stage.step("hotel", [RuntimeError("x")], pivot=True), name="failing")
    other = watched.engine.start(failing, Trip())
    watched.engine.recover(other)
    assert watched.value("sagas_takeovers_total", saga="failing") is None


def test_a_lost_lease_and_a_declined_saga_count_as_such(watched: Watched, stage: Stage) -> None:
    def stolen(_: Trip, call) -> None:
        record = watched.storage.load(call.saga_id)
        lease = Lease(record.id, record.version, str(record.lease_owner), record.lease_token or uuid4())
        watched.storage.apply(lease, GaveBack(status=record.status))

    watched.engine.run(stage.saga(stage.step("hotel", [stolen])), Trip())
    assert watched.value("sagas_runs_total", saga="trip", outcome="lost") == 1

    saga_id = watched.engine.start(stage.saga("flight", name="unknown"), Trip())
    stranger = QuickEngine(watched.storage, observer=watched.engine._observer)
    assert stranger.recover(saga_id).outcome == "declined"
    assert watched.value("sagas_runs_total", saga="unknown", outcome="declined") == 1


def test_scans_count_what_they_did_and_whether_they_could(
    clock: Clock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = FakeDispatcher()
    watched = Watched(clock, dispatcher)
    dispatcher.capacity = 0  # starting leaves the sagas to the scan
    saga_ids = [watched.engine.start(stage.saga("flight"), Trip()) for _ in range(3)]
    dispatcher.capacity = 2

    watched.engine.scan()

    def away(**_: object) -> NoReturn:
        raise StorageUnavailable("away")

    monkeypatch.setattr(watched.storage, "claim_sagas", away)
    with pytest.raises(StorageUnavailable):
        watched.engine.scan()

    assert len(saga_ids) == 3
    assert watched.value("sagas_scanned_total", result="dispatched") == 2
    assert watched.value("sagas_scanned_total", result="unsent") == 1
    assert watched.value("sagas_scans_total", outcome="completed") == 1
    assert watched.value("sagas_scans_total", outcome="failed") == 1


def test_a_metric_that_cannot_be_written_fails_no_saga(
    watched: Watched, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = watched.engine._observer
    assert isinstance(metrics, Metrics)
    metrics.step_seconds = None  # type: ignore[assignment]
    metrics.steps = None  # type: ignore[assignment]

    assert watched.engine.run(stage.saga("flight"), Trip()).status is SagaStatus.COMPLETED
    assert "a metric could not be written; the saga goes on" in caplog.text


def test_what_is_exposed_can_be_parsed(watched: Watched, stage: Stage) -> None:
    watched.engine.run(stage.saga("flight"), Trip())
    families = list(text_string_to_metric_families(generate_latest(watched.registry).decode()))
    assert {"sagas_steps", "sagas_runs", "sagas_step_duration_seconds"} <= {family.name for family in families}


FORKING = """
import os, signal, threading
from prometheus_client import CollectorRegistry
from sagas.telemetry.metrics import Metrics

metrics = Metrics(CollectorRegistry())
ended = threading.Event()

def count():
    while not ended.is_set():
        metrics.scanned({"dispatched": 1})

threading.Thread(target=count).start()
hung = 0
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        metrics.scanned({"dispatched": 1})
        os._exit(0)
    hung += os.waitpid(pid, 0)[1] != 0
    if hung:
        break
ended.set()
print(hung)
"""


def test_a_child_forked_while_another_thread_counts_can_count() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "0\n", done.stderr


def test_a_wait_that_begins_is_no_step_that_ended(watched: Watched, stage: Stage) -> None:
    saga_id = watched.engine.run(stage.saga(Courier, CoolingOff), Trip()).saga_id
    began = watched.value("sagas_steps_total", saga="trip", step="courier", action="act", outcome="failed")
    watched.engine.signal(saga_id, "courier", {"courier": "ann"})
    watched.engine.recover(saga_id, by_hand=True)
    watched.clock.forward(3600)
    watched.engine.recover(saga_id)

    assert began is None
    for step in ("courier", "cooling-off"):
        assert watched.value("sagas_steps_total", saga="trip", step=step, action="act", outcome="completed") == 1
    assert watched.value("sagas_runs_total", saga="trip", outcome="waiting") == 2


def test_a_wait_that_times_out_is_a_step_that_failed(watched: Watched, stage: Stage) -> None:
    saga_id = watched.engine.run(stage.saga(Courier), Trip()).saga_id
    watched.clock.forward(3 * 86_400)
    watched.engine.recover(saga_id)

    assert watched.value("sagas_steps_total", saga="trip", step="courier", action="act", outcome="failed") == 1
