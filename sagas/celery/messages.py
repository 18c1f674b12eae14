"""Keep a worker alive when a message cannot be understood: log the message, drop it and count it.

Celery drops some of these messages by itself (an unknown task, a body that cannot be decoded). Other ones end the
worker: their envelope is right but their content is not, or they are no messages at all. The broker then delivers them
to the next worker. This module drops all of them. The content of a message is never logged: on a wrong queue it may be
another application's secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any, Final

from celery import bootsteps
from celery.exceptions import InvalidTaskError
from celery.worker import state
from redis.exceptions import DataError, ResponseError

from sagas.api import current_engine
from sagas.celery.names import QUEUES
from sagas.celery.role import runs_only_sagas, runs_sagas
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: Maximal length of a name or an error in the log.
_CHARACTERS: Final = 200


class DropsMessages(bootsteps.StartStopStep):
    """Drops messages that a worker that runs sagas cannot understand, on each queue that it consumes."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        """Do not change a worker that runs no sagas."""
        return runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Guard the functions by which Celery handles a message."""
        self._passed: BaseException | None = None
        self._celerys_handler = consumer.create_task_handler
        consumer.create_task_handler = partial(self._create_task_handler, consumer)
        for name in ("on_unknown_message", "on_unknown_task", "on_invalid_task", "on_decode_error"):
            setattr(consumer, name, partial(_refused, consumer, getattr(consumer, name), name))

    def start(self, consumer: Any) -> None:
        """Guard the reader of Redis; called for every new connection, because each has its own reader."""
        cycle: Any = getattr(consumer.connection.transport, "cycle", None)
        if hasattr(cycle, "on_readable"):
            cycle.on_readable = partial(self._read, consumer, cycle, cycle.on_readable)

    def _create_task_handler(self, consumer: Any, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        handle = self._celerys_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            if not _is_ours(consumer, message):
                try:
                    handle(message)  # Celery handles the application's own messages as without sagas
                except Exception as error:
                    self._passed = error
                    raise
                return
            try:
                _check(message)
                handle(message)
            except Exception as error:
                if _is_not_of_the_message(consumer, message, error):
                    self._passed = error
                    raise
                _drop(consumer, message, error)

        return on_task_received

    def _read(self, consumer: Any, cycle: Any, celerys_own: Callable[[int], Any], descriptor: int) -> Any:
        try:
            return celerys_own(descriptor)
        except Exception as error:
            if error is self._passed or isinstance(error, (*_real_connection_errors(consumer), MemoryError, Empty)):
                raise
            if isinstance(error, ResponseError):
                channel, _ = cycle._fd_to_chan.get(descriptor, (None, None))
                if not (channel and str(error).startswith("WRONGTYPE") and _set_aside(channel)):
                    raise
            elif isinstance(error, consumer.conninfo.channel_errors) and not isinstance(error, DataError):
                raise
            else:
                _log_and_count("?", "it is not a message", error)
            return None


def _is_ours(consumer: Any, message: Any) -> bool:
    return _queue(message) in QUEUES or runs_only_sagas(consumer.app)


def _check(message: Any) -> None:
    """Check what Celery checks only after the message is with the pool, where an error is not blamed on the message.

    Raises:
        InvalidTaskError: the message cannot be for any task.
    """
    headers = message.headers
    if isinstance(headers, Mapping) and "task" not in headers:
        with suppress(Exception):  # Celery finds this error, too
            headers = message.payload  # the older protocol has these in the body
    if not isinstance(headers, Mapping) or "task" not in headers:
        return  # no task at all: Celery handles this case
    if not isinstance(headers.get("id"), str) or not isinstance(headers["task"], str):
        raise InvalidTaskError("its task or its id is not text")
    limits = headers.get("timelimit") or (None, None)
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        raise InvalidTaskError("its time limits are not a pair")
    if not all(limit is None or (isinstance(limit, int | float) and limit >= 0) for limit in limits):
        raise InvalidTaskError("its time limits are not seconds")


def _is_not_of_the_message(consumer: Any, message: Any, error: Exception) -> bool:
    """Whether the message is not the cause: Celery's connection failed, or a task that had already begun."""
    if isinstance(error, (*_real_connection_errors(consumer), MemoryError)):
        return True
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    begun = state.requests.get(str(headers.get("id")))
    return begun is not None and begun.message is message


def _real_connection_errors(consumer: Any) -> tuple[type[BaseException], ...]:
    # With Redis, Celery counts KeyError as a connection error, but a message without its parts raises KeyError, too.
    return tuple(kind for kind in consumer.conninfo.connection_errors if not issubclass(kind, LookupError))


def _refused(consumer: Any, celerys_own: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """Drop a message of our queues that Celery refuses; leave messages of the application's queues to Celery."""
    message = arguments[0] if name == "on_decode_error" else arguments[1]
    error = arguments[-1] if isinstance(arguments[-1], BaseException) else None
    if not _is_ours(consumer, message):
        return celerys_own(*arguments)
    _drop(consumer, message, error)
    return None


def _drop(consumer: Any, message: Any, error: BaseException | None) -> None:
    _log_and_count(_queue(message), _described(message), error)
    if not message.acknowledged:
        message.reject_log_error(logger, consumer.connection_errors)


def _log_and_count(queue: str, what: str, error: BaseException | None = None) -> None:
    why = "" if error is None else f" ({_short(f'{type(error).__name__}: {error}')})"
    logger.error("dropped a message of the queue %s, which cannot be understood: %s%s", queue, what, why)
    observer = current_engine().runtime().observer
    if observer is not None:
        observer.message_dropped(queue)


def _described(message: Any) -> str:
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    size = len(message.body) if isinstance(message.body, str | bytes) else 0
    name = headers.get("task", "none")
    return f"task {_short(name)}, id {_short(headers.get('id', 'none'))}, {_short(message.content_type)}, {size} bytes"


def _short(text: object) -> str:
    """Return the text on one line, escaped and cut."""
    return ascii(str(text))[1:-1][:_CHARACTERS]


def _queue(message: Any) -> str:
    info = message.delivery_info if isinstance(message.delivery_info, Mapping) else {}
    return str(info.get("routing_key"))


def _set_aside(channel: Any) -> bool:
    """Rename keys that have a queue's name but are no queue, so that the queue works again; return whether any did."""
    found = False
    with channel.conn_or_acquire() as client:
        for queue in set(QUEUES).intersection(channel.active_queues):
            for key in {channel._q_for_pri(queue, priority) for priority in channel.priority_steps}:
                name = channel.global_keyprefix + key
                kind = client.type(name).decode()
                if kind not in ("list", "none"):
                    client.rename(name, f"{name}.not-a-queue")
                    _log_and_count(queue, f"a {kind} has its key, and is now named {_short(name)}.not-a-queue")
                    found = True
    return found
