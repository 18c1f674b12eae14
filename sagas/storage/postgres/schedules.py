"""The last tick of each schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sagas.storage.postgres.statements import Statements
from sagas.storage.records import ScheduleTicks


class Schedules(Statements):
    """Keeps the ticks of schedules."""

    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        rows = self._query("schedule_ticks", {"names": list(names)})
        last = {row["name"]: row["last_tick"] for row in rows if row["name"] is not None}
        return ScheduleTicks(now=rows[0]["now"], last=last)

    def note_tick(self, name: str, tick: datetime) -> None:
        self._execute("note_tick", {"name": name, "tick": tick})
