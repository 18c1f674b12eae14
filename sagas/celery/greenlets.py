"""Keeps a worker's greenlets running while it waits for messages.

Celery 5.7 imports kombu before gevent replaces `select`. The worker's loop then waits with the function that stops the
whole process, for up to two seconds at a time, and each wait of a saga for its database costs as much.
"""

from __future__ import annotations

import select
from typing import Any

from celery import bootsteps
from kombu.utils import eventio

from sagas.celery.role import runs_sagas


class WaitsForGreenlets(bootsteps.Step):
    """Has kombu wait with the `select` by which gevent or eventlet replaced Python's own."""

    def include_if(self, consumer: Any) -> bool:
        """Include this step only in workers that run sagas in greenlets."""
        return bool(getattr(consumer.pool, "is_green", False)) and runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Replace `select` in the whole process, as gevent and eventlet do."""
        eventio._selectf = select.select
