"""Find or make the Celery application that carries sagas.

SAGAS_CELERY_APP names this application. Without the variable it is the one that this process called `install` for, and
without such a call the sagas' own application.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.app.utils import find_app
from kombu.connection import Connection

from sagas import api
from sagas.celery.configuration import configuration
from sagas.celery.dispatch import provide_default
from sagas.celery.installation import add_sagas, has_sagas, installed, unwrapped
from sagas.celery.names import QUEUES
from sagas.celery.redis_channels import keep_clients
from sagas.celery.role import runs_sagas
from sagas.errors import ConfigurationError
from sagas.settings import Settings
from sagas.telemetry.logs import saga_logger
from sagas.urls import redacted

logger = saga_logger(__name__)

#: Celery would read its broker, its result backend or its loader from these variables and ignore the settings.
_CELERYS: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_CONFIG_MODULE",
    "CELERY_LOADER",
)

_own: Celery | None = None
_lock = threading.Lock()


class _Connection(Connection):
    """Connection without a password in Celery's banner and log lines, whose Redis channels keep their client."""

    def create_transport(self) -> Any:
        """Return the transport."""
        transport = super().create_transport()
        keep_clients(transport)
        return transport

    def as_uri(self, include_password: bool = False, *arguments: Any, **options: Any) -> str:
        """Return the URL; by default, without anything that may be a password."""
        uri = super().as_uri(True, *arguments, **options)
        return uri if include_password else redacted(uri)


class _Amqp(AMQP):
    Connection = BrokerConnection = _Connection


class SagaCelery(Celery):
    """The sagas' own application: it reads `SAGAS_...` variables and ignores `CELERY_...` variables.

    Args:
        settings: the engine's settings, as read from the variables.

    Raises:
        ConfigurationError: the broker's URL has an option that does not exist.
    """

    def __init__(self, settings: Settings) -> None:
        values = configuration(settings)
        # Name a loader, because CELERY_LOADER would name another one otherwise.
        self._may_be_default = False
        super().__init__("sagas", set_as_current=False, loader="app", amqp=_Amqp)
        self._may_be_default = True
        self.config_from_object(values)
        self.backend_cls = values["result_backend"] or "disabled"
        signals.celeryd_after_setup.connect(self._check_worker, weak=False)
        signals.beat_init.connect(self._check_beat, weak=False)

    def set_default(self) -> None:
        """Become the default application, if a worker asks. Celery's fix-up for Django also asks, and is ignored."""
        if self._may_be_default:
            super().set_default()

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection(hostname or self._url, **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection_for_read(url or self._url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Connect to SAGAS_BROKER_URL."""
        return super().connection_for_write(url or self._url, **options)

    @property
    def _url(self) -> str:
        # Not `conf.broker_url`, which reads CELERY_BROKER_URL.
        return str(self.conf.first("broker_url", "broker_host"))

    def _check_worker(self, instance: Any, **_: Any) -> None:
        if instance.app is self:
            _refuse_beside_another("worker")
            _log_ignored()
            if not runs_sagas(self):
                taken = ", ".join(self.amqp.queues.consume_from)
                raise SystemExit(
                    f"error: this worker takes {taken}, which is no queue of sagas: name some of {', '.join(QUEUES)} "
                    "after -Q (or in CELERY_WORKER_QUEUES), or leave it out."
                )

    def _check_beat(self, sender: Any, **_: Any) -> None:
        if sender.app is self:
            _refuse_beside_another("beat")
            _log_ignored()


def _refuse_beside_another(command: str) -> None:
    if named := api.settings().celery_app:
        raise SystemExit(
            f"error: SAGAS_CELERY_APP is {named!r}, so sagas travel on that application's broker, where this {command} "
            f"does not look: start it as `celery -A {named} {command}`, or leave SAGAS_CELERY_APP out."
        )


def _log_ignored() -> None:
    if ignored := [name for name in _CELERYS if os.environ.get(name)]:
        logger.warning("ignored: %s. The application of sagas reads SAGAS_... variables only.", ", ".join(ignored))


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
    """Return the application that carries sagas; the module's docstring says which one it is.

    Raises:
        ConfigurationError: the application cannot be loaded, or has no sagas.
    """
    if named := api.settings().celery_app:
        return _named_application(named)
    return installed() or own_application()


provide_default(configured_application)


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
