"""Adds sagas to any Celery application: tasks, routes, queues, beat entries and worker hooks."""

from __future__ import annotations

from typing import Final

from celery import Celery

from sagas import api
from sagas.celery import beat, inspection, routing, tasks, worker
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.events import GathersEvents
from sagas.celery.greenlets import WaitsForGreenlets
from sagas.celery.messages import DropsMessages
from sagas.celery.neighbours import NoNeighbours
from sagas.celery.outages import OutlivesOutages
from sagas.celery.prefetch import Prefetch
from sagas.settings import Settings

_PARTS: Final = (routing, tasks, inspection, beat, worker)
#: Each decides for itself whether a worker gets it.
_CONSUMER_STEPS: Final = (Prefetch, GathersEvents, OutlivesOutages, NoNeighbours, DropsMessages, WaitsForGreenlets)
#: In the order of the last call of `install` for each.
_installed: list[Celery] = []


def install(app: Celery, settings: Settings | None = None) -> None:
    """Add sagas to a Celery application; a second call for the same application adds nothing.

    The application gets the tasks `sagas.scan`, `sagas.recover_saga`, `sagas.run_saga` and `sagas.prune`, their routes
    and their queues. Its beat sends scans. Its workers run sagas if they consume a queue of sagas. Sagas that this
    process starts travel on the application's broker, unless SAGAS_CELERY_APP names another one. No setting that
    affects the application's own tasks is changed.

    Args:
        app: the application; it may be configured before or after.
        settings: the engine's settings; default: the `SAGAS_...` variables, read when they are first needed.
    """
    app = unwrapped(app)
    add_sagas(app)
    if app in _installed:
        _installed.remove(app)
    _installed.append(app)
    api.set_defaults(dispatcher=CeleryDispatcher(), **({} if settings is None else {"settings": settings}))


def installed() -> Celery | None:
    """Return the application that `install` was called for last in this process."""
    return _installed[-1] if _installed else None


def add_sagas(app: Celery) -> None:
    """Add sagas to an application, without making it the one that carries sagas of this process."""
    if not has_sagas(app):
        for part in _PARTS:
            part.register(app)
        app.steps["consumer"].update(_CONSUMER_STEPS)


def has_sagas(app: Celery) -> bool:
    """Whether sagas were added to this application."""
    return routing.is_registered(app)


def unwrapped(app: Celery) -> Celery:
    """Return the application itself, also if a proxy such as `celery.current_app` is given."""
    return app._get_current_object() if hasattr(app, "_get_current_object") else app
