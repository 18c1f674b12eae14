"""What a Celery worker does around its tasks: checks before it starts, watches its children, stops in order."""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import bootsteps, signals

from sagas.api import configure, current_engine
from sagas.engine import SagaEngine
from sagas.errors import SagaError, StorageUnavailable
from sagas.lease import owner_name
from tasks.application import app
from tasks.dispatch import CeleryDispatcher

logger = logging.getLogger(__name__)

#: How often a worker looks at its children: Celery itself tells of a dead one only after ten seconds.
_LOOK_SECONDS: Final = 0.25

# One byte of memory that the children share: what the parent is told by a signal, they see at a step's boundary.
_stopping = mmap.mmap(-1, 1)


def stopping() -> bool:
    """Whether this worker was asked to stop."""
    return _stopping[0] != 0


@signals.worker_init.connect
def _prepare(sender: Any, **_: Any) -> None:
    """Build the engine before children are forked; refuse to start with settings or tables that cannot work."""
    try:
        engine = SagaEngine.from_environment(
            dispatcher=CeleryDispatcher(),
            node=sender.hostname,
            stopping=stopping,
            in_doubt_on=(SoftTimeLimitExceeded,),
        )
        configure(engine)
        engine.storage.check_schema()
    except StorageUnavailable as error:
        logger.warning("starting all the same: %s", error)
    except SagaError as error:
        raise SystemExit(f"error: {error}") from None


@signals.worker_shutting_down.connect
def _told_to_stop(**_: Any) -> None:
    _stopping[0] = 1


class Sagas(bootsteps.StartStopStep):
    """The part of a worker that looks after its sagas."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to watch the children, if the pool has any."""
        if parent.pool is not None and "processes" in (parent.pool.info or {}):
            watch = threading.Thread(target=_watch, args=(parent,), name="sagas-watch", daemon=True)
            watch.start()

    def close(self, parent: Any) -> None:
        """Tell running sagas to stop at the next step's boundary, also when the worker is told by remote control."""
        _stopping[0] = 1


app.steps["worker"].add(Sagas)


def _watch(worker: Any) -> None:
    """Release at once what a child held that died, and have it sent to another."""
    owners: dict[int, str] = {}
    orphaned: set[str] = set()
    while True:
        alive = {pid for pid in worker.pool.info["processes"] if not _exited(pid)}
        orphaned |= {owners.pop(pid) for pid in set(owners) - alive}
        owners |= {pid: owner_name(worker.hostname, pid) for pid in alive - set(owners)}
        for owner in sorted(orphaned):
            try:
                _release(owner)
                orphaned.discard(owner)
            except SagaError as error:
                logger.warning("what %s held cannot be released yet: %s", owner, error)
            except Exception:
                logger.exception("what %s held could not be released; its leases run out by themselves", owner)
                orphaned.discard(owner)
        time.sleep(_LOOK_SECONDS)


def _exited(pid: int) -> bool:
    """Whether the child is gone, also while the pool, which looks every few seconds, still lists it."""
    if not hasattr(os, "waitid"):
        return False
    try:
        # WNOWAIT leaves the exit status to the pool.
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _release(owner: str) -> None:
    engine = current_engine()
    held = engine.storage.seize_orphans(owner, max_recovery_attempts=engine.settings.max_recovery_attempts)
    if held:
        logger.warning("child %s died holding %d sagas; they are sent to others", owner, held)
        engine.scan()
