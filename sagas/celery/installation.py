"""Adds sagas to any Celery application: tasks, routes, queues, beat entries and worker hooks."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from celery import Celery, signals

from sagas import api
from sagas.celery import beat, greenlets, messages, neighbours, outages, prefetch, tasks, worker
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.names import QUEUES, ROUTES
from sagas.settings import Settings

_installed: WeakSet[Celery] = WeakSet()


def install(app: Celery, settings: Settings | None = None) -> None:
    """Add sagas to a Celery application; a second call for the same application does nothing.

    The application gets the tasks `sagas.scan`, `sagas.recover_saga`, `sagas.run_saga` and `sagas.prune`, their routes
    and their queues. Its beat sends scans. A worker of it that takes a queue of sagas runs them. Sagas that this
    process starts travel on the application's broker. No setting that affects the application's own tasks is changed.

    Args:
        app: the application; it may be configured before or after.
        settings: the engine's settings; default: the `SAGAS_...` variables, read when they are first needed.
    """
    if app in _installed:
        return
    _installed.add(app)
    from sagas.celery import inspection  # noqa: F401  # registers a command of the workers' remote control

    for part in (tasks, worker, prefetch, outages, neighbours, messages, greenlets, beat):
        part.register(app)

    def add_routes(**_: Any) -> None:
        _add_routes(app)

    def add_queues(instance: Any, **_: Any) -> None:
        if instance.app is app:
            _add_queues(app)

    app.on_after_configure.connect(add_routes)
    # Again: the application may have assigned other routes since.
    app.on_after_finalize.connect(add_routes)
    signals.celeryd_init.connect(add_queues, weak=False)
    if app.configured:
        _add_routes(app)
    api.set_defaults(dispatcher=CeleryDispatcher(app), **({} if settings is None else {"settings": settings}))


def is_installed(app: Celery) -> bool:
    """Whether `install` was called for this application."""
    return app in _installed


def _add_routes(app: Celery) -> None:
    """Route our tasks, also when they are sent by name alone; the application's routes decide about all others."""
    ours = {task: {"queue": queue} for task, queue in ROUTES.items()}
    theirs = app.conf.task_routes or ()
    routes = list(theirs) if isinstance(theirs, (list, tuple)) else [theirs]
    if ours not in routes:
        app.conf.task_routes = [ours, *routes]
        if (amqp := app.__dict__.get("amqp")) is not None:
            # It keeps what it has made of the routes so far.
            amqp.flush_routes()
            amqp.__dict__.pop("router", None)


def _add_queues(app: Celery) -> None:
    """Make our queues known where the application lets no unknown queue be used; a worker takes them by `-Q` only."""
    queues = app.amqp.queues
    if not queues.create_missing:
        missing = [name for name in QUEUES if name not in queues]
        for name in missing:
            queues.add(queues.new_missing(name))
        queues.deselect(missing)
