"""Run a suspect saga in a process of its own, so that another crash affects no other saga.

A worker may run many sagas in one process (threads, gevent, eventlet). If this process crashes, no saga spends an
attempt, but each of them is suspect. A worker with such a pool then runs `python -m sagas.celery.alone APP SAGA
VERSION` for each suspect saga. A crash of that process counts as a failed attempt of its saga.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from celery.app.utils import find_app

from sagas import api
from sagas.engine import SagaEngine
from sagas.lease import owner_name
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How often a worker checks whether it was asked to stop.
_LOOK_SECONDS: Final = 0.25
_OWN_APP: Final = "sagas"


def recover_alone(engine: SagaEngine, saga_id: UUID, version: int | None) -> dict[str, Any]:
    """Recover a saga in a child process, and return its report as plain data.

    Args:
        engine: the worker's engine; when the worker was asked to stop, the child is asked too.
        saga_id: the saga's id.
        version: acquire the saga only at this version; None if an operator asks.
    """
    readable, writable = os.pipe()
    command = [sys.executable, "-m", __name__, _application(), engine.node, str(saga_id), str(writable)]
    child = subprocess.Popen(  # noqa: S603
        command + ([] if version is None else [str(version)]), pass_fds=(writable,), stdin=subprocess.DEVNULL
    )
    owner = owner_name(engine.node, child.pid)
    os.close(writable)
    with os.fdopen(readable) as report:
        while True:
            try:
                code = child.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if engine.runtime().stopping():
                    child.terminate()
        text = report.read()
    if text:
        answer: dict[str, Any] = json.loads(text)
        return answer
    held = engine.storage.reclaim(owner, max_recovery_attempts=engine.settings.max_recovery_attempts)
    message = f"the process that ran it alone ended with {code}, which counts as a failed attempt"
    logger.warning("saga %s: %s", saga_id, message)
    if held:
        engine.scan()
    return {"name": "", "outcome": "lost", "message": message, "status": "", "saga_id": str(saga_id), "did": []}


def _application() -> str:
    """Return the name of the worker's application for the child: from `-A`, or else from the setting."""
    arguments = sys.argv
    for place, argument in enumerate(arguments):
        if argument in ("-A", "--app") and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith("--app="):
            return argument.removeprefix("--app=")
        if argument.startswith("-A") and len(argument) > 2:
            return argument[2:]
    return os.environ.get("APP") or api.settings().celery_app or _OWN_APP


def main(arguments: Sequence[str]) -> None:
    """Recover one saga, and write its report to a file descriptor of the parent."""
    application, node, saga_id, writable, *version = arguments
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which notifies its children
    find_app(application)
    engine = api.new_engine(node=node, stopping=stopping.is_set)
    api.configure(engine)
    report = engine.recover(saga_id, version=int(version[0]) if version else None, by_hand=not version)
    with os.fdopen(int(writable), "w") as answer:
        json.dump(report.as_json(), answer)


if __name__ == "__main__":
    main(sys.argv[1:])
