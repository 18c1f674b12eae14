"""The queues of sagas in an application, and the route of each task into its queue.

The application's own settings do not change: its routes, and the queues that a worker consumes without `-Q`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from celery import Celery, signals
from kombu.entity import Exchange, Queue

from sagas.celery.names import QUEUES, ROUTES

_QUEUE_TYPES: Final = ("task_create_missing_queue_type", "task_default_queue_type")

_routings: dict[Celery, Routing] = {}


class Routing:
    """Routes messages for sagas in one application.

    Args:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    @cached_property
    def queues(self) -> Mapping[str, Queue]:
        """Each queue as the application declares it, or else as Celery would declare a missing queue.

        These are queues and not names, because Celery would look a name up among the application's queues. This fails
        if `task_create_missing_queues` is off, and before Celery 5.7 a worker without `-Q` would consume the queue.
        """
        conf = self._app.conf
        # "classic" is the default of both, and of RabbitMQ if the argument is missing.
        # Celery 5.5 has none of these settings, and some later releases lack a few.
        kinds = {conf.get(name) for name in _QUEUE_TYPES} - {None, "classic"}
        arguments = {"x-queue-type": min(kinds)} if kinds else None
        made = self._app.amqp.Queues(
            tuple(Queue(name, Exchange(name), name, queue_arguments=arguments and {**arguments}) for name in QUEUES)
        )
        return {name: self._app.amqp.queues.get(name) or made[name] for name in QUEUES}

    def route(self, name: str, *_: Any, **__: Any) -> dict[str, Any] | None:
        """Return the route of a task of sagas; None for any other task."""
        return {"queue": self.queues[ROUTES[name]]} if name in ROUTES else None


def is_registered(app: Celery) -> bool:
    """Whether `register` was called for this application."""
    return app in _routings


def queue(app: Celery, name: str) -> Queue:
    """Return a queue of sagas as this application declares it."""
    return (_routings.get(app) or Routing(app)).queues[name]


def register(app: Celery) -> None:
    """Have this application route the tasks of sagas, also when they are sent by name alone."""
    routing = _routings[app] = Routing(app)

    def add_queues(instance: Any, **_: Any) -> None:
        if instance.app is app:
            _add_queues(app.amqp.queues, routing)

    _add_route(app.amqp, routing)
    signals.celeryd_init.connect(add_queues, weak=False)


def _add_route(amqp: Any, routing: Routing) -> None:
    # Insert the router before those that Celery makes from the setting task_routes. The setting itself may be changed
    # by the application at any time.
    prepare = amqp.flush_routes

    def flush_routes() -> None:
        prepare()
        amqp._rtable = [routing.route, *amqp._rtable]

    amqp.flush_routes = flush_routes
    amqp._rtable = None
    amqp.__dict__.pop("router", None)  # the router keeps the routes that it was made with


def _add_queues(queues: Any, routing: Routing) -> None:
    """Let a worker consume our queues only if `-Q` names them, unless the application lists them itself."""
    missing = [name for name in QUEUES if name not in queues]
    for name in missing:
        queues.add(routing.queues[name])
    queues.deselect(missing)
