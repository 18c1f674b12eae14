"""How many messages a worker takes: one for each child, and one ahead while sagas are so quick that it hardly waits."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from celery.worker import state

from tasks.application import app

_LOOK_SECONDS: Final = 1.0
#: From so many messages in a second on, the one ahead waits a tenth of a second for a child.
_QUICK: Final = 10


class OneAhead(bootsteps.StartStopStep):
    """Takes one message ahead while the worker goes through ten a second or more.

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
        self._ahead = False
        self._received = state.all_total_count[0]
        self._looks = consumer.timer.call_repeatedly(_LOOK_SECONDS, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        if self._looks is not None:
            self._looks.cancel()

    def _look(self, consumer: Any) -> None:
        received = state.all_total_count[0]
        quick = received - self._received >= _QUICK * _LOOK_SECONDS
        self._received = received
        if quick != self._ahead:
            self._ahead = quick
            (consumer.qos.increment_eventually if quick else consumer.qos.decrement_eventually)()


app.steps["consumer"].add(OneAhead)
