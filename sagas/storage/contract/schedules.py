"""The last tick of each schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from sagas.storage.records import ScheduleTicks


class Schedules(ABC):
    """Keeps the ticks of schedules."""

    @abstractmethod
    def schedule_ticks(self, names: Sequence[str]) -> ScheduleTicks:
        """Return the last tick of each of these schedules, and the storage's time.

        A schedule that is not known yet is stored with the present time, so that its ticks begin after that. A schedule
        that another scan stores at this moment may be missing from the result.
        """

    @abstractmethod
    def note_tick(self, name: str, tick: datetime) -> None:
        """Record that a schedule has dealt with its ticks up to this one. The record never goes back in time."""
