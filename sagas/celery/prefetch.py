"""How many messages a worker takes: one for each child, and while sagas are quick, another for each."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery, bootsteps
from celery.worker import state

from sagas.celery.role import runs_only_sagas

_TICK_SECONDS: Final = 1.0
#: From so many messages a second for each child on, one that is taken ahead waits a tenth of a second.
_QUICK: Final = 10


def register(app: Celery) -> None:
    """Have workers of this application that run nothing but sagas prefetch."""
    app.steps["consumer"].add(Prefetch)


class Prefetch(bootsteps.StartStopStep):
    """Takes messages ahead while each child goes through ten a second.

    To acknowledge a message and get the next from the broker takes as long as some quick steps, in which a child has
    nothing to do. Behind long steps a message waits in the broker instead, for whichever worker is free first: ahead,
    it would wait here until a scan misses it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Leave a worker alone that runs the application's own tasks too: how far it prefetches is its own matter."""
        return runs_only_sagas(consumer.app)

    def start(self, consumer: Any) -> None:
        """Begin to count once a second; with every new connection to the broker, which begins with none ahead."""
        self._ahead = 0
        self._begun = state.all_total_count[0]
        self._timer = consumer.timer.call_repeatedly(_TICK_SECONDS, self._adjust, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Count no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _adjust(self, consumer: Any) -> None:
        begun, children = state.all_total_count[0], consumer.pool.num_processes
        ahead = children if begun - self._begun >= _QUICK * children * _TICK_SECONDS else 0
        if ahead > self._ahead:
            consumer.qos.increment_eventually(ahead - self._ahead)
        else:
            consumer.qos.decrement_eventually(self._ahead - ahead)
        self._begun, self._ahead = begun, ahead
