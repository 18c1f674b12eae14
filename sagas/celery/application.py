"""The application that carries sagas.

It is the one that SAGAS_CELERY_APP names; else the one that this process called `install` for; else the sagas' own.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Final

from celery import Celery
from celery.app.utils import find_app

from sagas import api
from sagas.celery.configuration import configuration
from sagas.celery.installation import add_sagas, has_sagas, installed, unwrapped
from sagas.errors import ConfigurationError
from sagas.settings import Settings

logger = logging.getLogger(__name__)

#: Celery would take its broker or its results from these, whatever the application's settings say.
_CELERY_URLS: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)

_own: Celery | None = None
_lock = threading.Lock()


class SagaCelery(Celery):
    """The sagas' own application: `SAGAS_...` variables decide about it, and no `CELERY_...` variable does.

    Args:
        settings: what the variables say.
    """

    def __init__(self, settings: Settings) -> None:
        self._broker = settings.broker_url
        self._may_be_default = False
        # A loader is named, or CELERY_LOADER would name another.
        super().__init__("sagas", set_as_current=False, loader="app")
        self._may_be_default = True
        values = configuration(settings)
        self.config_from_object(values)
        self.backend_cls = values["result_backend"] or "disabled"
        if ignored := [name for name in _CELERY_URLS if os.environ.get(name)]:
            logger.info("%s: ignored by the application of sagas, which uses SAGAS_BROKER_URL", ", ".join(ignored))

    def set_default(self) -> None:
        """Become the default, as a worker asks for; Celery's fix-up for Django asks wherever an application is made."""
        if self._may_be_default:
            super().set_default()

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection(hostname or self._broker, **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection_for_read(url or self._broker, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection_for_write(url or self._broker, **options)


def own_application() -> Celery:
    """Return the sagas' own application, made on first use.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    global _own  # noqa: PLW0603
    with _lock:
        if _own is None:
            made = SagaCelery(api.settings())
            add_sagas(made)
            _own = made
        return _own


def configured_application() -> Celery:
    """Return the application that carries sagas: see the module.

    Raises:
        ConfigurationError: it cannot be loaded, or has no sagas.
    """
    if named := api.settings().celery_app:
        return _named_application(named)
    return installed() or own_application()


def _named_application(name: str) -> Celery:
    try:
        app = unwrapped(find_app(name))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"SAGAS_CELERY_APP is {name!r}, which cannot be loaded ({error}): write what `celery -A` takes, such as "
            "shop.celery:app."
        ) from error
    if not has_sagas(app):
        raise ConfigurationError(
            f"SAGAS_CELERY_APP is {name!r}, which has no sagas: call sagas.celery.install(app) where it is made."
        )
    return app
