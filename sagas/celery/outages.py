"""What keeps a worker alive, and soon back, when its broker goes away: one bootstep for every pool and broker.

Celery closes a lost connection twice. With Redis the first attempt can fail half-way, and the second then meets a
transport that is dismantled: AttributeError, which ends the worker. The same can happen to an acknowledgement that
comes after the connection was lost. Neither is worth a worker: the database knows what runs, and the broker delivers
again what was not acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from celery import Celery, bootsteps
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport import virtual

from sagas.celery.role import runs_sagas
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How a worker asks for its broker while that is away. Celery's own way waits up to 30 s between two attempts.
RECONNECTING: Final = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}


def register(app: Celery) -> None:
    """Have workers of this application that run sagas outlive outages."""
    app.steps["consumer"].add(OutlivesOutages)


def reconnect_soon(connection: Any) -> None:
    """Have this connection wait only seconds between two attempts, wherever Celery leaves that to it."""
    connection.ensure_connection = partial(connection.ensure_connection, **RECONNECTING)


class OutlivesOutages(bootsteps.Step):
    """Keeps a worker that runs sagas alive in an outage of its broker, and reconnects it within seconds."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        """Leave a worker alone that runs no sagas."""
        return runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Put guards around what Celery calls when the connection is lost."""
        consumer.on_connection_error_after_connected = partial(
            _lose_connection, consumer, consumer.on_connection_error_after_connected
        )
        # A server that answers and refuses, such as a replica after a failover, is an outage too: connect again.
        consumer.connection_errors += consumer.channel_errors
        consumer.ensure_connected = partial(_connect_soon, consumer.ensure_connected)
        # The second is for Celery before 5.7, which acknowledges among other things by it.
        name = "call_soon_ack" if hasattr(consumer, "call_soon_ack") else "call_soon"
        setattr(consumer, name, partial(_settle, consumer, getattr(consumer, name)))


def _lose_connection(consumer: Any, celerys_own: Callable[[BaseException], None], error: BaseException) -> None:
    connection = consumer.connection
    for channel in getattr(connection.transport, "channels", ()):
        # Redis: closing would begin by reading an answer that never comes, and fail before it has closed anything.
        channel._in_poll = None
    # Else an error of another kind than the transport's own would end the worker.
    connection.maybe_close_channel = _close_channel  # of this connection only
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
    # Redis: else it would take up one of the places for messages for ever, and when all are taken, the worker asks for
    # no more messages and so never learns that its connection is lost.
    qos = getattr(message.channel, "qos", None)
    if isinstance(qos, virtual.QoS):
        virtual.QoS.ack(qos, message.delivery_tag)
