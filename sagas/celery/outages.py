"""Keep a worker alive while its broker is away, and reconnect soon: one bootstep for every pool and broker.

Celery closes a lost connection twice. With Redis the first attempt can fail half-way. The second one then finds a
transport without its parts and raises AttributeError, which ends the worker. The same can happen to an acknowledgement
after the connection was lost. Neither error needs to end a worker: the database stores which sagas run, and the broker
delivers unacknowledged messages again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from celery import bootsteps
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport import virtual

from sagas.celery.role import runs_sagas
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How a worker retries to connect while its broker is away. Celery itself waits up to 30 s between two attempts.
RECONNECTING: Final = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}


def reconnect_soon(connection: Any) -> None:
    """Have this connection wait only seconds between two attempts, if Celery sets no other interval."""
    connection.ensure_connection = partial(connection.ensure_connection, **RECONNECTING)


class OutlivesOutages(bootsteps.Step):
    """Keeps a worker that runs sagas alive while its broker is away, and reconnects within seconds."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        """Do not change a worker that runs no sagas."""
        return runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Guard the functions that Celery calls when the connection is lost."""
        consumer.on_connection_error_after_connected = partial(
            _lose_connection, consumer, consumer.on_connection_error_after_connected
        )
        # A server that answers and refuses, such as a replica after a failover, counts as an outage, too: reconnect.
        consumer.connection_errors += consumer.channel_errors
        consumer.ensure_connected = partial(_connect_soon, consumer.ensure_connected)
        # Celery before 5.7 uses the second one, for example to acknowledge.
        name = "call_soon_ack" if hasattr(consumer, "call_soon_ack") else "call_soon"
        setattr(consumer, name, partial(_settle, consumer, getattr(consumer, name)))


def _lose_connection(consumer: Any, celerys_own: Callable[[BaseException], None], error: BaseException) -> None:
    connection = consumer.connection
    for channel in getattr(connection.transport, "channels", ()):
        # Redis: closing would first read an answer that never comes, and would fail before it has closed anything.
        channel._in_poll = None
    # Without this, an error that is not the transport's own would end the worker.
    connection.maybe_close_channel = _close_channel  # the guard is for this connection only
    celerys_own(error)


def _close_channel(channel: Any) -> None:
    with suppress(Exception):
        channel.close()


def _connect_soon(celerys_own: Callable[[Connection], Connection], connection: Connection) -> Connection:
    reconnect_soon(connection)
    return celerys_own(connection)


def _settle(consumer: Any, celerys_own: Callable[..., Any], settle: Any, *arguments: Any) -> Any:
    message = getattr(settle, "__self__", None)
    if not isinstance(message, Message):
        return celerys_own(settle, *arguments)

    def settle_or_forget() -> None:
        try:
            settle(*arguments)
        except consumer.connection_errors:
            raise  # Celery reconnects
        except Exception as error:
            logger.warning("a message was not acknowledged, because its connection to the broker is gone: %r", error)
        if not message.acknowledged:
            _forget(message)

    return celerys_own(settle_or_forget)


def _forget(message: Message) -> None:
    # Redis: otherwise the message would count as unacknowledged for ever. When the prefetch limit is full of such
    # messages, the worker requests no more messages, and so never notices that its connection is lost.
    qos = getattr(message.channel, "qos", None)
    if isinstance(qos, virtual.QoS):
        virtual.QoS.ack(qos, message.delivery_tag)
