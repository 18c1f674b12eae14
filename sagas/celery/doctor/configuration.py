"""The application's settings that no option of a task can replace: do they fit sagas, the lease and the steps?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery import Celery
from celery.backends.base import DisabledBackend

from sagas.celery.application import SagaCelery, configured_application
from sagas.celery.broker_url import BrokerUrl
from sagas.celery.dispatch import broker_address
from sagas.celery.worker import unusable_settings
from sagas.doctor import Check, Finding, Installation, problem, warning
from sagas.duration import duration
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.urls import redacted

_PICKLE: Final = frozenset({"pickle", "application/x-python-serialize"})
#: kombu's, where broker_transport_options name none.
_VISIBILITY_SECONDS: Final = 3600
PICKLE_ACCEPTED: Final = problem(
    "pickle-accepted",
    what="pickled messages or results are accepted or sent",
    why="A pickle runs code when it is read: whoever can write to the broker, or to the result backend, runs what they "
    "like in every worker.",
    cure="Set accept_content and result_accept_content to ['json'], and task_serializer and result_serializer to "
    "'json'.",
)
VISIBILITY_TIMEOUT_SHORT: Final = warning(
    "visibility-timeout-short",
    what="Redis delivers a message again while its saga may still be running",
    why="A message is acknowledged when its saga has been brought on. Held for longer than the visibility timeout, it "
    "is given to another worker too. That copy names an older version and is skipped, so no step is run twice by it; "
    "but copies come again and again, and each takes a worker's time.",
    cure="Set visibility_timeout in broker_transport_options to 86400, or at least to {seconds:.0f}: the lease, and "
    "the timeouts of a saga's steps together.",
)
PREFETCH: Final = warning(
    "prefetch",
    what="a worker takes more messages than it can work on",
    why="What waits inside a worker behind a long step is not seen by scans: they take it for lost and send it again, "
    "while other workers are idle.",
    cure="Set worker_prefetch_multiplier to 1.",
)
SETTINGS_REFUSED: Final = problem(
    "celery-settings-refused",
    what="a worker with these settings of Celery refuses to start",
    why="Sagas would not run in it as promised. The worker's log has the same sentence.",
    cure="Correct the setting that is named.",
)
BROKER_DIFFERS: Final = warning(
    "broker-differs",
    what="SAGAS_BROKER_URL is set and not used",
    why="Sagas travel on the broker of the Celery application that they are installed in. Somebody may look for their "
    "messages in the other one.",
    cure="Leave SAGAS_BROKER_URL out, or set it to the application's broker.",
)
BROKER_UNSET: Final = warning(
    "broker-unset",
    what="no broker is named",
    why="Sagas are sent to a broker on this machine. If your own Celery application is to carry them, it does not.",
    cure="Call sagas.celery.install(app) where your application is made, and name it in SAGAS_CELERY_APP; without one, "
    "set SAGAS_BROKER_URL.",
)
RESULTS_MISSING: Final = warning(
    "results-missing",
    what="what tasks return is kept nowhere",
    why="`sagas.recover_saga` called by hand, through Flower or celery call, does not tell what it did.",
    cure="Set result_backend of your application, or SAGAS_RESULT_BACKEND for the sagas' own.",
)
LINK_UNWATCHED: Final = warning(
    "broker-link-unwatched",
    what="a cut link to the broker is not noticed",
    why="Where a network drops packets without a word, a worker waits for messages that cannot come, for hours.",
    cure="For Redis, set socket_timeout and health_check_interval in broker_transport_options; for RabbitMQ, "
    "broker_heartbeat to 60.",
)
CANCELLED_ON_LOSS: Final = warning(
    "cancelled-on-connection-loss",
    what="a worker that loses its broker ends the sagas that it runs",
    why="Their process is killed in the middle of a step. That counts as a crash: the step is in doubt and repeated.",
    cure="Set worker_cancel_long_running_tasks_on_connection_loss to False.",
)
REMOTE_CONTROL_OFF: Final = warning(
    "remote-control-off",
    what="workers do not answer questions",
    why="Neither this command nor Flower sees which workers there are, what they take and what they do.",
    cure="Set worker_enable_remote_control to True.",
)


def contradictions(app: Celery, settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Yield what is wrong with this application's settings, given the lease and the steps."""
    yield from _messages(app, settings)
    yield from _workers(app)
    yield from _links(app, settings, registry)


def _messages(app: Celery, settings: Settings) -> Iterator[Finding]:
    for sentence in unusable_settings(app):
        yield SETTINGS_REFUSED(sentence)
    if isinstance(app, SagaCelery) and "broker_url" not in settings.model_fields_set:
        yield BROKER_UNSET("neither SAGAS_BROKER_URL is set nor an application of yours has sagas.")
    if "broker_url" in settings.model_fields_set:
        used, named = _server(app, None), _server(app, settings.broker_url)
        if used != named:
            yield BROKER_DIFFERS(
                f"SAGAS_BROKER_URL is {redacted(settings.broker_url)}, and sagas travel on {broker_address(app)}."
            )
    for name in ("accept_content", "result_accept_content"):
        if pickles := _PICKLE.intersection(app.conf[name] or ()):
            yield PICKLE_ACCEPTED(f"{name} holds {min(pickles)!r}.")
    for name in ("task_serializer", "result_serializer"):
        if app.conf[name] in _PICKLE:
            yield PICKLE_ACCEPTED(f"{name} is {app.conf[name]!r}.")
    if isinstance(app.backend, DisabledBackend):
        yield RESULTS_MISSING("there is no result backend.")


def _server(app: Celery, url: str | None) -> tuple[object, ...]:
    """What two URLs of one server have in common, however they are written."""
    info = app.connection_for_write(url and BrokerUrl.parse(url, setting="SAGAS_BROKER_URL").url).info()
    return tuple(info[name] for name in ("transport", "hostname", "port", "virtual_host"))


def _workers(app: Celery) -> Iterator[Finding]:
    if (multiplier := app.conf.worker_prefetch_multiplier) != 1:
        yield PREFETCH(f"worker_prefetch_multiplier is {multiplier}{', no limit' if multiplier == 0 else ''}.")
    if app.conf.worker_cancel_long_running_tasks_on_connection_loss:
        yield CANCELLED_ON_LOSS("worker_cancel_long_running_tasks_on_connection_loss is on.")
    if not app.conf.worker_enable_remote_control:
        yield REMOTE_CONTROL_OFF("worker_enable_remote_control is off.")


def _links(app: Celery, settings: Settings, registry: Registry) -> Iterator[Finding]:
    options = app.conf.broker_transport_options
    match app.connection_for_write().transport.driver_type:
        case "redis":
            visibility = options.get("visibility_timeout", _VISIBILITY_SECONDS)
            longest = max(
                [settings.lease_seconds, *(sum(step.timeout or 0 for step in saga.steps) for saga in registry)]
            )
            if visibility < longest:
                yield VISIBILITY_TIMEOUT_SHORT(
                    f"visibility_timeout is {visibility:g} s, and a saga may hold its message for {duration(longest)}.",
                    seconds=longest,
                )
            if missing := [name for name in ("socket_timeout", "health_check_interval") if not options.get(name)]:
                yield LINK_UNWATCHED(f"broker_transport_options have no {' and no '.join(missing)}.")
        case "amqp":
            if not app.conf.broker_heartbeat:
                yield LINK_UNWATCHED("broker_heartbeat is off.")


def _configuration(installation: Installation) -> Iterator[Finding | str]:
    return contradictions(configured_application(), installation.settings, installation.registry)


CONFIGURATION: Final = Check(
    "configuration",
    _configuration,
    (
        SETTINGS_REFUSED,
        BROKER_DIFFERS,
        BROKER_UNSET,
        PICKLE_ACCEPTED,
        RESULTS_MISSING,
        PREFETCH,
        CANCELLED_ON_LOSS,
        REMOTE_CONTROL_OFF,
        VISIBILITY_TIMEOUT_SHORT,
        LINK_UNWATCHED,
    ),
    needs=("celery",),
)
