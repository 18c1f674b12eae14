"""Prometheus metrics of what is in the database, read when they are asked for; no worker needs to be up."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sagas.errors import SagaError
from sagas.storage import PostgresSagaStorage
from sagas.telemetry import database_statements as sql
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: No statement may keep the database busy for longer.
STATEMENT_SECONDS: Final = 3.0
#: The answer after this long is that the database does not answer: Prometheus itself gives up after ten.
DEADLINE_SECONDS: Final = 8.0

Row = Mapping[str, Any]


class DatabaseMetrics(Collector):
    """Reads the metrics of one database at each scrape.

    A database that does not answer, or too slowly, shows as `sagas_database_up 0`.

    Args:
        storage: on the database.
        statement_seconds: how long each statement may take.
        deadline_seconds: how long a scrape waits for all of them.
    """

    def __init__(
        self,
        storage: PostgresSagaStorage,
        *,
        statement_seconds: float = STATEMENT_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._storage = storage
        self._statement_seconds = statement_seconds
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._reading: Future[list[Metric]] | None = None

    def collect(self) -> Iterable[Metric]:
        """Return what the database tells now."""
        up = GaugeMetricFamily("sagas_database_up", "Whether the database answered all that was asked, in time.")
        try:
            found = self._read_in_time()
        except (SagaError, TimeoutError) as error:
            logger.warning("no metrics of the database: %s", error)
            found = []
        up.add_metric([], 1 if found else 0)
        return [up, *found]

    def describe(self) -> Iterable[Metric]:
        """Return the names, without asking the database."""
        return [
            GaugeMetricFamily("sagas_database_up", "Whether the database answered all that was asked, in time."),
            *_metrics([], [], {}, [], []),
        ]

    def _read_in_time(self) -> list[Metric]:
        with self._lock:
            # One question at a time: scrapes that come while the database hangs wait for the same answer.
            if self._reading is None or self._reading.done():
                self._reading = Future()
                # A daemon, so that a database that hangs does not keep the process from ending.
                threading.Thread(target=self._answer, args=(self._reading,), name="sagas-metrics", daemon=True).start()
            reading = self._reading
        try:
            return reading.result(self._deadline_seconds)
        except TimeoutError:
            raise TimeoutError(f"it did not answer within {self._deadline_seconds:g} s") from None

    def _answer(self, reading: Future[list[Metric]]) -> None:
        try:
            reading.set_result(self._read())
        except BaseException as error:  # carried to whoever asked
            reading.set_exception(error)

    def _read(self) -> list[Metric]:
        milliseconds = str(round(1000 * self._statement_seconds))
        with self._storage.connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(sql.BOUND, {"milliseconds": milliseconds})
            unfinished = cursor.execute(sql.UNFINISHED).fetchall()
            finished = cursor.execute(sql.FINISHED, {"seconds": sql.RECENT_SECONDS}).fetchall()
            (oldest,) = cursor.execute(sql.OLDEST).fetchall()
            scans = cursor.execute(sql.LAST_SCAN).fetchall()
            pauses = cursor.execute(sql.PAUSES).fetchall()
        return _metrics(unfinished, finished, oldest, scans, pauses)


def _metrics(
    unfinished: Sequence[Row], finished: Sequence[Row], oldest: Row, scans: Sequence[Row], pauses: Sequence[Row]
) -> list[Metric]:
    by_status = GaugeMetricFamily(
        "sagas_unfinished", "Sagas that have not ended, by name and status.", labels=["saga", "status"]
    )
    counted = {
        "dead": GaugeMetricFamily("sagas_dead", "Sagas that recovery gave up.", labels=["saga"]),
        "queued": GaugeMetricFamily("sagas_queued", "Sagas for which a message waits in the broker.", labels=["saga"]),
        "held": GaugeMetricFamily("sagas_leases", "Sagas that a worker holds the lease of.", labels=["saga"]),
    }
    recent = GaugeMetricFamily(
        "sagas_recently_finished",
        f"Sagas that ended within the last {sql.RECENT_SECONDS // 60} minutes, by name and status.",
        labels=["saga", "status"],
    )
    ages = {
        "recoverable": "How long the oldest recoverable saga has been due, in seconds; 0 if none is.",
        "pending": "How long the oldest saga that never ran has been due, in seconds; 0 if none is.",
    }
    overdue = GaugeMetricFamily(
        "sagas_oldest_queued_seconds",
        "How long the oldest message in the broker has been overdue, in seconds.",
        labels=["saga"],
    )
    scan = GaugeMetricFamily("sagas_last_scan_age_seconds", "How long ago the last scan was; absent if none ever was.")
    paused = GaugeMetricFamily("sagas_paused_seconds", "How long a name has been paused.", labels=["saga"])

    for row in unfinished:
        by_status.add_metric([row["name"], row["status"]], row["sagas"])
    for column, family in counted.items():
        for name in sorted({row["name"] for row in unfinished}):
            family.add_metric([name], sum(row[column] for row in unfinished if row["name"] == name))
    for name in sorted({row["name"] for row in unfinished if row["queued"]}):
        overdue.add_metric([name], max(row["overdue"] for row in unfinished if row["name"] == name))
    for row in finished:
        recent.add_metric([row["name"], row["status"]], row["sagas"])
    oldest_of = [
        GaugeMetricFamily(f"sagas_oldest_{kind}_seconds", help_text, value=oldest.get(kind))
        for kind, help_text in ages.items()
    ]
    for row in scans:
        scan.add_metric([], row["age"])
    for row in pauses:
        paused.add_metric([row["name"]], row["age"])
    return [by_status, *counted.values(), recent, *oldest_of, overdue, scan, paused]
