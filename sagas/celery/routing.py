"""The queues of sagas in an application, and the route of each task into its queue.

The application's own settings stay as they are: its routes, and which queues a worker takes that is not told.
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
    """How messages for sagas travel in one application.

    Args:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    @cached_property
    def queues(self) -> Mapping[str, Queue]:
        """Each queue as the application declares it, else as it would declare a queue that it lacks.

        Queues rather than their names: Celery would look a name up among the application's queues, fail where
        `task_create_missing_queues` is off, and before 5.7 have a worker take it that was not told to.
        """
        conf = self._app.conf
        # "classic" is the default of both, which RabbitMQ takes for granted.
        # Celery 5.5 has no such setting, and later ones not all of them.
        kinds = {conf.get(name) for name in _QUEUE_TYPES} - {None, "classic"}
        arguments = {"x-queue-type": min(kinds)} if kinds else None
        made = self._app.amqp.Queues(
            tuple(Queue(name, Exchange(name), name, queue_arguments=arguments and {**arguments}) for name in QUEUES)
        )
        return {name: self._app.amqp.queues.get(name) or made[name] for name in QUEUES}

    def route(self, name: str, *_: Any, **__: Any) -> dict[str, Any] | None:
        """Return where a task of sagas goes; None for any other one."""
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
    # In front of what is made of the setting task_routes, and not in the setting, which the application may change at
    # any time.
    prepare = amqp.flush_routes

    def flush_routes() -> None:
        prepare()
        amqp._rtable = [routing.route, *amqp._rtable]

    amqp.flush_routes = flush_routes
    amqp._rtable = None
    amqp.__dict__.pop("router", None)  # it keeps the routes that it was made with


def _add_queues(queues: Any, routing: Routing) -> None:
    """Let a worker take our queues by `-Q`, and only so, if the application has not listed them itself."""
    missing = [name for name in QUEUES if name not in queues]
    for name in missing:
        queues.add(routing.queues[name])
    queues.deselect(missing)
