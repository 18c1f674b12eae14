"""Keeping a saga while working on it: who holds it, and the heartbeat that renews the lease.

Losing is never noticed by a clock of ours: the database tells, by a renewal or a checkpoint that changes no row.
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
from sagas.progress import Perform
from sagas.storage.base import Hold, ISagaStorage, SagaRecord
from sagas.telemetry.logs import saga_logger, working_on

logger = saga_logger(__name__)

#: Renewed every third, so that one renewal may fail and another still be in time.
_RENEWALS_PER_LEASE: Final = 3
#: How finely the heartbeat thread looks, in shares of a renewal's interval.
_TICKS_PER_RENEWAL: Final = 10


def owner_name(node: str, pid: int) -> str:
    """Return the name under which a process holds leases: node, pid, and the start time that makes a pid unique."""
    return f"{node[:200]}/{pid}.{_start_time(pid)}"


def default_node() -> str:
    """Return the name of this host, for processes that are not Celery workers."""
    return socket.gethostname()


def _start_time(pid: int) -> str:
    try:
        # Clock ticks since boot: the 22nd field, counted after the command's name, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        try:
            shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError:
            return "0"
        return "".join(c for c in shown.stdout if c.isalnum()) or "0"


class Lease:
    """A hold that is being kept."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.lost = False
        self.asked_back = False
        # What the heartbeat's lines about it carry; the holder says what it does.
        self.work: tuple[SagaRecord, Perform | None] | None = working_on.get()
        self.renewed_at = time.monotonic()


class Heartbeat:
    """Renews this process's leases from one thread, on a connection of its own, so that a step may take hours.

    Args:
        storage: where the leases are.
        lease_seconds: how long each lease lasts from its last renewal.
    """

    def __init__(self, storage: ISagaStorage, lease_seconds: float) -> None:
        self._storage = storage
        self._lease_seconds = lease_seconds
        self._interval = lease_seconds / _RENEWALS_PER_LEASE
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keep(self, hold: Hold) -> Iterator[Lease]:
        """Renew the hold's lease while the block runs.

        `lease.lost` tells when that failed for good, `lease.asked_back` when an operator waits for the saga.
        """
        if os.getpid() != self._pid:
            self._reset()  # forked: the thread stayed with the parent, and so did its leases
        lease = Lease(hold)
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="sagas-heartbeat", daemon=True)
                self._thread.start()
        try:
            yield lease
        finally:
            with self._lock:
                self._leases.discard(lease)

    def _beat(self) -> None:
        # Looking often costs nothing, and spares every short saga the waking of this thread.
        while True:
            time.sleep(self._interval / _TICKS_PER_RENEWAL)
            now = time.monotonic()
            with self._lock:
                due = [lease for lease in self._leases if now - lease.renewed_at >= self._interval]
            for lease in due:
                self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        working_on.set(lease.work)
        try:
            lease.asked_back = self._storage.renew(lease.hold, self._lease_seconds)
            lease.renewed_at = time.monotonic()
        except LeaseLost:
            with self._lock:
                ended = lease not in self._leases
                self._leases.discard(lease)
            if not ended:
                lease.lost = True
                logger.warning("saga %s: the lease was lost to another worker", lease.hold.saga_id)
        except StorageUnavailable as error:
            logger.warning("saga %s: the lease could not be renewed yet: %s", lease.hold.saga_id, error)
        except Exception:
            logger.exception("saga %s: renewing the lease failed", lease.hold.saga_id)
