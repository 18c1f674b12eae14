"""Set how many messages a worker takes: one for each child, and two while sagas are quick."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from sagas.celery.role import runs_only_sagas

_TICK_SECONDS: Final = 1.0
#: At this rate of messages a second and child, a prefetched message waits for a tenth of a second.
_QUICK: Final = 10


class Prefetch(bootsteps.StartStopStep):
    """Prefetches messages while each child processes ten a second.

    Acknowledging a message and getting the next one from the broker takes as long as some quick steps, and the child is
    idle meanwhile. While steps are long, a message waits in the broker for the first worker that is free. A prefetched
    message would wait in this worker until a scan takes it for lost.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Skip a worker that also runs the application's own tasks: its settings decide how far it prefetches."""
        return runs_only_sagas(consumer.app)

    def start(self, consumer: Any) -> None:
        """Begin to count once a second; called for every new connection, which begins without prefetched messages."""
        self._ahead = 0
        self._begun = state.all_total_count[0]
        self._timer = consumer.timer.call_repeatedly(_TICK_SECONDS, self._adjust, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop counting."""
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
