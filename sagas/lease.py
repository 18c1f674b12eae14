"""The leases of a process: their owner's name, and the thread that renews them.

A worker never concludes from its own clock that a lease is lost. It learns so from a renewal or a checkpoint that
changes no row in the database.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sagas.errors import LeaseLost, StorageUnavailable
from sagas.progress import Move
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease
from sagas.storage.records import SagaRecord
from sagas.telemetry.logs import saga_logger, working_on

logger = saga_logger(__name__)

#: Renewals in the time of one lease. One renewal may fail, and the next is still in time.
_RENEWALS_PER_LEASE: Final = 3
#: Ticks of the thread in the time between two renewals.
_TICKS_PER_RENEWAL: Final = 10


def owner_name(node: str, pid: int) -> str:
    """Return the name under which a process holds leases: node, pid, and the start time that makes a pid unique."""
    return f"{node[:200]}/{pid}.{_start_time(pid)}"


def default_node() -> str:
    """Return the name of this host, for processes that are not Celery workers."""
    return socket.gethostname()


def _start_time(pid: int) -> str:
    try:
        # Read field 22, clock ticks since boot. Count after the command's name, which may contain spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        try:
            shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError:
            return "0"
        return "".join(c for c in shown.stdout if c.isalnum()) or "0"


class KeptLease:
    """A lease that is being renewed.

    Attributes:
        lost: whether another worker has acquired the saga.
        yield_requested: whether an operator waits for the saga, or its name is paused.
        work: the saga and the action that the holder runs, for the lines that the keeper logs.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.lost = False
        self.yield_requested = False
        self.work: tuple[SagaRecord, Move | None] | None = working_on.get()
        self.renewed_at = time.monotonic()


class LeaseKeeper:
    """Renews this process's leases from one thread, on a connection of its own, so that a step may take hours.

    Args:
        storage: stores the leases.
        lease_seconds: how long each lease lasts from its last renewal.
    """

    def __init__(self, storage: ISagaStorage, lease_seconds: float) -> None:
        self._storage = storage
        self._lease_seconds = lease_seconds
        self._interval = lease_seconds / _RENEWALS_PER_LEASE
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._leases: set[KeptLease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keep(self, lease: Lease) -> Iterator[KeptLease]:
        """Renew a lease while the block runs."""
        if os.getpid() != self._pid:
            self._reset()  # after a fork, the thread and its leases belong to the parent
        kept = KeptLease(lease)
        with self._lock:
            self._leases.add(kept)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="sagas-leases", daemon=True)
                self._thread.start()
        try:
            yield kept
        finally:
            with self._lock:
                self._leases.discard(kept)

    def _tick(self) -> None:
        # Tick at a fixed rate, so that short sagas never wake this thread.
        while True:
            time.sleep(self._interval / _TICKS_PER_RENEWAL)
            now = time.monotonic()
            with self._lock:
                due = [kept for kept in self._leases if now - kept.renewed_at >= self._interval]
            for kept in due:
                self._renew(kept)

    def _renew(self, kept: KeptLease) -> None:
        working_on.set(kept.work)
        saga_id = kept.lease.saga_id
        try:
            kept.yield_requested = self._storage.renew(kept.lease, self._lease_seconds)
            kept.renewed_at = time.monotonic()
        except LeaseLost:
            with self._lock:
                ended = kept not in self._leases
                self._leases.discard(kept)
            if not ended:
                kept.lost = True
                logger.warning("saga %s: the lease was lost to another worker", saga_id)
        except StorageUnavailable as error:
            logger.warning("saga %s: the lease could not be renewed yet: %s", saga_id, error)
        except Exception:
            logger.exception("saga %s: renewing the lease failed", saga_id)
