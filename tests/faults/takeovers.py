"""Measure how fast the sagas that a fault hit were taken over."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

import psycopg


@dataclass
class Tally:
    """The record of one kind of fault: how often it happened, how many sagas it hit, and the takeover times."""

    times: int = 0
    sagas: set[UUID] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)


class Takeovers:
    """Watches sagas that lost their worker until another worker has acquired them or they have ended.

    Args:
        database_url: libpq's URL of the sagas' database.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._lock = threading.Lock()
        self._waiting: dict[UUID, tuple[str, int, float]] = {}
        self._ended = threading.Event()
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def hit(self, fault: str, held: dict[UUID, tuple[str, int]], *, taken: bool = True) -> None:
        """Record that a fault was injected now.

        Args:
            fault: its name in the report.
            held: the sagas that the fault hit: id → holder and version.
            taken: whether their holders lost them, so that other workers must take them over.
        """
        with self._lock:
            tally = self.tallies[fault]
            tally.times += 1
            tally.sagas |= held.keys()
            if not taken:
                return
            for saga_id, (_, version) in held.items():
                self._waiting.setdefault(saga_id, (fault, version, time.monotonic()))

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            with self._lock:
                waiting = dict(self._waiting)
            if not waiting:
                continue
            try:
                with psycopg.connect(self._url, connect_timeout=2) as connection:
                    rows = connection.execute(
                        "SELECT id, version, finished_at IS NOT NULL FROM saga_executions WHERE id = ANY(%s)",
                        (list(waiting),),
                    ).fetchall()
            except psycopg.OperationalError:
                continue
            now = time.monotonic()
            with self._lock:
                for saga_id, version, finished in rows:
                    fault, before, since = waiting[saga_id]
                    if version > before or finished:
                        del self._waiting[saga_id]
                        if version > before:
                            self.tallies[fault].seconds.append(now - since)
