"""Keeps a worker's greenlets running while it waits for messages.

Celery 5.7 imports kombu before gevent replaces `select`. The worker's loop then waits with the function that stops the
whole process, for up to two seconds at a time, and each wait of a saga for its database costs as much.
"""

from __future__ import annotations

import select
from typing import Any

from celery import Celery, bootsteps
from kombu.utils import eventio

from sagas.celery.role import runs_sagas


def register(app: Celery) -> None:
    """Have workers of this application that run sagas in greenlets wait without stopping them."""
    app.steps["consumer"].add(WaitsForGreenlets)


class WaitsForGreenlets(bootsteps.Step):
    """Has kombu wait with the `select` that gevent or eventlet has put in the place of Python's."""

    def include_if(self, consumer: Any) -> bool:
        """Only where sagas run in greenlets."""
        return bool(getattr(consumer.pool, "is_green", False)) and runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Do so in the whole process, which is what replacing `select` is for."""
        eventio._selectf = select.select
