"""Prepare a worker that runs sagas: check it before it starts, watch its children, and stop sagas in order.

A worker that consumes no queue of sagas is not changed.
"""

from __future__ import annotations

import mmap
import os
import select
import threading
from collections.abc import Iterator
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, bootsteps, signals
from celery.concurrency import get_implementation
from celery.concurrency.solo import TaskPool as SoloPool

from sagas import api
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.metrics import WorkerMetrics, serve_metrics
from sagas.celery.names import ROUTES
from sagas.celery.role import runs_sagas
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError, SagaError, StorageUnavailable
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: How often a worker checks its children. Celery itself reports a dead child only after ten seconds.
_WATCH_SECONDS: Final = 0.25
_JSON: Final = frozenset({"json", "application/json"})


def register(app: Celery) -> None:
    """Prepare each worker of this application that consumes a queue of sagas."""

    def prepare(sender: Any, **_: Any) -> None:
        if sender.app is app and runs_sagas(app):
            sender.sagas = SagaWorker(sender)

    signals.worker_init.connect(prepare, weak=False)
    app.steps["worker"].add(Sagas)


class Sagas(bootsteps.StartStopStep):
    """The bootstep that manages a worker's sagas."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, parent: Any) -> bool:
        """Include this step only in a worker that runs sagas."""
        return hasattr(parent, "sagas")

    def start(self, parent: Any) -> None:
        """Begin to watch the children."""
        parent.sagas.watch()

    def close(self, parent: Any) -> None:
        """Ask running sagas to stop at the next step's boundary, also when the worker is stopped by remote control."""
        parent.sagas.stop()

    def stop(self, parent: Any) -> None:
        """Stop receiving the process's signals."""
        parent.sagas.close()

    terminate = stop


class SagaWorker:
    """One worker process that runs sagas; made before its children are forked.

    Args:
        worker: Celery's worker.

    Raises:
        SystemExit: a setting or the database's tables are wrong; the message says what to do.
    """

    def __init__(self, worker: Any) -> None:
        self._parent = os.getpid()
        # One byte of memory that the children share. The parent sets it on a signal; children read it between steps.
        self._stopping = mmap.mmap(-1, 1)
        # Children announce pid and owner at start-up, so the parent can release the leases of one that dies early.
        self._births, self._announce = os.pipe()
        self._closed = threading.Event()
        self._metrics: WorkerMetrics | None = None
        try:
            for sentence in unusable_settings(worker.app):
                raise ConfigurationError(sentence)
            self._engine = self._make_engine(worker)
            self._engine.storage.check_schema()
        except StorageUnavailable as error:
            logger.warning("starting all the same: %s", error)
        except SagaError as error:
            raise SystemExit(f"error: {error}") from None
        _move_time_limits(worker)
        signals.worker_process_init.connect(self._born)
        signals.worker_shutting_down.connect(self._asked_to_stop)

    def _make_engine(self, worker: Any) -> SagaEngine:
        settings = api.settings()
        # Do this first, because the modules of sagas may define metrics of their own.
        self._metrics = None if settings.metrics_port is None else serve_metrics(settings.metrics_port)
        engine = api.new_engine(
            dispatcher=CeleryDispatcher(worker.app),
            node=worker.hostname,
            stopping=self.stopping,
            in_doubt_on=(SoftTimeLimitExceeded,),
            observer=self._metrics and self._metrics.observer,
            shared=_holds_several(worker),
        )
        api.configure(engine)
        if not any(engine.registry):
            logger.warning(
                "this worker knows no saga, so it declines every one: name the modules that define them in "
                "SAGAS_MODULES"
            )
        return engine

    def stopping(self) -> bool:
        """Whether this worker was asked to stop."""
        return self._stopping[0] != 0

    def stop(self) -> None:
        """Ask running sagas to stop at the next step's boundary, in every child."""
        self._stopping[0] = 1

    def watch(self) -> None:
        """Begin to watch for children that die. In a pool without children, none is ever announced."""
        threading.Thread(target=self._watch, name="sagas-watch", daemon=True).start()

    def close(self) -> None:
        """Stop watching, and receive no more signals."""
        self._closed.set()
        signals.worker_process_init.disconnect(self._born)
        signals.worker_shutting_down.disconnect(self._asked_to_stop)
        if threading.current_thread() is not threading.main_thread() and api.current_engine() is self._engine:
            # The worker runs within a program, such as a test, which continues after the worker.
            api.configure(None)

    def _asked_to_stop(self, **_: Any) -> None:
        self.stop()

    def _born(self, **_: Any) -> None:
        if os.getpid() != self._parent:  # the solo pool sends this signal although it has no children
            os.write(self._announce, f"{os.getpid()} {self._engine.runtime().owner}\n".encode())
            if self._metrics is not None:
                self._metrics.forked()

    def _watch(self) -> None:
        """Release the leases of a child that died at once, and have its sagas sent to other workers."""
        children: dict[str, int] = {}
        unread = b""
        while not self._closed.is_set():
            if select.select([self._births], [], [], _WATCH_SECONDS)[0]:
                *births, unread = (unread + os.read(self._births, 65536)).split(b"\n")
                children |= {owner: int(pid) for pid, _, owner in (birth.decode().partition(" ") for birth in births)}
            for owner in [owner for owner, pid in children.items() if _exited(pid)]:
                try:
                    self._release(owner)
                except SagaError as error:
                    logger.warning("the leases of %s cannot be released yet: %s", owner, error)
                    continue
                except Exception:
                    logger.exception("the leases of %s could not be released; they expire by themselves", owner)
                pid = children.pop(owner)
                # A new child may have the same number. It continues in the same files.
                if self._metrics is not None and pid not in children.values():
                    self._metrics.buried(pid)

    def _release(self, owner: str) -> None:
        engine = self._engine
        held = engine.storage.reclaim(owner, max_recovery_attempts=engine.settings.max_recovery_attempts)
        if held:
            logger.warning("child %s died holding %d sagas; they are sent to others", owner, held)
            engine.scan()


def _holds_several(worker: Any) -> bool:
    """Whether one process of this worker may hold several sagas at once: all pools but prefork and solo."""
    from celery.concurrency.prefork import TaskPool as PreforkPool  # Windows cannot import this module

    pool = get_implementation(worker.pool_cls)
    return not issubclass(pool, (PreforkPool, SoloPool))


def unusable_settings(app: Celery) -> Iterator[str]:
    """Yield a message for each wrong setting of the application that task options cannot override."""
    if not _JSON.intersection(app.conf.accept_content):
        yield (
            f"accept_content of the Celery application {app.main} is {list(app.conf.accept_content)}, and sagas travel "
            "as JSON: add 'json' to it, or let a worker of another application take the queues of sagas."
        )
    if app.conf.task_always_eager:
        yield (
            f"task_always_eager of the Celery application {app.main} is on, so a scan would run every saga by itself: "
            "turn it off for workers; it is meant for tests."
        )


def _move_time_limits(worker: Any) -> None:
    """Keep the time limits of the application's tasks, and remove those of sagas.

    A pool applies its limits to every task without own limits, and to tasks whose limit is 0. So the limits move from
    the pool to the tasks of the application.
    """
    limits = {"time_limit": worker.time_limit, "soft_time_limit": worker.soft_time_limit}
    for name, seconds in limits.items():
        if seconds:
            for task in worker.app.tasks.values():
                if task.name not in ROUTES and not getattr(task, name):
                    setattr(task, name, seconds)
            setattr(worker, name, None)


def _exited(pid: int) -> bool:
    """Whether a child has ended, also while it is a zombie that the pool has not collected yet."""
    try:
        if hasattr(os, "waitid"):
            # WNOWAIT leaves the exit status to the pool.
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        os.kill(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return True
    return False
