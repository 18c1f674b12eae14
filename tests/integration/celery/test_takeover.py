"""How fast sagas are taken over with default settings: measured and printed; asserted only with generous deadlines."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import redis

from sagas import SagaEngine, Settings
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps

DEFAULTS = Settings()
PRODUCTION = {
    "SAGAS_LEASE_SECONDS": str(DEFAULTS.lease_seconds),
    "SAGAS_SCAN_INTERVAL_SECONDS": str(DEFAULTS.scan_interval_seconds),
    # Twenty kills of one saga are not what its attempts are for.
    "SAGAS_MAX_RECOVERY_ATTEMPTS": "1000",
}
KILLS = 20
#: How many times the stated figure a shared, busy machine may take before the test calls it broken.
GENEROUS = 5
pytestmark = pytest.mark.defaults
_ALL = SagaFilter(limit=1000)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, float, float], None]:
    """Print a figure at the end of the suite, whether or not the test passes."""

    def show(what: str, seconds: float, stated: float) -> None:
        record_property("figure", f"takeover: {what}: {seconds:.2f} s (stated: {stated:g} s)")
        assert seconds < GENEROUS * stated

    return show


@pytest.mark.timeout(300)
def test_takeover_with_default_settings(celery: Start, engine: SagaEngine, tmp_path: Path, figures) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    host = celery("worker", **PRODUCTION)
    lost = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_for_saga(engine, lost, lambda saga: len(saga.log) == 1, "the second step")
    other = celery("worker", **PRODUCTION)

    # A whole host: killed now, its saga is waited for below, while the rest is measured.
    host.kill()
    host_killed_at = time.monotonic()

    # A pool child, twenty times.
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    wait_for_saga(engine, saga_id, lambda saga: len(saga.log) == 1, "the second step")
    seconds = []
    for _ in range(KILLS):
        record = wait_for_saga(engine, saga_id, lambda saga: saga.lease_owner is not None, "a holder")
        assert record.lease_owner is not None
        os.kill(int(record.lease_owner.rpartition("/")[2].partition(".")[0]), signal.SIGKILL)
        killed_at = time.monotonic()
        wait_for_saga(engine, saga_id, lambda saga, before=record.version: saga.version > before, "the takeover")
        seconds.append(time.monotonic() - killed_at)
    figures(f"a killed pool child, median of {KILLS} kills", median(seconds), 2.0)

    # The whole host.
    celery("beat", **PRODUCTION)
    wait_for_saga(engine, lost, lambda saga: saga.version > held.version, "the takeover of the host's saga")
    stated = DEFAULTS.lease_seconds + DEFAULTS.scan_interval_seconds + 1
    figures("a killed host", time.monotonic() - host_killed_at, stated)

    # A stop in order: from the end of the step in progress.
    celery("worker", **PRODUCTION)
    version = engine.storage.load(saga_id).version
    other.send(signal.SIGTERM)
    other.wait_for_log("Warm shutdown")
    (folder / "open").touch()
    opened_at = time.monotonic()
    wait_for_saga(engine, saga_id, lambda saga: saga.version > version or saga.status.finished, "the next holder")
    figures("SIGTERM, after the end of the step", time.monotonic() - opened_at, 2.0)
    wait_until(lambda: other.exit_code is not None, what="the stopped worker's end")


@pytest.mark.timeout(200)
def test_what_an_emptied_broker_held_is_dispatched_again_with_default_settings(
    celery: Start, engine: SagaEngine, broker_url: str, figures
) -> None:
    # It scans, and declines what it takes.
    celery("worker", "-c", "1", **PRODUCTION, SAGAS_MODULES="tests.faults.errands")
    celery("beat", **PRODUCTION)
    engine.start_many(ThreeSteps, [Job()] * 200)
    client = redis.Redis.from_url(broker_url)
    client.flushdb()
    emptied_at = time.monotonic()
    waiting = {record.id for record in engine.storage.find(_ALL) if record.state is SagaState.QUEUED}
    assert waiting

    def dispatched_again() -> bool:
        # Declined is dispatched: its reason stands in last_error.
        return all(r.last_error or r.version for r in engine.storage.find(_ALL) if r.id in waiting)

    wait_until(dispatched_again, timeout_seconds=100, what="the dispatch of all that waited")
    client.close()
    figures("the broker emptied", time.monotonic() - emptied_at, 15.0)
