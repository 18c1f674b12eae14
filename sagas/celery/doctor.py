"""Checks of the Celery side; `sagas.doctor` finds them by the entry point `sagas.doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from celery import Celery

from sagas.celery import inspection
from sagas.celery.application import configured_application
from sagas.celery.dispatch import CeleryDispatcher, broker_address, readable_connection
from sagas.celery.names import QUEUES, ROUTES
from sagas.celery.worker import unusable_settings
from sagas.definition import AnySaga, steps_of
from sagas.doctor import CELERY_UNUSABLE, Check, Finding, Installation, problem, warning
from sagas.duration import duration
from sagas.errors import BrokerUnavailable
from sagas.urls import address

#: Every live worker answers from its main process, whatever its children do.
_ANSWER_SECONDS: Final = 3.0
_PICKLE: Final = frozenset({"pickle", "application/x-python-serialize"})
#: kombu's default for Redis.
_VISIBILITY_SECONDS: Final = 3600

SETTINGS_REFUSED: Final = problem(
    "celery-settings-refused",
    what="a worker with these settings of Celery refuses to start",
    why="Sagas would not run in it as promised. The worker's log has the same message.",
    cure="Correct the setting in the message.",
)
PICKLE_ACCEPTED: Final = problem(
    "pickle-accepted",
    what="pickled messages or results are accepted or sent",
    why="Reading a pickle runs code. Anyone who can write to the broker or the result backend can run code in every "
    "worker.",
    cure="Set accept_content and result_accept_content to ['json'], and task_serializer and result_serializer to "
    "'json'.",
)
PREFETCH: Final = warning(
    "prefetch",
    what="a worker takes more messages than it can process",
    why="Sagas wait behind a long step while other workers are idle. Scans take their messages for lost and send them "
    "again.",
    cure="Set worker_prefetch_multiplier to 1.",
)
CANCELLED_ON_LOSS: Final = warning(
    "cancelled-on-connection-loss",
    what="a worker that loses the broker kills the sagas that it runs",
    why="Each counts as a crash: the step is in doubt and runs again, and an attempt is spent.",
    cure="Set worker_cancel_long_running_tasks_on_connection_loss to False.",
)
VISIBILITY_TIMEOUT_SHORT: Final = warning(
    "visibility-timeout-short",
    what="Redis delivers a message again while its saga may still be running",
    why="A message is acknowledged after its saga. When the visibility timeout ends first, another worker gets the "
    "message too. It skips it, because the version is outdated, so no step runs twice; but this repeats, and each copy "
    "takes a worker's time.",
    cure="Set visibility_timeout in broker_transport_options to 86400, or at least to {seconds:.0f}: the lease, or the "
    "timeouts of a saga's steps together, whichever is longer.",
)
LINK_UNWATCHED: Final = warning(
    "broker-link-unwatched",
    what="a worker does not notice that its connection to the broker is cut",
    why="Where a network drops packets silently, the worker waits for hours and runs nothing.",
    cure="For Redis, set socket_timeout and health_check_interval in broker_transport_options. For RabbitMQ, set "
    "broker_heartbeat to 60.",
)
BROKER_DOWN: Final = problem(
    "broker-down",
    what="the broker does not answer",
    why="No message reaches a worker. Starting sagas still succeeds: they are stored, and run once the broker is back.",
    cure="Check that the broker runs at {address} and accepts this user and password, or correct SAGAS_BROKER_URL. If "
    "a Celery application of yours carries sagas, name it in SAGAS_CELERY_APP.",
)
NO_WORKER: Final = problem(
    "no-worker",
    what="no worker answers",
    why="Sagas are stored, and nothing runs them. A worker in a long step with `-P solo`, or with "
    "worker_enable_remote_control off, does not answer either.",
    cure="Start `celery -A sagas worker` with the SAGAS_BROKER_URL of this environment, and read its log if it ends.",
)
QUEUE_WITHOUT_WORKER: Final = problem(
    "queue-without-worker",
    what="no worker consumes a queue of sagas",
    why="`sagas.scan` carries scans, `sagas.run` new sagas, `sagas.recover` sagas to continue. Messages in a queue "
    "without a worker wait forever.",
    cure="Start `celery -A sagas worker`, which consumes all three, or add {queue} to the -Q of a worker.",
)
TASKS_MISSING: Final = problem(
    "tasks-missing",
    what="a worker consumes a queue of sagas and does not know their tasks",
    why="It discards the messages. Scans send them again, perhaps to the same worker.",
    cure="Start {worker} as `celery -A sagas worker`, or remove the queues of sagas from its -Q.",
)
WORKER_ELSEWHERE: Final = problem(
    "worker-elsewhere",
    what="a worker uses another database",
    why="It gets messages of sagas that its database does not have, and runs none of them.",
    cure="Start {worker} with the SAGAS_DATABASE_URL of this environment, or run `sagas doctor` with the worker's.",
)


def _application(_: Installation) -> Iterator[Finding | str]:
    try:
        readable_connection(configured_application())
    except (Exception, SystemExit) as error:  # the user's module runs here
        yield CELERY_UNUSABLE.seen(f"the Celery application cannot be loaded: {type(error).__name__}: {error}.")


def configuration(app: Celery, installation: Installation) -> Iterator[Finding | str]:
    """Check the settings of the application that the options of the sagas' tasks cannot override."""
    for sentence in unusable_settings(app):
        yield SETTINGS_REFUSED.seen(sentence)
    for name in ("accept_content", "result_accept_content", "task_serializer", "result_serializer"):
        value = app.conf[name] or ()
        if _PICKLE.intersection([value] if isinstance(value, str) else value):
            yield PICKLE_ACCEPTED.seen(f"{name} is {value!r}.")
    if (multiplier := app.conf.worker_prefetch_multiplier) != 1:
        yield PREFETCH.seen(f"worker_prefetch_multiplier is {multiplier}{', no limit' if multiplier == 0 else ''}.")
    if app.conf.worker_cancel_long_running_tasks_on_connection_loss:
        yield CANCELLED_ON_LOSS.seen("worker_cancel_long_running_tasks_on_connection_loss is on.")
    options, transport = app.conf.broker_transport_options, app.connection_for_write().transport.driver_type
    if transport == "redis":
        visible = options.get("visibility_timeout", _VISIBILITY_SECONDS)
        durations = [_seconds(saga) for saga in installation.registry]
        longest = max([installation.settings.lease_seconds, *durations])
        if visible < longest:
            message = f"visibility_timeout is {visible:g} s, and a saga may hold its message for {duration(longest)}."
            yield VISIBILITY_TIMEOUT_SHORT.seen(message, seconds=longest)
        if missing := [name for name in ("socket_timeout", "health_check_interval") if not options.get(name)]:
            yield LINK_UNWATCHED.seen(f"broker_transport_options have no {' and no '.join(missing)}.")
    elif transport == "amqp" and not app.conf.broker_heartbeat:
        yield LINK_UNWATCHED.seen("broker_heartbeat is off.")


def _seconds(saga: AnySaga) -> float:
    """How long the steps of a saga may take in all, as far as their timeouts say."""
    return sum(step.timeout or 0 for step in steps_of(saga))


def broker(app: Celery) -> Iterator[Finding | str]:
    """Check that the broker answers."""
    where, dispatcher = broker_address(app), CeleryDispatcher(app)
    try:
        lengths = [f"{dispatcher.length(queue)} in {queue}" for queue in QUEUES]
    except BrokerUnavailable as error:
        yield BROKER_DOWN.seen(str(error), address=where)
        return
    yield f"{where} answers; waiting: {', '.join(lengths)}"


def workers(app: Celery, installation: Installation, *, seconds: float = _ANSWER_SECONDS) -> Iterator[Finding | str]:
    """Check that workers consume every queue of sagas, know the tasks, and use this database.

    Args:
        app: the application whose broker is used.
        installation: names the database.
        seconds: how long to wait for answers.
    """
    consumed = {
        worker: {queue["name"] for queue in queues} & {*QUEUES}
        for worker, queues in (app.control.inspect(timeout=seconds).active_queues() or {}).items()
    }
    if not consumed:
        yield NO_WORKER.seen(f"no worker answered within {seconds:g} s.")
        return
    ours = sorted(worker for worker, queues in consumed.items() if queues)
    yield f"{len(consumed)} answer; on queues of sagas: {', '.join(ours) or 'none'}"
    for queue in QUEUES:
        if not any(queue in queues for queues in consumed.values()):
            yield QUEUE_WITHOUT_WORKER.seen(f"no worker consumes {queue}.", queue=queue)
    # Ask workers by name, so that the call returns as soon as all have answered.
    registered = app.control.inspect(ours, timeout=seconds).registered() if ours else {}
    question, here = inspection.sagas_settings.__name__, address(sa.make_url(installation.settings.database_url))
    answers = app.control.broadcast(question, reply=True, destination=ours, timeout=seconds) if ours else []
    databases = {worker: answer.get("database") for each in answers or () for worker, answer in each.items()}
    for worker in ours:
        known = {task.split()[0] for task in (registered or {}).get(worker, ROUTES)}
        if missing := [task for task in ROUTES if task not in known]:
            yield TASKS_MISSING.seen(f"{worker} does not know {', '.join(missing)}.", worker=worker)
        if (there := databases.get(worker) or here) != here:
            message = f"{worker} uses the database at {there}, and this environment names {here}."
            yield WORKER_ELSEWHERE.seen(message, worker=worker)


CELERY: Final = Check("celery", _application, (CELERY_UNUSABLE,), needs=("settings",), seconds=20)
CONFIGURATION: Final = Check(
    "configuration",
    lambda installation: configuration(configured_application(), installation),
    (SETTINGS_REFUSED, PICKLE_ACCEPTED, PREFETCH, CANCELLED_ON_LOSS, VISIBILITY_TIMEOUT_SHORT, LINK_UNWATCHED),
    needs=("celery",),
)
BROKER: Final = Check("broker", lambda _: broker(configured_application()), (BROKER_DOWN,), needs=("celery",))
WORKERS: Final = Check(
    "workers",
    lambda installation: workers(configured_application(), installation),
    (NO_WORKER, QUEUE_WITHOUT_WORKER, TASKS_MISSING, WORKER_ELSEWHERE),
    needs=("broker",),
    seconds=15,  # it asks three questions
)


def load_checks() -> tuple[Check, ...]:
    """Return the checks, in order."""
    return CELERY, CONFIGURATION, BROKER, WORKERS
