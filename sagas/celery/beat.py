"""Have beat send scans and prunes, but no scan while another one still waits in the queue.

An expiry time on the messages would depend on synchronised clocks: a worker whose clock is ahead would discard every
scan.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab

from sagas import api
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.names import PRUNE_TASK, SCAN_QUEUE, SCAN_TASK
from sagas.celery.outages import reconnect_soon
from sagas.errors import BrokerUnavailable, ConfigurationError
from sagas.settings import Settings
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)


def register(app: Celery) -> None:
    """Have each beat of this application send scans, with any scheduler."""

    def prepare(sender: Any, **_: Any) -> None:
        if sender.app is app:
            try:
                _prepare(sender.scheduler, app, api.settings())
            except ConfigurationError as error:
                raise SystemExit(f"error: {error}") from None

    signals.beat_init.connect(prepare, weak=False)


def entries(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the entries of the beat schedule that these settings ask for."""
    unwanted_result = {"ignore_result": True}
    found: dict[str, dict[str, Any]] = {
        "sagas.scan": {"task": SCAN_TASK, "schedule": settings.scan_interval_seconds, "options": unwanted_result}
    }
    if settings.retention_days is not None:
        nightly = crontab(hour="3", minute="17")
        found["sagas.prune"] = {"task": PRUNE_TASK, "schedule": nightly, "options": unwanted_result}
    return found


def _prepare(scheduler: Scheduler, app: Celery, settings: Settings) -> None:
    # Add the entries here and not in the settings: the application may assign its own schedule at any time before.
    theirs = app.conf.beat_schedule
    scheduler.update_from_dict({name: entry for name, entry in entries(settings).items() if name not in theirs})
    reconnect_soon(scheduler.connection)
    _hold_back_scans(scheduler, CeleryDispatcher(app))


def _hold_back_scans(scheduler: Scheduler, dispatcher: CeleryDispatcher) -> None:
    """Keep scans from piling up while no worker runs them."""
    send = scheduler.apply_async

    def apply_async(entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        if entry.task == SCAN_TASK and _one_waits(dispatcher):
            if advance:
                scheduler.reserve(entry)
            logger.debug("a scan still waits for a worker; none was sent")
            return None
        return send(entry, producer=producer, advance=advance, **kwargs)

    scheduler.apply_async = apply_async


def _one_waits(dispatcher: CeleryDispatcher) -> bool:
    try:
        return dispatcher.length(SCAN_QUEUE) > 0
    except BrokerUnavailable:
        return False  # sending the scan will report this error
