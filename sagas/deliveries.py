"""Records which messages reach this process, so that scans find lost messages."""

from __future__ import annotations

import time
from typing import Final

from sagas.errors import SagaError
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: A process records at most one delivery of a queue in this many seconds.
_INTERVAL_SECONDS: Final = 1.0


class Deliveries:
    """Records the deliveries of one process.

    Args:
        storage: where they are recorded.
    """

    def __init__(self, storage: ISagaStorage) -> None:
        self._storage = storage
        self._noted: dict[bool, float] = {}

    def note(self, claim: Claim) -> None:
        """Record that the message of a claim has arrived, unless one of its queue was recorded within a second."""
        now = time.monotonic()
        if now - self._noted.get(claim.pending, -_INTERVAL_SECONDS) < _INTERVAL_SECONDS:
            return
        self._noted[claim.pending] = now
        try:
            self._storage.note_delivery(claim)
        except SagaError as error:
            logger.warning("a delivery was not recorded, so lost messages are found later: %s", error)
