"""What a Celery worker does around its tasks: checks before it starts, watches its children, stops in order."""

from __future__ import annotations

import logging
import mmap
import os
import select
import threading
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import bootsteps, signals

from sagas.api import configure, current_engine
from sagas.engine import SagaEngine
from sagas.errors import SagaError, StorageUnavailable
from sagas.settings import Settings
from tasks.application import app
from tasks.dispatch import CeleryDispatcher
from tasks.messages import DropsMessages
from tasks.metrics import WorkerMetrics, serve_metrics
from tasks.neighbours import NoNeighbours
from tasks.outages import OutlivesOutages

logger = logging.getLogger(__name__)

#: How often a worker looks at its children: Celery itself tells of a dead one only after ten seconds.
_LOOK_SECONDS: Final = 0.25

# One byte of memory that the children share: what the parent is told by a signal, they see at a step's boundary.
_stopping = mmap.mmap(-1, 1)
# Each child says who it is before it does anything else, so that none can die unknown, however soon.
_births, _announce = os.pipe()
_parent = os.getpid()
_metrics: WorkerMetrics | None = None


def stopping() -> bool:
    """Whether this worker was asked to stop."""
    return _stopping[0] != 0


@signals.worker_init.connect
def _prepare(sender: Any, **_: Any) -> None:
    """Build the engine before children are forked; refuse to start with settings or tables that cannot work."""
    global _metrics  # noqa: PLW0603
    try:
        settings = Settings.from_environment()
        # First of all: the modules of sagas may define metrics of their own.
        _metrics = None if settings.metrics_port is None else serve_metrics(settings.metrics_port)
        engine = SagaEngine.from_environment(
            settings,
            dispatcher=CeleryDispatcher(),
            node=sender.hostname,
            stopping=stopping,
            in_doubt_on=(SoftTimeLimitExceeded,),
            observer=_metrics and _metrics.observer,
        )
        configure(engine)
        engine.storage.check_schema()
    except StorageUnavailable as error:
        logger.warning("starting all the same: %s", error)
    except SagaError as error:
        raise SystemExit(f"error: {error}") from None


@signals.worker_process_init.connect
def _born(**_: Any) -> None:
    if os.getpid() != _parent:  # the solo pool has no children, and sends this signal all the same
        os.write(_announce, f"{os.getpid()} {current_engine().runtime().owner}\n".encode())
        if _metrics is not None:
            _metrics.forked()


@signals.worker_shutting_down.connect
def _told_to_stop(**_: Any) -> None:
    _stopping[0] = 1


class Sagas(bootsteps.StartStopStep):
    """The part of a worker that looks after its sagas."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to watch for children; pools without any never announce one."""
        threading.Thread(target=_watch, name="sagas-watch", daemon=True).start()

    def close(self, parent: Any) -> None:
        """Tell running sagas to stop at the next step's boundary, also when the worker is told by remote control."""
        _stopping[0] = 1


app.steps["worker"].add(Sagas)
app.steps["consumer"].update((OutlivesOutages, NoNeighbours, DropsMessages))


def _watch() -> None:
    """Release at once what a child held that died, and have it sent to another."""
    children: dict[str, int] = {}
    unread = b""
    while True:
        if select.select([_births], [], [], _LOOK_SECONDS)[0]:
            *births, unread = (unread + os.read(_births, 65536)).split(b"\n")
            children |= {owner: int(pid) for pid, _, owner in (birth.decode().partition(" ") for birth in births)}
        for owner in [owner for owner, pid in children.items() if _exited(pid)]:
            try:
                _release(owner)
            except SagaError as error:
                logger.warning("what %s held cannot be released yet: %s", owner, error)
                continue
            except Exception:
                logger.exception("what %s held could not be released; its leases run out by themselves", owner)
            pid = children.pop(owner)
            # A number may be given anew; the one that has it now goes on in the same files.
            if _metrics is not None and pid not in children.values():
                _metrics.buried(pid)


def _exited(pid: int) -> bool:
    """Whether a child is gone, also while it is a zombie because the pool has not looked yet."""
    try:
        if hasattr(os, "waitid"):
            # WNOWAIT leaves the exit status to the pool.
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        os.kill(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return True
    return False


def _release(owner: str) -> None:
    engine = current_engine()
    held = engine.storage.seize_orphans(owner, max_recovery_attempts=engine.settings.max_recovery_attempts)
    if held:
        logger.warning("child %s died holding %d sagas; they are sent to others", owner, held)
        engine.scan()
