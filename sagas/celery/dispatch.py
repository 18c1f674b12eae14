"""Sagas to workers, through Celery's broker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from sagas.celery import routing
from sagas.celery.names import ROUTES, TASK_FOR
from sagas.errors import BrokerUnavailable, ConfigurationError
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger
from sagas.urls import redacted

logger = saga_logger(__name__)

#: At most; without them, publishing on a link to Redis that drops packets hangs for ever. Libraries try again by
#: themselves, so that a start waits for a few times as long.
_REDIS_BOUNDS: Final = {"socket_connect_timeout": 2, "socket_timeout": 2}
#: How long a start waits for a producer while others use all of them.
_POOL_SECONDS: Final = 5
#: A saga is committed before it is sent, and a scan sends it later: nobody need wait long for a broker that is away.
_RETRY_ONCE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}


def default_application() -> Celery:
    """Return the application that carries sagas where none is given; `sagas.celery.application` provides it."""
    return _providers[-1]()


def provide_default(application: Callable[[], Celery]) -> None:
    """Name what returns the application that carries sagas where none is given."""
    _providers.append(application)


_providers: Final[list[Callable[[], Celery]]] = []


class CeleryDispatcher:
    """Sends each saga to a worker as one small message: its id, and the version that the message is for.

    Args:
        app: whose broker carries the messages; default: the one that SAGAS_CELERY_APP names, else the sagas' own.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app
        self._producers: tuple[int, ProducerPool] | None = None

    @property
    def app(self) -> Celery:
        """The application whose broker carries the messages."""
        if self._app is None:
            self._app = default_application()
        return self._app

    def send(self, claims: Sequence[Claim]) -> int:
        """Publish a message for each claim, in order; return how many were published before the broker failed.

        With `task_always_eager`, which applications set in their tests, the sagas run here and now instead.
        """
        sent = 0
        declared: set[bool] = set()
        errors = self._broker_errors
        try:
            if self.app.conf.task_always_eager:
                for claim in claims:
                    self.app.tasks[TASK_FOR[claim.pending]].apply((str(claim.saga_id),), _kwargs(claim))
                return len(claims)
            with self._pool().acquire(block=True, timeout=_POOL_SECONDS) as producer:
                for claim in claims:
                    task = TASK_FOR[claim.pending]
                    self.app.send_task(
                        task,
                        args=(str(claim.saga_id),),
                        kwargs=_kwargs(claim),
                        # What Flower and the worker's log show: the id that `sagas show` takes, and nothing around it.
                        argsrepr=str(claim.saga_id),
                        kwargsrepr=f"version {claim.version}",
                        queue=routing.queue(self.app, ROUTES[task]),
                        serializer="json",
                        retry=True,
                        retry_policy=_RETRY_ONCE,
                        # Once is enough, and to find out for each message that it was costs an eighth of sending it.
                        declare=() if claim.pending in declared else None,
                        producer=producer,
                        # The message is nobody's child, even if a task of the application starts the saga.
                        add_to_parent=False,
                        ignore_result=True,
                    )
                    declared.add(claim.pending)
                    sent += 1
        except errors as error:
            logger.warning(
                "the broker at %s did not take message %d of %d: %s",
                *(broker_address(self.app), sent + 1, len(claims), redacted(error) + _cure(error)),
            )
        return sent

    def _pool(self) -> ProducerPool:
        """Return the producers of this process: of their own, so that their links may be bounded."""
        if self._producers is None or self._producers[0] != os.getpid():
            conf = self.app.conf
            connection = self._connection()
            limit = conf.broker_pool_limit
            self._producers = (os.getpid(), ProducerPool(connection.Pool(limit), limit=limit))
        return self._producers[1]

    def _connection(self) -> Connection:
        options: dict[str, Any] = {}
        if self.app.connection_for_write().transport.driver_type == "redis":
            given = self.app.conf.broker_transport_options
            options = {name: min(given.get(name) or bound, bound) for name, bound in _REDIS_BOUNDS.items()}
        connection: Connection = self.app.connection_for_write(transport_options=options)
        return connection

    def length(self, queue: str) -> int:
        """Return how many messages wait in a queue.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        errors = self._broker_errors
        try:
            with self._connection() as connection:
                return _length(connection, queue)
        except errors as error:
            raise BrokerUnavailable(
                f"the broker at {broker_address(self.app)} did not answer ({redacted(error)}): check that it "
                "runs (SAGAS_BROKER_URL); nothing is lost meanwhile, sagas stay due in the database."
            ) from error

    @cached_property
    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        """What the broker's library raises; kept, as making a connection to ask costs every start."""
        connection = readable_connection(self.app)
        return (*connection.connection_errors, *connection.channel_errors, KombuError, OSError)


def _kwargs(claim: Claim) -> dict[str, Any]:
    queued_at = None if claim.queued_at is None else claim.queued_at.isoformat()
    return {"version": claim.version} if queued_at is None else {"version": claim.version, "queued_at": queued_at}


def readable_connection(app: Celery) -> Connection:
    """Return a connection that is not open yet.

    Raises:
        ConfigurationError: its URL cannot be read, or its transport cannot be loaded; holds nothing of the URL.
    """
    try:
        connection: Connection = app.connection_for_write()
        connection.transport  # noqa: B018  # loads it
    except Exception as error:
        # Its words may hold a part of the URL, and so of a password.
        raise ConfigurationError(
            f"the broker's URL of the Celery application {app.main} cannot be used ({type(error).__name__}): write it "
            "as redis://:password@host:6379/0 or amqp://user:password@host/, special characters percent-encoded, and "
            "install what its transport needs."
        ) from None
    return connection


def broker_address(app: Celery) -> str:
    """Return where the application's messages go, without a password."""
    connection = app.connection_for_write()
    return redacted(";".join(connection.alt) or connection.as_uri(include_password=True))


def _cure(error: BaseException) -> str:
    if "PRECONDITION_FAILED" not in str(error):
        return ""
    return (
        " (another application has declared this queue in another way: give all applications on this broker the same "
        "task_default_queue_type, or delete the queue, and scans send again what was in it)"
    )


def _length(connection: Connection, queue: str) -> int:
    connection.ensure_connection(max_retries=1, interval_start=0)
    # Redis knows no declared queues. kombu looks for the key instead, and forgets `global_keyprefix` over it.
    passive = connection.transport.driver_type != "redis"
    try:
        return int(connection.default_channel.queue_declare(queue, passive=passive).message_count)
    except connection.channel_errors:
        return 0  # no such queue yet: nothing was ever sent
