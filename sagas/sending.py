"""Sends sagas to workers and delivers signals. A scan does what cannot be done now, so a caller never fails for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from sagas import recovery
from sagas.background import InBackground
from sagas.errors import SagaError, StorageUnavailable
from sagas.outbox import OutboxTask
from sagas.recovery import Dispatcher
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Claim
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

_ItemT = TypeVar("_ItemT")


class Sender:
    """Sends what was committed.

    Args:
        storage: where the sagas and signals are.
        dispatcher: returns what sends sagas to workers; None leaves them to the scan of another process.
    """

    def __init__(self, storage: ISagaStorage, dispatcher: Callable[[], Dispatcher | None]) -> None:
        self._storage = storage
        self._dispatcher = dispatcher
        self._sending = InBackground(self.send, name="sagas-send")
        self._delivering = InBackground(self._deliver, name="sagas-deliver")

    def send(self, claims: Sequence[Claim]) -> None:
        """Send sagas that are queued, and log what prevents it."""
        with _left_to_a_scan("sagas", len(claims)):
            if (dispatcher := self._dispatcher()) is None:
                self._storage.release_claims(claims)
                return
            recovery.send(self._storage, dispatcher, claims)

    def send_after_commit(self, claims: Sequence[Claim]) -> None:
        """Send sagas now that their caller has committed."""
        _after_commit(self._sending, claims)

    def deliver_after_commit(self, saga_id: UUID) -> None:
        """Deliver the signals of a saga now that their sender has committed."""
        _after_commit(self._delivering, [saga_id])

    def send_tasks(self, tasks: Sequence[OutboxTask]) -> None:
        """Send tasks of the outbox, and log what prevents it."""
        with _left_to_a_scan("tasks of the outbox", len(tasks)):
            if (dispatcher := self._dispatcher()) is not None:
                recovery.send_tasks(self._storage, dispatcher, tasks)

    def _deliver(self, saga_ids: Sequence[UUID]) -> None:
        try:
            self.send(self._storage.deliver(saga_ids))
        except StorageUnavailable as error:
            logger.warning("%d signals were not delivered; a later scan delivers them: %s", len(saga_ids), error)


@contextmanager
def _left_to_a_scan(what: str, number: int) -> Iterator[None]:
    """Log an error of the block. What it was to send is committed, so a scan sends it."""
    try:
        yield
    except SagaError as error:
        logger.warning("%d %s were not sent; a later scan sends them: %s", number, what, error)
    except Exception:
        logger.exception("sending %d %s failed; a later scan sends them", number, what)


def _after_commit(work: InBackground[_ItemT], items: Sequence[_ItemT]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        work.now(items)
    else:
        work.put(items)  # doing it here would block every other coroutine while the broker does not answer
