"""Celery's settings for sagas, each with its reason; whatever may differ between installations comes from `SAGAS_...`.

The engine's own settings (lease, attempts, backoff, limits) are the fields of `sagas.settings.Settings`, described
there and in docs/settings.md: programs that start sagas read them too, without Celery. A module of the same name in the
worker's own directory, or the one that CELERY_CONFIG_MODULE names, is used instead of this one; where sagas were
installed from a wheel, which holds this file as `tasks.celeryconfig`, let it begin by importing all of that.
"""

from celery.schedules import crontab
from kombu import Queue

from sagas.settings import Settings

_settings = Settings.from_environment()
_redis = _settings.broker_url.startswith(("redis", "rediss", "sentinel", "valkey"))

# -- broker ---------------------------------------------------------------------------------------------------------

# SAGAS_BROKER_URL. It may lose, repeat or delay every message: the database is the only truth.
broker_url = _settings.broker_url
# A worker that starts before its broker waits for it, and one whose broker went away comes back by itself, for ever.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# Starting a saga must not hang on a broker that is away: the row is committed, and a scan sends it later.
broker_connection_timeout = 2
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
if _redis:
    broker_transport_options = {
        # Redis gives a message that is not acknowledged in time to another worker. For a saga that is running the
        # copy is outdated and skipped, whatever the time; a day spares long steps even that.
        "visibility_timeout": 24 * 3600,
        # A link that drops packets is noticed in seconds, not never.
        "socket_connect_timeout": 2,
        "socket_timeout": 30,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # What `broker_connection_timeout` is for other brokers: give up soon when publishing.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
    }

# -- results --------------------------------------------------------------------------------------------------------

# SAGAS_RESULT_BACKEND. Only calls by hand (Flower, `celery call`) keep a result, for a day; scans and dispatches none.
result_backend = _settings.result_backend or (_settings.broker_url if _redis else None)
result_expires = 24 * 3600
if _redis:
    result_backend_transport_options = {"retry_policy": {"timeout": 5.0}}
    redis_socket_connect_timeout = 2
    redis_socket_timeout = 30
    redis_socket_keepalive = True
    redis_backend_health_check_interval = 10

# -- messages -------------------------------------------------------------------------------------------------------

# Never pickle: whoever can write to the broker must not be able to run code in a worker.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]
timezone = "UTC"
enable_utc = True

# -- queues ---------------------------------------------------------------------------------------------------------

# Scans travel on a queue of their own, so that no backlog of sagas delays them; sagas that never ran and sagas to be
# recovered on one each, so that a scan can tell from a queue's length whether messages were lost.
task_queues = (Queue("sagas.scan"), Queue("sagas.recover"), Queue("sagas.run"))
task_routes = {
    "sagas.scan": {"queue": "sagas.scan"},
    "sagas.prune": {"queue": "sagas.scan"},
    "sagas.recover_saga": {"queue": "sagas.recover"},
    "sagas.run_saga": {"queue": "sagas.run"},
}
task_default_queue = "sagas.recover"

# -- workers --------------------------------------------------------------------------------------------------------

# A message is acknowledged when its saga was brought on, and a worker takes no more than it can work on, and as many
# ahead only while sagas are quick (tasks.ahead): what it has not begun waits in the broker, where scans count it.
task_acks_late = True
worker_prefetch_multiplier = 1
# A message whose worker died is not sent again by Celery: the lease in the database decides who goes on, and when.
task_reject_on_worker_lost = False
# No time limits: a lease is renewed for as long as a step takes; bound a step by its own `timeout`.
task_time_limit = None
task_soft_time_limit = None
# A cold stop (SIGQUIT) first gives sagas this many seconds to reach the end of their step and be handed on.
worker_soft_shutdown_timeout = 10
# Celery sets logging up, as its users expect; what a step prints stays what it is, and is not turned into log lines.
worker_hijack_root_logger = True
worker_redirect_stdouts = False
# What Flower shows.
worker_send_task_events = True
task_send_sent_event = False
task_track_started = True

# -- beat -----------------------------------------------------------------------------------------------------------

# Celery's scheduler in memory, which sends no scan while one still waits: without workers none pile up.
beat_scheduler = "tasks.beat:SagaScheduler"
beat_max_loop_interval = min(5.0, _settings.scan_interval_seconds)
beat_schedule = {
    "sagas.scan": {
        "task": "sagas.scan",
        "schedule": _settings.scan_interval_seconds,  # SAGAS_SCAN_INTERVAL_SECONDS
        "options": {"ignore_result": True},
    },
}
if _settings.retention_days is not None:  # SAGAS_RETENTION_DAYS
    beat_schedule["sagas.prune"] = {
        "task": "sagas.prune",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"ignore_result": True},
    }
