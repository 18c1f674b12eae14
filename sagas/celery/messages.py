"""No message ends a worker: one that cannot be understood is logged, dropped and counted.

Celery drops some of them by itself (an unknown task, a body that cannot be decoded). It ends on others, whose envelope
is right and whose content is not, or that are no message at all; the broker then hands them to the next worker. Here
all of them are dropped. What a message holds is not logged: on a wrong queue it may be another application's secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any, Final

from celery import Celery, bootsteps
from celery.exceptions import InvalidTaskError
from celery.worker import state
from redis.exceptions import DataError, ResponseError

from sagas.api import current_engine
from sagas.celery.names import QUEUES
from sagas.celery.role import runs_only_sagas, runs_sagas
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How much of a name or an error is logged at most.
_CHARACTERS: Final = 200


def register(app: Celery) -> None:
    """Have workers of this application that run sagas drop what they cannot understand."""
    app.steps["consumer"].add(DropsMessages)


class DropsMessages(bootsteps.StartStopStep):
    """Drops what a worker that runs sagas cannot understand, on any queue that it reads."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        """Leave a worker alone that runs no sagas."""
        return runs_sagas(consumer.app)

    def create(self, consumer: Any) -> None:
        """Put guards around what Celery does with a message."""
        self._passed: BaseException | None = None
        self._celerys_handler = consumer.create_task_handler
        consumer.create_task_handler = partial(self._create_task_handler, consumer)
        for name in ("on_unknown_message", "on_unknown_task", "on_invalid_task", "on_decode_error"):
            setattr(consumer, name, partial(_refused, consumer, getattr(consumer, name), name))

    def start(self, consumer: Any) -> None:
        """Put a guard around reading from Redis; with every new connection, which has a reader of its own."""
        cycle: Any = getattr(consumer.connection.transport, "cycle", None)
        if hasattr(cycle, "on_readable"):
            cycle.on_readable = partial(self._read, consumer, cycle, cycle.on_readable)

    def _create_task_handler(self, consumer: Any, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        handle = self._celerys_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            if not _is_ours(consumer, message):
                try:
                    handle(message)  # what Celery does with the application's messages is the application's matter
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
                _log_and_count("?", "it is no message", error)
            return None


def _is_ours(consumer: Any, message: Any) -> bool:
    return _queue(message) in QUEUES or runs_only_sagas(consumer.app)


def _check(message: Any) -> None:
    """Find what Celery would only stumble over when the message is with the pool, where an error is not the message's.

    Raises:
        InvalidTaskError: the message can have no task.
    """
    headers = message.headers
    if isinstance(headers, Mapping) and "task" not in headers:
        with suppress(Exception):  # Celery meets it, too
            headers = message.payload  # of the protocol before, where these are in the body
    if not isinstance(headers, Mapping) or "task" not in headers:
        return  # no task at all: Celery sees to it
    if not isinstance(headers.get("id"), str) or not isinstance(headers["task"], str):
        raise InvalidTaskError("its task or its id is no text")
    limits = headers.get("timelimit") or (None, None)
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        raise InvalidTaskError("its time limits are no pair")
    if not all(limit is None or (isinstance(limit, int | float) and limit >= 0) for limit in limits):
        raise InvalidTaskError("its time limits are no seconds")


def _is_not_of_the_message(consumer: Any, message: Any, error: Exception) -> bool:
    """Whether Celery failed at something else: its connections, or a task that it has begun already."""
    if isinstance(error, (*_real_connection_errors(consumer), MemoryError)):
        return True
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    begun = state.requests.get(str(headers.get("id")))
    return begun is not None and begun.message is message


def _real_connection_errors(consumer: Any) -> tuple[type[BaseException], ...]:
    # Of Redis, Celery counts KeyError among them, which is what a message without its parts raises.
    return tuple(kind for kind in consumer.conninfo.connection_errors if not issubclass(kind, LookupError))


def _refused(consumer: Any, celerys_own: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """Drop a message of our queues that Celery refuses; what it does with the host's messages is the host's."""
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
    """Return it on one line, escaped and cut."""
    return ascii(str(text))[1:-1][:_CHARACTERS]


def _queue(message: Any) -> str:
    info = message.delivery_info if isinstance(message.delivery_info, Mapping) else {}
    return str(info.get("routing_key"))


def _set_aside(channel: Any) -> bool:
    """Rename keys that have a queue's name and are no queue, so that the queue works again; False: there is none."""
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
