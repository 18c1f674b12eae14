"""Beat, for sagas: it sends no scan while one still waits."""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from sagas.errors import BrokerUnavailable
from tasks.dispatch import CeleryDispatcher

logger = logging.getLogger(__name__)


class SagaScheduler(Scheduler):
    """Celery's in-memory scheduler, which lets scans not pile up while there is no worker to run them.

    An expiry time on the messages would do the same, if all clocks agreed: a worker whose clock is ahead would
    throw every scan away. And Celery's default scheduler keeps its past in a file of pickles; a scan has none.
    """

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send what is due, unless it is a scan and the last one was not run yet."""
        if entry.task == "sagas.scan" and self._one_waits():
            if advance:
                self.reserve(entry)
            logger.debug("a scan still waits for a worker; none was sent")
            return None
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)

    def _one_waits(self) -> bool:
        try:
            return CeleryDispatcher(self.app).length("sagas.scan") > 0
        except BrokerUnavailable:
            return False  # sending it will tell
