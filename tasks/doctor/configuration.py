"""Celery's settings, in force after the user's own module: do they contradict each other, the lease, or the steps?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery import Celery

from sagas.definition import Step
from sagas.doctor import Check, Finding, Installation, problem, warning
from sagas.duration import duration
from sagas.registry import Registry
from sagas.settings import Settings
from tasks import saga_tasks
from tasks.application import app as application
from tasks.dispatch import QUEUES, TASKS

_PICKLE: Final = frozenset({"pickle", "application/x-python-serialize"})
#: kombu's, where broker_transport_options name none.
_VISIBILITY_SECONDS: Final = 3600
#: Task → the queue that it must be sent to.
_ROUTES: Final = {
    saga_tasks.scan.name: "sagas.scan",
    saga_tasks.prune.name: "sagas.scan",
    **{TASKS[pending]: QUEUES[pending] for pending in TASKS},
}
_SCHEDULER: Final = "tasks.beat:SagaScheduler"
_ALL_OF_OURS: Final = (
    "Begin the module that CELERY_CONFIG_MODULE names with `from tasks.celeryconfig import *`, and do not set it after."
)

PICKLE_ACCEPTED: Final = problem(
    "pickle-accepted",
    what="pickled messages or results are accepted or sent",
    why="A pickle runs code when it is read: whoever can write to the broker, or to the result backend, runs what they "
    "like in every worker.",
    cure="Set accept_content and result_accept_content to ['json'], and task_serializer and result_serializer to "
    "'json'.",
)
ROUTE_LOST: Final = problem(
    "route-lost",
    what="a task of sagas is sent to another queue",
    why="Scans count what waits in the queues of sagas, and no worker of sagas takes another queue: beat's scans and "
    "calls by hand go astray, or wait behind a backlog.",
    cure=_ALL_OF_OURS,
)
SCAN_NOT_SCHEDULED: Final = problem(
    "scan-not-scheduled",
    what="beat's schedule has no scan",
    why="Nobody takes over the sagas of a worker that dies, tries again what failed, or sends what the broker lost.",
    cure="Keep the entry of `sagas.scan`: add to beat_schedule of tasks.celeryconfig instead of replacing it.",
)
BEAT_SCHEDULER: Final = warning(
    "beat-scheduler",
    what="beat uses another scheduler",
    why="It sends a scan although the last one still waits. Without a worker, scans pile up, and are all run at once "
    "when one comes back.",
    cure="Set beat_scheduler to 'tasks.beat:SagaScheduler', or take an own beat for sagas (`celery -A tasks beat`).",
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
TIME_LIMIT: Final = warning(
    "time-limit",
    what="Celery kills tasks that run longer than a hard time limit",
    why="One task runs all the steps of a saga, however many. A saga that is killed is taken for one that crashed its "
    "worker: its step is in doubt and is repeated, and after the last attempt it is dead.",
    cure="Set task_time_limit to None, and bound a step by its own `timeout`.",
)
TIME_LIMIT_BELOW_TIMEOUT: Final = problem(
    "time-limit-below-timeout",
    what="a step's timeout is longer than the hard time limit",
    why="Celery kills the worker's child before the step's own timeout can tell it: the step is repeated, and killed "
    "again, until the saga is dead.",
    cure="Set task_time_limit to None, or lower the `timeout` of {step} below it.",
)
ACKS_EARLY: Final = warning(
    "acks-early",
    what="messages are acknowledged before their sagas were brought on",
    why="A worker takes more of them than it can work on, and they are lost with it: their sagas wait until scans find "
    "the messages missing, about 15 seconds.",
    cure="Set task_acks_late to True.",
)
REJECT_ON_WORKER_LOST: Final = warning(
    "reject-on-worker-lost",
    what="Celery sends the message of a worker that died again",
    why="The lease in the database decides who goes on, and when. The message sent again names an older version and is "
    "skipped, or competes with the scan.",
    cure="Set task_reject_on_worker_lost to False.",
)
PREFETCH: Final = warning(
    "prefetch",
    what="a worker takes more messages than it can work on",
    why="What waits inside a worker behind a long step is not seen by scans: they take it for lost and send it again, "
    "while other workers are idle.",
    cure="Set worker_prefetch_multiplier to 1.",
)
RESULTS_MISSING: Final = warning(
    "results-missing",
    what="what tasks return is kept nowhere",
    why="`sagas.recover_saga` called by hand, through Flower or celery call, does not tell what it did.",
    cure="Set SAGAS_RESULT_BACKEND, for example to redis://localhost:6379/1, and task_ignore_result to False.",
)
LINK_UNWATCHED: Final = warning(
    "broker-link-unwatched",
    what="a cut link to the broker is not noticed",
    why="Where a network drops packets without a word, a worker waits for messages that cannot come, for hours.",
    cure="For Redis, set socket_timeout and health_check_interval in broker_transport_options; for RabbitMQ, "
    "broker_heartbeat to 60.",
)
REMOTE_CONTROL_OFF: Final = warning(
    "remote-control-off",
    what="workers do not answer questions",
    why="Neither this command nor Flower sees which workers there are, what they take and what they do.",
    cure="Set worker_enable_remote_control to True.",
)


def contradictions(app: Celery, settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Yield what is wrong with this application's settings, given the lease and the steps."""
    yield from _messages(app)
    yield from _routes(app)
    yield from _beat(app)
    yield from _time_limits(app, registry)
    yield from _workers(app)
    yield from _links(app, settings, registry)


def _messages(app: Celery) -> Iterator[Finding]:
    for name in ("accept_content", "result_accept_content"):
        if pickles := _PICKLE.intersection(app.conf[name] or ()):
            yield PICKLE_ACCEPTED(f"{name} holds {min(pickles)!r}.")
    for name in ("task_serializer", "result_serializer"):
        if app.conf[name] in _PICKLE:
            yield PICKLE_ACCEPTED(f"{name} is {app.conf[name]!r}.")
    if not app.conf.result_backend:
        yield RESULTS_MISSING("there is no result backend.")
    elif app.conf.task_ignore_result:
        yield RESULTS_MISSING("task_ignore_result is on.")


def _routes(app: Celery) -> Iterator[Finding]:
    for task, queue in _ROUTES.items():
        sent_to = app.amqp.router.route({}, task)["queue"]
        if sent_to.name != queue:
            yield ROUTE_LOST(f"{task} is sent to the queue {sent_to.name}, and belongs into {queue}.")


def _beat(app: Celery) -> Iterator[Finding]:
    if not any(entry["task"] == saga_tasks.scan.name for entry in app.conf.beat_schedule.values()):
        yield SCAN_NOT_SCHEDULED(f"none of the {len(app.conf.beat_schedule)} entries of beat_schedule is a scan.")
    if app.conf.beat_scheduler != _SCHEDULER:
        yield BEAT_SCHEDULER(f"beat_scheduler is {app.conf.beat_scheduler}.")


def _time_limits(app: Celery, registry: Registry) -> Iterator[Finding]:
    limit = app.conf.task_time_limit
    if limit is None:
        return
    yield TIME_LIMIT(f"task_time_limit is {limit:g} s.")
    for step in _steps(registry):
        if step.timeout is not None and step.timeout > limit:
            yield TIME_LIMIT_BELOW_TIMEOUT(
                f"{step.__name__} may take {step.timeout:g} s, and task_time_limit is {limit:g} s.", step=step.__name__
            )


def _workers(app: Celery) -> Iterator[Finding]:
    if not app.conf.task_acks_late:
        yield ACKS_EARLY("task_acks_late is off.")
    if app.conf.task_reject_on_worker_lost:
        yield REJECT_ON_WORKER_LOST("task_reject_on_worker_lost is on.")
    if (multiplier := app.conf.worker_prefetch_multiplier) != 1:
        yield PREFETCH(f"worker_prefetch_multiplier is {multiplier}{', no limit' if multiplier == 0 else ''}.")
    if not app.conf.worker_enable_remote_control:
        yield REMOTE_CONTROL_OFF("worker_enable_remote_control is off.")


def _links(app: Celery, settings: Settings, registry: Registry) -> Iterator[Finding]:
    options = app.conf.broker_transport_options
    match app.connection_for_write().transport.driver_type:
        case "redis":
            visibility = options.get("visibility_timeout", _VISIBILITY_SECONDS)
            longest = max([settings.lease_seconds, *(sum(s.timeout or 0 for s in saga.steps) for saga in registry)])
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


def _steps(registry: Registry) -> Iterator[type[Step[object]]]:
    yield from dict.fromkeys(step for saga in registry for step in saga.steps)


def _configuration(installation: Installation) -> Iterator[Finding | str]:
    return contradictions(application, installation.settings, installation.registry)


CONFIGURATION: Final = Check(
    "configuration",
    _configuration,
    (
        PICKLE_ACCEPTED,
        RESULTS_MISSING,
        ROUTE_LOST,
        SCAN_NOT_SCHEDULED,
        BEAT_SCHEDULER,
        TIME_LIMIT,
        TIME_LIMIT_BELOW_TIMEOUT,
        ACKS_EARLY,
        REJECT_ON_WORKER_LOST,
        PREFETCH,
        REMOTE_CONTROL_OFF,
        VISIBILITY_TIMEOUT_SHORT,
        LINK_UNWATCHED,
    ),
    needs=("celery",),
)
