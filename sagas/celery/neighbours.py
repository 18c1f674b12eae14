"""Workers for sagas do without their neighbours: neither gossip nor mingle runs in a worker that takes only sagas.

Both exist to share revoked tasks and logical clocks between workers, of which sagas use nothing. They cost a second at
each connection to the broker, and a channel that has to be closed when the connection is lost.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle

from sagas.celery.role import runs_only_sagas


def register(app: Celery) -> None:
    """Have workers of this application that run nothing but sagas do without their neighbours."""
    app.steps["consumer"].add(NoNeighbours)


class NoNeighbours(bootsteps.Step):
    """Turns gossip and mingle off, as `--without-gossip --without-mingle` does, where only queues of sagas are read."""

    # Made after both, and before any of the three is asked whether it takes part.
    requires = (Gossip, Mingle)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        if runs_only_sagas(consumer.app):
            for step in self.requires:
                consumer.blueprint.steps[step.name].enabled = False
