"""Prometheus metrics of the database, read at each scrape; no worker needs to run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sagas.errors import SagaError
from sagas.inspection import Inspector
from sagas.inspection.models import Count, Oldest, Statistics
from sagas.storage import PostgresSagaStorage
from sagas.storage.records import SagaState
from sagas.storage.transitions import PROBE_SECONDS
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: Timeout of each statement, so that a scrape cannot keep the database busy.
STATEMENT_SECONDS: Final = 3.0
#: After this time a scrape reports that the database does not answer. Prometheus itself stops waiting after 10 s.
DEADLINE_SECONDS: Final = 8.0
#: Finished sagas of this many past seconds are counted. The time is short, because each scrape reads all of them.
RECENT_SECONDS: Final = 300


class DatabaseMetrics(Collector):
    """Reads the metrics of one database at each scrape.

    If the database does not answer in time, the scrape shows `sagas_database_up 0`.

    Args:
        storage: the storage on the database.
        statement_seconds: the timeout of each statement.
        deadline_seconds: how long a scrape waits for all of them.
    """

    def __init__(
        self,
        storage: PostgresSagaStorage,
        *,
        statement_seconds: float = STATEMENT_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._inspector = Inspector(storage, answer_seconds=statement_seconds)
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._reading: Future[Statistics] | None = None

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as the database has them now."""
        try:
            statistics = self._read_in_time()
        except (SagaError, TimeoutError) as error:
            logger.warning("no metrics of the database: %s", error)
            return [_up(False)]
        return [_up(True), *_metrics(statistics)]

    def describe(self) -> Iterable[Metric]:
        """Return the names, without asking the database."""
        return [_up(False), *_metrics(Statistics(now=datetime.min))]

    def _read_in_time(self) -> Statistics:
        with self._lock:
            # Query one at a time: scrapes that come while the database hangs wait for the same answer.
            if self._reading is None or self._reading.done():
                self._reading = Future()
                # Use a daemon thread, so that a database that hangs does not keep the process from ending.
                threading.Thread(target=self._answer, args=(self._reading,), name="sagas-metrics", daemon=True).start()
            reading = self._reading
        try:
            return reading.result(self._deadline_seconds)
        except TimeoutError:
            raise TimeoutError(f"it did not answer within {self._deadline_seconds:g} s") from None

    def _answer(self, reading: Future[Statistics]) -> None:
        try:
            reading.set_result(self._inspector.statistics(ended_within_seconds=RECENT_SECONDS))
        except BaseException as error:  # the calling thread raises this error
            reading.set_exception(error)


def _up(up: bool) -> Metric:
    help_text = "Whether the database answered all that was asked, in time."
    return GaugeMetricFamily("sagas_database_up", help_text, value=int(up))


def _metrics(statistics: Statistics) -> list[Metric]:
    now = statistics.now
    by_status = GaugeMetricFamily(
        "sagas_unfinished", "Sagas that have not ended, by name and status.", labels=["saga", "status"]
    )
    dead = GaugeMetricFamily("sagas_dead", "Sagas that recovery gave up.", labels=["saga"])
    queued = GaugeMetricFamily("sagas_queued", "Sagas for which a message waits in the broker.", labels=["saga"])
    waiting = GaugeMetricFamily("sagas_waiting", "Sagas that wait for a signal or sleep.", labels=["saga"])
    leases = GaugeMetricFamily("sagas_leases", "Sagas that a worker holds the lease of.", labels=["saga"])
    overdue = GaugeMetricFamily(
        "sagas_oldest_queued_seconds",
        "How long the oldest message in the broker has been overdue, in seconds.",
        labels=["saga"],
    )
    for name in sorted({count.name for count in statistics.unfinished}):
        counts = [count for count in statistics.unfinished if count.name == name]
        for status, sagas in _by_status(counts).items():
            by_status.add_metric([name, status], sagas)
        dead.add_metric([name], sum(count.sagas for count in counts if count.state is SagaState.DEAD))
        messages = [count for count in counts if count.state is SagaState.QUEUED]
        queued.add_metric([name], sum(count.sagas for count in messages))
        waiting.add_metric([name], sum(count.sagas for count in counts if count.state is SagaState.WAITING))
        # Sagas that are due have an expired lease.
        leases.add_metric([name], sum(count.sagas - count.due for count in counts if count.state is SagaState.RUNNING))
        if messages:
            overdue.add_metric([name], max(0.0, *(_age(count.since, now) - PROBE_SECONDS for count in messages)))
    recent = GaugeMetricFamily(
        "sagas_recently_finished",
        f"Sagas that ended within the last {RECENT_SECONDS // 60} minutes, by name and status.",
        labels=["saga", "status"],
    )
    for ended in statistics.ended:
        recent.add_metric([ended.name, ended.status], ended.sagas)
    recoverable = GaugeMetricFamily(
        "sagas_oldest_recoverable_seconds",
        "How long the oldest recoverable saga has been due, in seconds; 0 if none is.",
        value=_due(statistics.oldest_recoverable, now),
    )
    pending = GaugeMetricFamily(
        "sagas_oldest_pending_seconds",
        "How long the oldest saga that never ran has been due, in seconds; 0 if none is.",
        value=_due(statistics.oldest_pending, now),
    )
    scan = GaugeMetricFamily("sagas_last_scan_age_seconds", "How long ago the last scan was; absent if none ever was.")
    if statistics.last_scan is not None:
        scan.add_metric([], _age(statistics.last_scan.at, now))
    paused = GaugeMetricFamily("sagas_paused_seconds", "How long a name has been paused.", labels=["saga"])
    for pause in statistics.pauses:
        paused.add_metric([pause.name], _age(pause.since, now))
    return [by_status, dead, queued, waiting, leases, recent, recoverable, pending, overdue, scan, paused]


def _by_status(counts: Iterable[Count]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for count in counts:
        sums[count.status] += count.sagas
    return sums


def _due(oldest: Oldest | None, now: datetime) -> float:
    return _age(oldest.due_since if oldest else None, now)


def _age(since: datetime | None, now: datetime) -> float:
    """Return how many seconds ago the time was; 0 if it is after the snapshot, or None."""
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)
