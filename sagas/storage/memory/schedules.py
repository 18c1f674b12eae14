"""The last tick of each schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sagas.storage.memory.rows import Rows
from sagas.storage.records import ScheduleTicks


class Schedules(Rows):
    """Keeps the ticks of schedules."""

    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        with self._lock:
            now = self._clock()
            return ScheduleTicks(now=now, last={name: self._schedules.setdefault(name, now) for name in names})

    def note_tick(self, name: str, tick: datetime) -> None:
        with self._lock:
            self._schedules[name] = max(tick, self._schedules.get(name, tick))
