"""Noting which messages reach this process, so that scans find those that are lost."""

from __future__ import annotations

import time
from typing import Final

from sagas.errors import SagaError
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: A process notes no more than one delivery of a queue in so many seconds.
_INTERVAL_SECONDS: Final = 1.0


class Deliveries:
    """Notes the deliveries of one process.

    Args:
        storage: where they are noted.
    """

    def __init__(self, storage: ISagaStorage) -> None:
        self._storage = storage
        self._noted: dict[bool, float] = {}

    def note(self, claim: Claim) -> None:
        """Note that the message of a claim has arrived, unless another of its queue was noted a moment ago."""
        now = time.monotonic()
        if now - self._noted.get(claim.pending, -_INTERVAL_SECONDS) < _INTERVAL_SECONDS:
            return
        self._noted[claim.pending] = now
        try:
            self._storage.note_delivery(claim)
        except SagaError as error:
            logger.warning("a delivery was not noted, so lost messages are found later: %s", error)
