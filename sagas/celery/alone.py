"""Run a suspect saga in a process of its own, so that another crash affects no other saga.

A worker may run many sagas in one process (threads, gevent, eventlet). If this process crashes, no saga spends an
attempt, but each of them is suspect. A worker with such a pool runs each suspect saga in a child process until the saga
makes progress. A crash of the child counts for its saga alone.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from celery import Celery

from sagas import api
from sagas.celery import metrics
from sagas.engine import SagaEngine
from sagas.execution import Outcome, Report
from sagas.lease import owner_name
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How often a worker checks whether it was asked to stop.
_LOOK_SECONDS: Final = 0.25
#: A worker of greenlets may hold a thousand sagas. A process for each of them would use up the memory.
_MOST_CHILDREN: Final = 16
#: How long a message waits for a child. After a longer time, scans would take the message for lost.
_WAIT_SECONDS: Final = 3.0
_OWN_APPLICATION: Final = "sagas"
_CHILD: Final = "sagas.celery.child"

_children = threading.BoundedSemaphore(_MOST_CHILDREN)
_alone: set[UUID] = set()
_lock = threading.Lock()


def recover_alone(
    app: Celery, engine: SagaEngine, saga_id: UUID, *, version: int | None, by_hand: bool
) -> dict[str, Any]:
    """Recover a saga in a child process, and return its report as plain data.

    Args:
        app: the worker's application, which the child imports.
        engine: the worker's engine; when the worker is asked to stop, the child is asked, too.
        saga_id: the saga's id.
        version: acquire the saga only at this version; None means any version.
        by_hand: whether an operator asks.
    """
    with _lock:
        if saga_id in _alone:
            # A child takes seconds to begin, and meanwhile a scan may have taken the first message for lost.
            return _report(engine, saga_id, Outcome.SKIPPED, "another child of this worker already begins to run it")
        _alone.add(saga_id)
    try:
        if not _children.acquire(timeout=_WAIT_SECONDS):
            _send_again(engine, saga_id, version)
            return _report(
                engine, saga_id, Outcome.SKIPPED, f"{_MOST_CHILDREN} other sagas run alone: a scan sends it again"
            )
        try:
            ended = _run_child(app, engine, saga_id, version=version, by_hand=by_hand)
        finally:
            _children.release()
    finally:
        with _lock:
            _alone.discard(saga_id)
    if ended.report is not None:
        return ended.report
    # Send the message again only now, because another thread may receive it at once.
    _send_again(engine, saga_id, version)
    message = f"the process that ran it alone ended with {ended.code}"
    if engine.storage.reclaim(ended.owner, max_recovery_attempts=engine.settings.max_recovery_attempts):
        message += ", which counts as a failed attempt unless it was the first run"
        engine.scan()
    logger.warning("saga %s: %s", saga_id, message)
    return _report(engine, saga_id, Outcome.LOST, message)


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of a child: the name under which it held the lease, and its report; a child without a report crashed."""

    owner: str
    code: int
    report: dict[str, Any] | None


def _run_child(app: Celery, engine: SagaEngine, saga_id: UUID, *, version: int | None, by_hand: bool) -> _Ended:
    # Use a file and not a pipe: a report may exceed a pipe's capacity, and the child's own processes keep a pipe open.
    with tempfile.TemporaryFile() as answer:
        given = {
            "application": _name_of(app),
            "node": engine.node,
            "parent": os.getpid(),
            "answer": answer.fileno(),
            "loglevel": logging.root.level or logging.WARNING,
            "saga": {"saga_id": str(saga_id), "version": version, "by_hand": by_hand},
        }
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", _CHILD, json.dumps(given)],
            pass_fds=(answer.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        owner = owner_name(engine.node, child.pid)
        code = _wait(child, engine)
        metrics.buried(child.pid)
        answer.seek(0)
        text = answer.read()
    return _Ended(owner, code, json.loads(text) if text else None)


def _wait(child: subprocess.Popen[bytes], engine: SagaEngine) -> int:
    told = False
    while True:
        try:
            return child.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if engine.runtime().stopping() and not told:
                child.terminate()
                told = True
                logger.info("process %d, which runs a saga alone, was told to stop after its step", child.pid)


def _send_again(engine: SagaEngine, saga_id: UUID, version: int | None) -> None:
    """Let a scan send a saga again if the saga is still queued."""
    if version is not None:
        engine.storage.release_claims([Claim(saga_id, version)])


def _report(engine: SagaEngine, saga_id: UUID, outcome: Outcome, message: str) -> dict[str, Any]:
    return Report.of(engine.storage.load(saga_id), outcome, message).as_json()


def _name_of(app: Celery) -> str:
    """Return the place at which the child finds the application."""
    for module, content in [*sys.modules.items()]:
        if module != "__main__" and module.partition(".")[0] != "celery":
            for name, value in [*getattr(content, "__dict__", {}).items()]:
                if value is app and not name.startswith("_"):
                    return f"{module}:{name}"
    return api.settings().celery_app or _OWN_APPLICATION
