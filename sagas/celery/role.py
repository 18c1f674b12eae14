"""Tell from a worker's queues whether it runs sagas, other tasks, or both."""

from __future__ import annotations

from celery import Celery

from sagas.celery.names import QUEUES


def runs_sagas(app: Celery) -> bool:
    """Whether this process's worker consumes a queue of sagas."""
    return any(name in QUEUES for name in app.amqp.queues.consume_from)


def runs_only_sagas(app: Celery) -> bool:
    """Whether this process's worker consumes only queues of sagas."""
    taken = app.amqp.queues.consume_from
    return bool(taken) and all(name in QUEUES for name in taken)
