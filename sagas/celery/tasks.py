"""The Celery tasks, as Flower shows them; all accept and return JSON."""

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
from sagas.storage.answers import Refusal
from sagas.storage.arguments import require_positive
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: Options of each task, so that no setting of the application weakens a guarantee. For options that are missing or None
#: here, Celery uses the application's settings.
OPTIONS: Final[dict[str, Any]] = {
    # `sagas.celery.routing` sets the routes. A base class of the application's tasks must not override them.
    **dict.fromkeys(("queue", "exchange", "routing_key", "expires")),
    # Write access to the broker must not allow running code in a worker.
    "serializer": "json",
    # A message is acknowledged after its saga has run as far as it can for now. If the worker dies, Celery does not
    # send the message again: the lease in the database decides which worker continues, and when.
    "acks_late": True,
    "acks_on_failure_or_timeout": True,
    "acks_on_failure": True,
    "acks_on_timeout": True,
    "reject_on_worker_lost": False,
    "retry_on_worker_lost": False,
    # The engine counts attempts and waits between them.
    "autoretry_for": (),
    # No time limit: the lease is renewed while a step runs, and the step's own `timeout` limits the step.
    "time_limit": 0,
    "soft_time_limit": 0,
    "rate_limit": 0,
    # Results are kept for manual calls. Messages of scans and dispatched sagas say that no result is needed.
    "ignore_result": False,
    "store_errors_even_if_ignored": False,
    "track_started": True,
    # These errors have a readable message: log them without a traceback.
    "throws": (SagaError,),
    # The setting task_annotations would replace the options above. It is meant for the application's own tasks.
    "annotate": classmethod(lambda _: None),
}


def scan() -> dict[str, Any]:
    """Claim the due sagas in the database and send one task per saga; beat sends it, and it is safe at any time."""
    try:
        return current_engine().scan().as_json()
    except (StorageUnavailable, SchemaAhead, SchemaBehind) as error:
        # Celery logs an expected error at INFO, which few workers show. While scans fail, no other line would report
        # it.
        logger.warning("no scan: %s", error)
        raise


def run_saga(self: Task, saga_id: str, version: int | None = None, queued_at: str | None = None) -> dict[str, Any]:
    """Run a saga that was started. It does the same as recovering the saga, at the version of its message."""
    return _recover(self, saga_id, version, queued_at, pending=True)


def recover_saga(self: Task, saga_id: str, version: int | None = None, queued_at: str | None = None) -> dict[str, Any]:
    """Acquire a saga and run it as far as it can; for a manual call, pass the id alone.

    A manual call runs the saga even while it backs off or is dead, but never while another worker holds it.
    """
    return _recover(self, saga_id, version, queued_at, pending=False)


def prune(older_than_days: float | None = None) -> dict[str, Any]:
    """Delete sagas that ended longer ago than this, with their logs; default: SAGAS_RETENTION_DAYS."""
    engine = current_engine()
    days = engine.settings.retention_days if older_than_days is None else older_than_days
    if days is None:
        raise ConfigurationError("how old? Pass older_than_days, or set SAGAS_RETENTION_DAYS; nothing was pruned.")
    require_positive(older_than_days=days)
    return {"pruned": sum(pruning.prune(engine.storage, older_than_seconds=days * 86_400)), "older_than_days": days}


#: Name of a task → its function, and whether Celery passes the task itself to the function.
_TASKS: Final[dict[str, tuple[Callable[..., dict[str, Any]], bool]]] = {
    SCAN_TASK: (scan, False),
    RUN_TASK: (run_saga, True),
    RECOVER_TASK: (recover_saga, True),
    PRUNE_TASK: (prune, False),
}


def register(app: Celery) -> None:
    """Register the tasks with this application only, and with no other one in the process."""
    for name, (function, bind) in _TASKS.items():
        app.task(name=name, bind=bind, shared=False, **OPTIONS)(function)


def _recover(task: Task, saga_id: str, version: int | None, queued_at: str | None, *, pending: bool) -> dict[str, Any]:
    # If the broker delivers a manual call again, treat it as a normal message: the call may have killed its worker.
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
