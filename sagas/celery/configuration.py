"""Celery's settings for an application that runs nothing but sagas, each with its reason."""

from __future__ import annotations

from typing import Any, Final

from kombu.entity import Exchange, Queue

from sagas.celery.broker_url import BrokerUrl
from sagas.celery.names import QUEUES, RECOVER_QUEUE
from sagas.settings import Settings


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings for an application that runs nothing but sagas.

    Args:
        settings: the broker and where results are kept.

    Raises:
        ConfigurationError: one of the URLs asks for something that there is not.
    """
    broker = BrokerUrl.parse(settings.broker_url, setting="SAGAS_BROKER_URL")
    broker.check_options(setting="SAGAS_BROKER_URL")
    results = broker.first if broker.is_redis else None
    if settings.result_backend is not None:
        results = BrokerUrl.parse(settings.result_backend, setting="SAGAS_RESULT_BACKEND")
    values = _COMMON | {"broker_url": broker.url, "result_backend": results and results.url}
    if broker.is_redis:
        values |= {"broker_transport_options": _REDIS_BROKER | _master(broker), "broker_use_ssl": broker.tls}
    if results and results.is_redis:
        values |= _REDIS_RESULTS | {"redis_backend_use_ssl": results.tls}
        values["result_backend_transport_options"] = {"retry_policy": {"timeout": 5.0}, **_master(results)}
    return values


def _master(server: BrokerUrl) -> dict[str, str]:
    return {"master_name": server.master} if server.master else {}


_COMMON: Final[dict[str, Any]] = {
    # A worker that starts before its broker waits for it. One whose broker went away tries again for ever.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Starting a saga must not hang on a broker that is away: the saga is committed, and a scan sends it later.
    "broker_connection_timeout": 2,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
    # Only calls by hand (Flower, `celery call`) keep a result, for a day. Scans and dispatched sagas keep none.
    "result_expires": 24 * 3600,
    # Never pickle: whoever can write to the broker must not be able to run code in a worker.
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "timezone": "UTC",
    "enable_utc": True,
    # A worker takes all three queues unless `-Q` names some.
    "task_queues": tuple(Queue(name, Exchange(name), name) for name in QUEUES),
    "task_default_queue": RECOVER_QUEUE,
    # A worker takes no more messages than it can work on, and as many ahead only while sagas are quick: what it has
    # not begun waits in the broker, for whichever worker is free first.
    "worker_prefetch_multiplier": 1,
    # A cold stop (SIGQUIT) first gives sagas this many seconds to reach the end of their step and be handed over.
    "worker_soft_shutdown_timeout": 10,
    # Celery sets logging up, as its users expect. What a step prints is not turned into log lines.
    "worker_hijack_root_logger": True,
    "worker_redirect_stdouts": False,
    # What Flower shows.
    "worker_send_task_events": True,
    "task_send_sent_event": False,
    # In memory: Celery's default scheduler keeps its past in a file of pickles, and a scan has no past.
    "beat_scheduler": "celery.beat:Scheduler",
}

#: Of `broker_transport_options`.
_REDIS_BROKER: Final[dict[str, Any]] = {
    # Redis gives a message that is not acknowledged in time to another worker. For a saga that is running the copy is
    # outdated and skipped, whatever the time; a day spares long steps even that.
    "visibility_timeout": 24 * 3600,
    # A link that drops packets is noticed in seconds, not never.
    "socket_connect_timeout": 2,
    "socket_timeout": 30,
    "socket_keepalive": True,
    "health_check_interval": 10,
    # As `broker_connection_timeout` is for other brokers: publishing gives up soon.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}

_REDIS_RESULTS: Final[dict[str, Any]] = {
    # The same for the results of calls by hand.
    "redis_socket_connect_timeout": 2,
    "redis_socket_timeout": 30,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 10,
}
