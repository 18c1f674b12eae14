"""Prometheus metrics of this process's work on sagas: steps, runs, takeovers, scans."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from sagas.progress import EntryStatus, Verdict
from sagas.telemetry.logs import saga_logger
from sagas.telemetry.observer import Observer

if TYPE_CHECKING:
    from sagas.progress import Move
    from sagas.storage.answers import Acquired
    from sagas.storage.records import LogEntry, SagaRecord

logger = saga_logger(__name__)

#: Seconds: from a call to a nearby service up to a step that waits for people.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# A fork in the middle of a write would leave a lock of the library locked in the child for ever.
_writing: Final = threading.RLock()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release)


class Metrics(Observer):
    """Observer that counts steps, runs, takeovers and scans.

    Args:
        registry: the metrics are registered with it; None for no registry, as multiprocess mode requires.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self.steps = Counter(
            "sagas_steps",
            "Actions of steps that ended, by outcome: completed, retried (it failed and is tried again) or failed.",
            ["saga", "step", "action", "outcome"],
            registry=registry,
        )
        self.step_seconds = Histogram(
            "sagas_step_duration_seconds",
            "How long each attempt at an action of a step took, whatever came of it.",
            ["saga", "step", "action"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.runs = Counter(
            "sagas_runs",
            "Sagas that this worker was done with for now, by outcome: completed, compensated, waiting, failed, dead, "
            "declined, handed over, or lost to another worker.",
            ["saga", "outcome"],
            registry=registry,
        )
        self.running_now = Gauge(
            "sagas_worker_running",
            "Sagas that this worker is running now.",
            ["saga"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.takeovers = Counter(
            "sagas_takeovers",
            "Sagas taken over from a holder that died or was cut off.",
            ["saga"],
            registry=registry,
        )
        self.scans = Counter("sagas_scans", "Scans, by outcome: completed or failed.", ["outcome"], registry=registry)
        self.scanned_sagas = Counter(
            "sagas_scanned",
            "What scans did with sagas: dispatched, died (crashed its worker once too often), missing (the broker lost "
            "its message) or unsent (the broker failed or was slow).",
            ["result"],
            registry=registry,
        )
        self.messages_dropped = Counter(
            "sagas_messages_dropped",
            "Messages that a worker dropped because it could not understand them.",
            ["queue"],
            registry=registry,
        )

    @contextmanager
    def running(self, acquired: Acquired) -> Iterator[None]:
        with _counting():
            self.running_now.labels(acquired.record.name).inc()
        try:
            yield
        finally:
            with _counting():
                self.running_now.labels(acquired.record.name).dec()

    def taken_over(self, saga: SagaRecord) -> None:
        with _counting():
            self.takeovers.labels(saga.name).inc()

    @contextmanager
    def acting(self, saga: SagaRecord, move: Move) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with _counting():
                self.step_seconds.labels(saga.name, move.node.name, str(move.action)).observe(seconds)

    def step_ended(self, saga: SagaRecord, entry: LogEntry) -> None:
        if entry.status is EntryStatus.COMPLETED:
            outcome = "completed"
        else:
            outcome = "retried" if entry.verdict is Verdict.RETRY else "failed"
        with _counting():
            self.steps.labels(saga.name, entry.step, str(entry.action), outcome).inc()

    def given_back(self, saga: SagaRecord, outcome: str) -> None:
        with _counting():
            self.runs.labels(saga.name, outcome).inc()

    @contextmanager
    def scanning(self) -> Iterator[None]:
        outcome = "failed"
        try:
            yield
            outcome = "completed"
        finally:
            with _counting():
                self.scans.labels(outcome).inc()

    def scanned(self, results: Mapping[str, int]) -> None:
        with _counting():
            for result, number in results.items():
                self.scanned_sagas.labels(result).inc(number)

    def message_dropped(self, queue: str) -> None:
        with _counting():
            self.messages_dropped.labels(queue).inc()


@contextmanager
def _counting() -> Iterator[None]:
    """Log errors of the block, which writes metrics, so that they do not fail the saga."""
    with _writing:
        try:
            yield
        except Exception:
            logger.exception("a metric could not be written; the saga goes on")
