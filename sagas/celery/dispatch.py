"""Send sagas to workers through Celery's broker."""

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
from sagas.outbox import OutboxTask
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger
from sagas.urls import redacted

logger = saga_logger(__name__)

#: Upper limits. Without them, publishing on a link to Redis that drops packets hangs for ever. The libraries retry, so
#: a start may wait for a few times as long.
_REDIS_BOUNDS: Final = {"socket_connect_timeout": 2, "socket_timeout": 2}
#: How long a start waits for a producer while all producers are in use.
_POOL_SECONDS: Final = 5
#: A saga is committed before it is sent, and a scan sends it later. So a start does not wait long while the broker is
#: away.
_RETRY_ONCE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}


def default_application() -> Celery:
    """Return the application that carries sagas if none is given; `sagas.celery.application` provides it."""
    return _providers[-1]()


def provide_default(application: Callable[[], Celery]) -> None:
    """Set the function that returns the application that carries sagas if none is given."""
    _providers.append(application)


_providers: Final[list[Callable[[], Celery]]] = []


class CeleryDispatcher:
    """Sends each saga to a worker as one small message with the saga's id and version.

    Args:
        app: the application whose broker carries the messages; default: the one that SAGAS_CELERY_APP names, else the
            sagas' own.
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

        With `task_always_eager`, which applications set in their tests, the sagas run in this call instead.
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
                        # Flower and the worker's log show exactly the id that `sagas show` accepts.
                        argsrepr=str(claim.saga_id),
                        kwargsrepr=f"version {claim.version}",
                        queue=routing.queue(self.app, ROUTES[task]),
                        serializer="json",
                        retry=True,
                        retry_policy=_RETRY_ONCE,
                        # Declare the queue once. Checking this for each message would cost an eighth of the time to
                        # send it.
                        declare=() if claim.pending in declared else None,
                        producer=producer,
                        # The message has no parent task, even if a task of the application starts the saga.
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

    def enqueue(self, tasks: Sequence[OutboxTask]) -> list[int]:
        """Send tasks that steps asked for, in order; return the ids of those that were sent.

        A task that cannot be sent by itself, because of a wrong option for example, is logged and left out.
        """
        sent: list[int] = []
        errors = self._broker_errors
        try:
            if self.app.conf.task_always_eager:
                for task in tasks:
                    self._enqueue(task, sent)
                return sent
            with self._pool().acquire(block=True, timeout=_POOL_SECONDS) as producer:
                for task in tasks:
                    self._enqueue(task, sent, producer=producer, retry=True, retry_policy=_RETRY_ONCE)
        except errors as error:
            logger.warning(
                "the broker at %s did not take task %d of %d of the outbox: %s",
                *(broker_address(self.app), len(sent) + 1, len(tasks), redacted(error) + _cure(error)),
            )
        return sent

    def _enqueue(self, task: OutboxTask, sent: list[int], **options: Any) -> None:
        # The arguments are JSON, and write access to the database must not allow running code in a worker.
        options = {**task.options, **options, "serializer": "json", "add_to_parent": False}
        registered = self.app.tasks.get(task.task)
        try:
            if registered is None:
                self.app.send_task(task.task, task.args, task.kwargs, **options)
            else:
                # By the task itself, which may have options of its own.
                registered.apply_async(task.args, task.kwargs, **options)
        except self._broker_errors:
            raise
        except Exception:
            logger.exception(
                "saga %s: task %s of its outbox cannot be sent; its row %d of saga_outbox stays",
                *(task.saga_id, task.task, task.id),
            )
            return
        sent.append(task.id)

    def _pool(self) -> ProducerPool:
        """Return this process's own pool of producers, so that their connections can have timeouts."""
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
        """Return the number of messages that wait in a queue.

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
        """The errors that the broker's library raises; kept, because making a connection at every start is slow."""
        connection = readable_connection(self.app)
        return (*connection.connection_errors, *connection.channel_errors, KombuError, OSError)


def _kwargs(claim: Claim) -> dict[str, Any]:
    queued_at = None if claim.queued_at is None else claim.queued_at.isoformat()
    return {"version": claim.version} if queued_at is None else {"version": claim.version, "queued_at": queued_at}


def readable_connection(app: Celery) -> Connection:
    """Return a connection that is not open yet.

    Raises:
        ConfigurationError: the URL cannot be read, or its transport cannot be loaded; the message quotes no part of the
        URL.
    """
    try:
        connection: Connection = app.connection_for_write()
        connection.transport  # noqa: B018  # loads the transport
    except Exception as error:
        # The error's message may contain a part of the URL, and so of a password.
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
    # Redis has no declared queues. For a passive declaration kombu looks for the key without `global_keyprefix`.
    passive = connection.transport.driver_type != "redis"
    try:
        return int(connection.default_channel.queue_declare(queue, passive=passive).message_count)
    except connection.channel_errors:
        return 0  # no such queue yet: no message was ever sent
