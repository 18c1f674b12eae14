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
        settings: they name the broker and the result backend.

    Raises:
        ConfigurationError: one of the URLs has an option that does not exist.
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
    # A worker that starts before its broker waits for the broker. A worker that lost its broker reconnects for ever.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Starting a saga must not hang while the broker is away: the saga is committed, and a scan sends it later.
    "broker_connection_timeout": 2,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
    # Only manual calls (Flower, `celery call`) keep a result, for a day. Scans and dispatched sagas keep none.
    "result_expires": 24 * 3600,
    # Never pickle: write access to the broker must not allow running code in a worker.
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "timezone": "UTC",
    "enable_utc": True,
    # A worker consumes all three queues unless `-Q` names some.
    "task_queues": tuple(Queue(name, Exchange(name), name) for name in QUEUES),
    "task_default_queue": RECOVER_QUEUE,
    # A worker takes only as many messages as it can process, and prefetches as many again only while sagas are quick.
    # All other messages wait in the broker for the first worker that is free.
    "worker_prefetch_multiplier": 1,
    # On a cold stop (SIGQUIT), sagas have this many seconds to reach the end of their step and be handed over.
    "worker_soft_shutdown_timeout": 10,
    # Celery sets logging up, as its users expect. Output that a step prints is not turned into log lines.
    "worker_hijack_root_logger": True,
    "worker_redirect_stdouts": False,
    # Flower shows these.
    "worker_send_task_events": True,
    "task_send_sent_event": False,
    # Keep the schedule in memory: Celery's default scheduler writes its last runs to a file of pickles, and scans do
    # not need them.
    "beat_scheduler": "celery.beat:Scheduler",
}

#: For `broker_transport_options`.
_REDIS_BROKER: Final[dict[str, Any]] = {
    # Redis gives a message that is not acknowledged in time to another worker. If the saga still runs, the copy is
    # outdated and skipped. With a timeout of a day, long steps do not cause such copies.
    "visibility_timeout": 24 * 3600,
    # Notice within seconds that a link drops packets. Without these settings a worker never notices.
    "socket_connect_timeout": 2,
    "socket_timeout": 30,
    "socket_keepalive": True,
    "health_check_interval": 10,
    # Publishing fails after a few seconds, as `broker_connection_timeout` ensures for other brokers.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}

_REDIS_RESULTS: Final[dict[str, Any]] = {
    # The same limits for the results of manual calls.
    "redis_socket_connect_timeout": 2,
    "redis_socket_timeout": 30,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 10,
}
