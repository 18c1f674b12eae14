"""What a worker answers about itself, by Celery's remote control, when `sagas doctor` asks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import sqlalchemy as sa
from celery.worker.control import inspect_command

from sagas.settings import PREFIX, Settings
from sagas.storage.connecting import address
from tasks.application import app

#: They may hold a password.
_URLS: Final = ("database_url", "broker_url", "result_backend")
#: Celery's settings on which sagas depend.
_CELERY: Final = (
    "accept_content",
    "task_serializer",
    "task_acks_late",
    "task_reject_on_worker_lost",
    "task_time_limit",
    "worker_prefetch_multiplier",
)


@inspect_command()
def sagas_settings(_: Any, **__: Any) -> dict[str, Any]:
    """Tell the version, the database and the settings that sagas are run with here."""
    settings = Settings.from_environment()
    return {
        "version": _version(),
        "database": address(sa.make_url(settings.database_url)),
        "settings": {
            **{
                PREFIX + name.upper(): value
                for name, value in settings.model_dump(mode="json", exclude={*_URLS}).items()
            },
            **{name: app.conf[name] for name in _CELERY},
        },
    }


def _version() -> str:
    try:
        return version("celery-sagas")
    except PackageNotFoundError:
        return "unknown, run from its source"
