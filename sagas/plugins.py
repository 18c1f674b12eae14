"""What the settings and the installed packages plug into the engine: a resolver and a dispatcher."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from sagas.definition import Resolver
from sagas.errors import ConfigurationError
from sagas.recovery import Dispatcher

#: How the engine finds Celery without importing it.
DISPATCHER_ENTRY_POINT = "sagas.dispatcher"


def installed_dispatcher() -> Dispatcher | None:
    """Return the dispatcher of the installed packages, which is Celery's; None if there is none."""
    for entry_point in entry_points(group=DISPATCHER_ENTRY_POINT):
        dispatcher: Dispatcher = entry_point.load()()
        return dispatcher
    return None


def named_resolver(path: str) -> Resolver:
    """Return the function that `SAGAS_RESOLVER` names.

    Raises:
        ConfigurationError: there is none, or it cannot be called.
    """
    module, _, name = path.partition(":")
    try:
        resolver: Resolver = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"SAGAS_RESOLVER is {path!r}, which cannot be loaded ({error}): write it as 'package.module:function'."
        ) from error
    if not callable(resolver):
        raise ConfigurationError(f"SAGAS_RESOLVER is {path!r}, which cannot be called: name a function.")
    return resolver
