"""How many messages a worker takes: one for each child, and while sagas are quick, another for each."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from tasks.application import app

_LOOK_SECONDS: Final = 1.0
#: From so many messages a second for each child on, one that is taken ahead waits a tenth of a second.
_QUICK: Final = 10


class TakesAhead(bootsteps.StartStopStep):
    """Takes messages ahead while each child goes through ten a second.

    To acknowledge a message and get the next from the broker takes as long as some quick steps, in which a child has
    nothing to do. Behind long steps a message waits in the broker instead, for whichever worker is free first: ahead,
    it would wait here until a scan misses it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._looks: Any = None

    def start(self, consumer: Any) -> None:
        """Begin to look once a second; with every new connection to the broker, which begins with none ahead."""
        self._ahead = 0
        self._begun = state.all_total_count[0]
        self._looks = consumer.timer.call_repeatedly(_LOOK_SECONDS, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        if self._looks is not None:
            self._looks.cancel()

    def _look(self, consumer: Any) -> None:
        begun, children = state.all_total_count[0], consumer.pool.num_processes
        ahead = children if begun - self._begun >= _QUICK * children * _LOOK_SECONDS else 0
        if ahead > self._ahead:
            consumer.qos.increment_eventually(ahead - self._ahead)
        else:
            consumer.qos.decrement_eventually(self._ahead - ahead)
        self._begun, self._ahead = begun, ahead


app.steps["consumer"].add(TakesAhead)
