"""Turn off gossip and mingle in workers that run only sagas.

Both share revoked tasks and logical clocks between workers. Sagas use neither. They cost a second at each connection to
the broker, and a channel that has to be closed when the connection is lost.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle

from sagas.celery.role import runs_only_sagas


class NoNeighbours(bootsteps.Step):
    """Does the same as `--without-gossip --without-mingle`, in workers that consume only queues of sagas."""

    # Celery makes this step after gossip and mingle, and before it asks each of them whether to include it.
    requires = (Gossip, Mingle)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        if runs_only_sagas(consumer.app):
            for step in self.requires:
                consumer.blueprint.steps[step.name].enabled = False
