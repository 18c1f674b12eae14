"""The tasks, as an operator sees them in Flower; all take and return JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from celery import Celery, Task

from sagas import pruning
from sagas.api import current_engine
from sagas.celery.alone import recover_alone
from sagas.celery.names import PRUNE_TASK, RECOVER_TASK, RUN_TASK, SCAN_TASK
from sagas.errors import ConfigurationError, SagaError, SchemaAhead, SchemaBehind, StorageUnavailable
from sagas.recovery import parse_saga_id
from sagas.storage.contract import require_positive
from sagas.storage.records import Claim, Refusal
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: What each task says for itself, so that no setting of the application weakens a guarantee. Whatever is left out or
#: None here is taken from the application's settings.
OPTIONS: Final[dict[str, Any]] = {
    # The routes of sagas decide (sagas.celery.routing), and a base class of the application's tasks does not.
    **dict.fromkeys(("queue", "exchange", "routing_key", "expires")),
    # Whoever can write to the broker must not be able to run code in a worker.
    "serializer": "json",
    # A message is acknowledged when its saga was brought as far as it goes now. If the worker dies, Celery does not
    # send the message again: the lease in the database decides who continues, and when.
    "acks_late": True,
    "acks_on_failure_or_timeout": True,
    "acks_on_failure": True,
    "acks_on_timeout": True,
    "reject_on_worker_lost": False,
    "retry_on_worker_lost": False,
    # The engine counts attempts and waits between them.
    "autoretry_for": (),
    # No limit: a lease is renewed for as long as a step takes, and a step is bounded by its own `timeout`.
    "time_limit": 0,
    "soft_time_limit": 0,
    "rate_limit": 0,
    # Kept for calls by hand. Scans and dispatched sagas say in each message that nobody wants a result.
    "ignore_result": False,
    "store_errors_even_if_ignored": False,
    "track_started": True,
    # Errors that are a sentence already: logged without a traceback.
    "throws": (SagaError,),
    # The setting task_annotations would replace what is above; it is for the application's own tasks.
    "annotate": classmethod(lambda _: None),
}


def scan() -> dict[str, Any]:
    """Claim what is due in the database and send one task per saga; fired by beat, harmless at any time."""
    try:
        return current_engine().scan().as_json()
    except (StorageUnavailable, SchemaAhead, SchemaBehind) as error:
        # Celery logs an expected error at INFO, which few workers show; and without scans nothing else would tell.
        logger.warning("no scan: %s", error)
        raise


def run_saga(self: Task, saga_id: str, version: int | None = None, queued_at: str | None = None) -> dict[str, Any]:
    """Run a saga that was started: the same as recovering it, at the version its message was sent for."""
    return _recover(self, saga_id, version, queued_at, pending=True)


def recover_saga(self: Task, saga_id: str, version: int | None = None, queued_at: str | None = None) -> dict[str, Any]:
    """Acquire a saga and bring it as far as it goes; invoke it by hand with the id alone.

    By hand it runs even while the saga backs off or is dead, never while another worker holds it.
    """
    return _recover(self, saga_id, version, queued_at, pending=False)


def prune(older_than_days: float | None = None) -> dict[str, Any]:
    """Delete finished sagas and their logs that ended longer ago than this; default: SAGAS_RETENTION_DAYS."""
    engine = current_engine()
    days = engine.settings.retention_days if older_than_days is None else older_than_days
    if days is None:
        raise ConfigurationError("how old? Pass older_than_days, or set SAGAS_RETENTION_DAYS; nothing was pruned.")
    require_positive(older_than_days=days)
    return {"pruned": sum(pruning.prune(engine.storage, older_than_seconds=days * 86_400)), "older_than_days": days}


#: Task name → its function, and whether Celery passes it the task itself.
_TASKS: Final[dict[str, tuple[Callable[..., dict[str, Any]], bool]]] = {
    SCAN_TASK: (scan, False),
    RUN_TASK: (run_saga, True),
    RECOVER_TASK: (recover_saga, True),
    PRUNE_TASK: (prune, False),
}


def register(app: Celery) -> None:
    """Make the tasks known to this application, and to no other one in the process."""
    for name, (function, bind) in _TASKS.items():
        app.task(name=name, bind=bind, shared=False, **OPTIONS)(function)


def _recover(task: Task, saga_id: str, version: int | None, queued_at: str | None, *, pending: bool) -> dict[str, Any]:
    # A call by hand that the broker delivers once more is no longer a person asking: its worker died of it, perhaps.
    redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
    by_hand = version is None and not redelivered
    parsed = parse_saga_id(saga_id)
    delivered = None
    if version is not None:
        delivered = Claim(parsed, version, pending, datetime.fromisoformat(queued_at) if queued_at else None)
    engine = current_engine()
    report = engine.recover(parsed, version=version, by_hand=by_hand, delivered=delivered)
    if report.refusal is Refusal.SUSPECT:
        return recover_alone(task.app, engine, parsed, version=version, by_hand=by_hand)
    return report.as_json()
