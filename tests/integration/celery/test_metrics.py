"""What workers count, scraped from them as Prometheus does: whole, whatever becomes of their children."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sagas import SagaEngine
from sagas.celery.metrics import serve_metrics
from sagas.errors import ConfigurationError
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps
from tests.integration.celery.test_worker import holder_pid

Samples = dict[tuple[str, ...], float]
SAGA = "three-steps"


@pytest.fixture
def port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def scraped(port: int) -> Samples:
    """The samples of one scrape, by name and values of the labels in the order of their names."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    answer.raise_for_status()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def wait_for_samples(port: int, condition: Callable[[Samples], bool], what: str) -> Samples:
    """Wait until a scrape is as the condition says: the last counts of a saga come a moment after its end."""

    def look() -> Samples | None:
        samples = scraped(port)
        return samples if condition(samples) else None

    return wait_until(look, what=what)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def test_counts_survive_the_children_that_made_them(
    celery: Start, engine: SagaEngine, folder: Path, tmp_path: Path, port: int
) -> None:
    worker = celery("worker", "--max-tasks-per-child", "2", SAGAS_METRICS_PORT=str(port))
    sagas = engine.start_many(ThreeSteps, [Job()] * 10)
    for saga_id in sagas:
        wait_finished(engine, saga_id)
    # Five children or more are gone by now. One is killed inside a step, and its saga taken over.
    victim = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_for_saga(engine, victim, lambda saga: len(saga.log) == 1, "the second step")
    assert wait_for_samples(port, lambda samples: samples.get(("sagas_worker_running", SAGA)) == 1, "the run")
    os.kill(holder_pid(held.lease_owner), signal.SIGKILL)
    wait_for_saga(engine, victim, lambda saga: saga.version > held.version, "the takeover")
    (folder / "open").touch()
    wait_finished(engine, victim)

    samples = wait_for_samples(
        port, lambda samples: samples.get(("sagas_runs_total", "completed", SAGA)) == 11, "all of the runs"
    )
    for step in ("first", "second", "third"):
        assert samples["sagas_steps_total", "act", "completed", SAGA, step] == 11
        # Inside the second step the victim had begun twice, and ended once.
        assert samples["sagas_step_duration_seconds_count", "act", SAGA, step] == 11
        assert samples["sagas_step_duration_seconds_bucket", "act", "+Inf", SAGA, step] == 11
    assert samples["sagas_takeovers_total", SAGA] == 1
    assert samples["sagas_scans_total", "completed"] >= 1, "the parent's own, when the child had died"
    assert ("sagas_steps_total", "act", "failed", SAGA, "first") not in samples
    # What the killed child was doing is forgotten; nobody runs anything. Once the last child that did is gone too, and
    # its successor has run nothing, nobody says so either.
    wait_for_samples(port, lambda samples: not samples.get(("sagas_worker_running", SAGA)), "the end of the last run")
    # The files of the dead are folded into one of each kind.
    (directory,) = tmp_path.glob("sagas-metrics-*")
    wait_until(lambda: len(list(directory.glob("counter_*.db"))) <= 1 + 3, what="the folding")
    assert worker.stop() == 0
    assert not directory.exists()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_pools_without_children_are_counted_too(pool: str, celery: Start, engine: SagaEngine, port: int) -> None:
    celery("worker", "-P", pool, SAGAS_METRICS_PORT=str(port))
    bad = engine.start(ThreeSteps, Job(fail="third"))
    wait_finished(engine, bad)

    samples = wait_for_samples(port, lambda samples: ("sagas_runs_total", "compensated", SAGA) in samples, "the run")
    assert samples["sagas_steps_total", "act", "failed", SAGA, "third"] == 1
    assert samples["sagas_steps_total", "compensate", "completed", SAGA, "first"] == 1


def test_a_worker_that_is_to_serve_metrics_and_cannot_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"SAGAS_METRICS_PORT is set, .*'celery-sagas\[metrics\]'"):
        serve_metrics(1)


def test_a_second_worker_on_the_same_port_says_so_and_works_all_the_same(
    celery: Start, engine: SagaEngine, port: int
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        worker = celery("worker", SAGAS_METRICS_PORT=str(port))
        wait_finished(engine, engine.start(ThreeSteps, Job()))

    said = f"this worker's metrics are not served: SAGAS_METRICS_PORT is {port}, where it cannot listen on 127.0.0.1"
    worker.wait_for_log(said)
