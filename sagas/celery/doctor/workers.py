"""Is there a worker for every queue, with our tasks, and with the settings that this environment has?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from celery import Celery

from sagas.celery import inspection
from sagas.celery.application import configured_application
from sagas.celery.names import QUEUES, ROUTES
from sagas.doctor import Check, Finding, Installation, problem, warning

#: Every worker that is alive answers from its main process, whatever its children do.
_ANSWER_SECONDS: Final = 3.0

NO_WORKER: Final = problem(
    "no-worker",
    what="no worker answers",
    why="Sagas are stored, and nobody runs them. (A worker with `-P solo` in a long step, or without remote control, "
    "does not answer either.)",
    cure="Start `celery -A sagas worker`, with SAGAS_BROKER_URL as here, and read its log if it ends.",
)
QUEUE_WITHOUT_WORKER: Final = problem(
    "queue-without-worker",
    what="a queue has no worker",
    why="`sagas.scan` carries scans, `sagas.run` the sagas that start, `sagas.recover` those that go on: what is in a "
    "queue without a worker waits for ever.",
    cure="Start a worker that takes it: `celery -A sagas worker` takes all three, or name {queue} after its -Q.",
)
TASKS_MISSING: Final = problem(
    "tasks-missing",
    what="a worker takes our queues and does not know our tasks",
    why="It throws their messages away. Scans send them again, perhaps to the same worker.",
    cure="Start {worker} as `celery -A sagas worker`, or take our queues from its -Q.",
)
WORKER_ELSEWHERE: Final = problem(
    "worker-elsewhere",
    what="a worker uses another database",
    why="It gets messages for sagas that its database does not have, and runs none of these.",
    cure="Start {worker} with the SAGAS_DATABASE_URL that is used here, or use its own here.",
)
WORKER_DIFFERS: Final = warning(
    "worker-differs",
    what="a worker has other settings than this environment",
    why="Whoever sends with one and runs with the other disagrees about leases, limits and what code there is; and "
    "this command judges by those it has itself.",
    cure="Start {worker} and this command with the same environment.",
)
WORKER_VERSION: Final = warning(
    "worker-version",
    what="a worker runs another version of celery-sagas",
    why="During a deployment that is as it should be. Afterwards it is a worker that was forgotten.",
    cure="Restart {worker} with the version that is installed here, or install its version here.",
)


def answers(app: Celery) -> Iterator[Finding | str]:
    """Yield what is wrong with the workers that this application's broker leads to."""
    alive = sorted(app.control.inspect(timeout=_ANSWER_SECONDS).ping() or {})
    if not alive:
        yield NO_WORKER(f"no worker answered within {_ANSWER_SECONDS:g} s.")
        return
    # Named, so that nobody is waited for once all have answered.
    inspect = app.control.inspect(destination=alive, timeout=_ANSWER_SECONDS)
    taken = {
        worker: {queue["name"] for queue in queues} & {*QUEUES}
        for worker, queues in (inspect.active_queues() or {}).items()
    }
    ours = sorted(worker for worker, queues in taken.items() if queues)
    yield f"{', '.join(ours) or 'none'} of {len(alive)} that answer {'takes' if len(ours) == 1 else 'take'} our queues"
    for queue in QUEUES:
        if not any(queue in queues for queues in taken.values()):
            yield QUEUE_WITHOUT_WORKER(f"no worker takes {queue}.", queue=queue)
    registered = inspect.registered() or {}
    told = _told(app, alive)
    here = inspection.answer(app)
    for worker in ours:
        known = {task.split()[0] for task in registered.get(worker, ROUTES)}
        if missing := [task for task in ROUTES if task not in known]:
            yield TASKS_MISSING(f"{worker} does not know {', '.join(missing)}.", worker=worker)
        if "settings" in (there := told.get(worker, {})):  # older ones do not know the question
            yield from _differences(worker, there, here)


def _told(app: Celery, workers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each worker tells of itself."""
    question = inspection.sagas_settings.__name__
    replies = app.control.broadcast(question, reply=True, destination=workers, timeout=_ANSWER_SECONDS)
    return {worker: told for reply in replies or () for worker, told in reply.items()}


def _differences(worker: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Finding]:
    if there["database"] != here["database"]:
        yield WORKER_ELSEWHERE(
            f"{worker} uses the database at {there['database']}, and this command the one at {here['database']}.",
            worker=worker,
        )
    others = [
        f"{name} is {there['settings'][name]!r} there and {value!r} here"
        for name, value in here["settings"].items()
        if there["settings"].get(name, value) != value
    ]
    if others:
        yield WORKER_DIFFERS(f"{worker}: {'; '.join(others)}.", worker=worker)
    if there["version"] != here["version"]:
        yield WORKER_VERSION(
            f"{worker} runs celery-sagas {there['version']}, and here is {here['version']}.", worker=worker
        )


def _workers(_: Installation) -> Iterator[Finding | str]:
    return answers(configured_application())


WORKERS: Final = Check(
    "workers",
    _workers,
    (NO_WORKER, QUEUE_WITHOUT_WORKER, TASKS_MISSING, WORKER_ELSEWHERE, WORKER_DIFFERS, WORKER_VERSION),
    needs=("broker",),
    seconds=15,  # it asks four questions
)
