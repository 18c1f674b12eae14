"""The Celery application and where its settings come from."""

from __future__ import annotations

import importlib.util
import os

from celery import Celery

from sagas.errors import ConfigurationError


def _config_module() -> str:
    """The user's own choice, else the `celeryconfig.py` of the checkout or directory, else the one in the wheel."""
    if named := os.environ.get("CELERY_CONFIG_MODULE"):
        return named
    return "celeryconfig" if importlib.util.find_spec("celeryconfig") else "tasks.celeryconfig"


def _application() -> Celery:
    application = Celery("sagas", include=["tasks.saga_tasks", "tasks.worker", "tasks.ahead", "tasks.inspection"])
    try:
        # Now rather than on first use: a setting that cannot work is told before anything has begun.
        application.config_from_object(_config_module(), force=True)
    except ConfigurationError as error:
        raise SystemExit(f"error: {error}") from None
    return application


app = _application()
