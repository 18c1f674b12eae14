"""The events that Flower shows, sent a few times a second instead of once a task."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps

from sagas.celery.role import runs_only_sagas

#: Maximal time between two sends of events. Flower shows events up to this much later.
_SECONDS: Final = 0.25


class GathersEvents(bootsteps.StartStopStep):
    """Gathers events in the buffer that Celery has for them.

    Celery empties it after almost every event of a busy worker. That takes a fifth of its processor time. The buffer
    still holds 24 events at most.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Leave a worker alone that runs the application's own tasks too, or whose pool has no such buffer."""
        return runs_only_sagas(consumer.app) and consumer.hub is not None

    def create(self, consumer: Any) -> None:
        """Keep events in the buffer until the next send."""
        consumer.on_send_event_buffered = lambda: None

    def start(self, consumer: Any) -> None:
        """Begin to send the buffered events."""
        self._timer = consumer.timer.call_repeatedly(_SECONDS, consumer._flush_events)

    def close(self, consumer: Any) -> None:
        """Send the last events of a worker that ends."""
        consumer._flush_events()

    def stop(self, consumer: Any) -> None:
        """Stop sending events, also after the connection was lost."""
        if self._timer is not None:
            self._timer.cancel()
