"""The tasks, as an operator sees them in Flower; all take and return JSON."""

from __future__ import annotations

from typing import Any

from celery import Task

from sagas import pruning
from sagas.api import current_engine
from sagas.errors import ConfigurationError, SagaError
from sagas.recovery import parse_saga_id
from sagas.storage.base import require_positive
from tasks.application import app


@app.task(name="sagas.scan", throws=(SagaError,))
def scan() -> dict[str, Any]:
    """Claim what is due in the database and send one task per saga; fired by beat, harmless at any time."""
    return current_engine().scan().as_json()


@app.task(name="sagas.run_saga", bind=True, throws=(SagaError,))
def run_saga(self: Task, saga_id: str, version: int | None = None) -> dict[str, Any]:
    """Run a saga that was started: the same as recovering it, at the version its message was sent for."""
    return _bring_on(self, saga_id, version)


@app.task(name="sagas.recover_saga", bind=True, throws=(SagaError,))
def recover_saga(self: Task, saga_id: str, version: int | None = None) -> dict[str, Any]:
    """Take a saga over and bring it as far as it goes; invoke it by hand with the id alone.

    By hand it runs even while the saga backs off or is dead, never while another worker holds it.
    """
    return _bring_on(self, saga_id, version)


@app.task(name="sagas.prune", throws=(SagaError,))
def prune(older_than_days: float | None = None) -> dict[str, Any]:
    """Delete finished sagas and their logs that ended longer ago than this; default: SAGAS_RETENTION_DAYS."""
    engine = current_engine()
    days = engine.settings.retention_days if older_than_days is None else older_than_days
    if days is None:
        raise ConfigurationError("how old? Pass older_than_days, or set SAGAS_RETENTION_DAYS; nothing was pruned.")
    require_positive(older_than_days=days)
    return {"pruned": sum(pruning.prune(engine.storage, older_than_seconds=days * 86_400)), "older_than_days": days}


def _bring_on(task: Task, saga_id: str, version: int | None) -> dict[str, Any]:
    # A call by hand that the broker delivers once more is no longer a person asking: its worker died of it, perhaps.
    redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
    by_hand = version is None and not redelivered
    return current_engine().recover(parse_saga_id(saga_id), version=version, by_hand=by_hand).as_json()
