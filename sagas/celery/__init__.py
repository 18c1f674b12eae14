"""Sagas in Celery: call `install(app)` for your own application, or use `app` if you have none.

`celery -A sagas worker` finds `app` here. `app` is made on first use. Neither its import nor its use makes it the
current or the default application of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagas.celery.application import own_application
from sagas.celery.installation import install
from sagas.errors import ConfigurationError

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

__all__ = ["app", "install"]


def __getattr__(name: str) -> Any:
    if name == "app":
        try:
            return own_application()
        except ConfigurationError as error:
            # Celery's commands would print a traceback.
            raise SystemExit(f"error: {error}") from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
