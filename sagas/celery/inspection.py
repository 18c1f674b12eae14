"""What a worker answers about itself, by Celery's remote control, when `sagas doctor` asks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import sqlalchemy as sa
from celery import Celery
from celery.worker.control import inspect_command

from sagas import api
from sagas.settings import PREFIX
from sagas.urls import address

#: They may hold a password.
_URLS: Final = ("database_url", "broker_url", "result_backend")
#: Celery's settings on which sagas depend, and which no option of a task can replace.
_CELERY: Final = ("accept_content", "worker_prefetch_multiplier")


def register(_: Celery) -> None:
    """Have workers of this process answer; Celery keeps one list of questions for all applications."""
    inspect_command()(sagas_settings)


def sagas_settings(state: Any, **__: Any) -> dict[str, Any]:
    """Tell the version, the database and the settings that sagas are run with here."""
    return answer(state.app)


def answer(app: Celery) -> dict[str, Any]:
    """Return the version, the database and the settings that sagas are run with in this process."""
    settings = api.settings()
    # Which application it is, the worker knows by itself.
    values = settings.model_dump(mode="json", exclude={*_URLS, "celery_app"})
    return {
        "version": _version(),
        "database": address(sa.make_url(settings.database_url)),
        "settings": {
            **{PREFIX + name.upper(): value for name, value in values.items()},
            # As JSON has them on the way here.
            **{name: list(value) if isinstance(value := app.conf[name], tuple) else value for name in _CELERY},
        },
    }


def _version() -> str:
    try:
        return version("celery-sagas")
    except PackageNotFoundError:
        return "unknown, run from its source"
