"""Sagas to workers, through Celery's broker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import KombuError

from sagas.errors import BrokerUnavailable
from sagas.storage.base import Claim
from sagas.urls import redacted
from tasks import application

logger = logging.getLogger(__name__)

#: Pending or not → the task that is sent, on a queue of its own.
TASKS = {True: "sagas.run_saga", False: "sagas.recover_saga"}
QUEUES = {True: "sagas.run", False: "sagas.recover"}


class CeleryDispatcher:
    """Sends each saga to a worker as one small message: its id, and the version that the message is for.

    Args:
        app: whose broker carries the messages; default: the application of `tasks`.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app or application.app

    def send(self, claims: Sequence[Claim]) -> int:
        """Publish a message for each claim, in order; return how many were published before the broker failed."""
        sent = 0
        declared: set[bool] = set()
        try:
            with self._app.producer_or_acquire() as producer:
                for claim in claims:
                    self._app.send_task(
                        TASKS[claim.pending],
                        args=(str(claim.saga_id),),
                        kwargs={"version": claim.version},
                        # What Flower and the worker's log show: the id that `sagas show` takes, and nothing around it.
                        argsrepr=str(claim.saga_id),
                        kwargsrepr=f"version {claim.version}",
                        queue=QUEUES[claim.pending],
                        # Once is enough, and to find out for each message that it was costs an eighth of sending it.
                        declare=() if claim.pending in declared else None,
                        producer=producer,
                        ignore_result=True,
                    )
                    declared.add(claim.pending)
                    sent += 1
        except self._broker_errors() as error:
            logger.warning(
                "the broker at %s did not take message %d of %d: %s",
                *(broker_address(self._app), sent + 1, len(claims), redacted(error)),
            )
        return sent

    def waiting(self, *, pending: bool) -> int:
        """Return how many messages wait in the queue of sagas that never ran, or of recoverable ones.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return self.length(QUEUES[pending])

    def length(self, queue: str) -> int:
        """Return how many messages wait in a queue.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        try:
            with self._app.connection_for_write() as connection:
                return _length(connection, queue)
        except self._broker_errors() as error:
            raise BrokerUnavailable(
                f"the broker at {broker_address(self._app)} did not answer ({redacted(error)}): check that it "
                "runs (SAGAS_BROKER_URL); nothing is lost meanwhile, sagas stay due in the database."
            ) from error

    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        connection = self._app.connection_for_write()
        return (*connection.connection_errors, *connection.channel_errors, KombuError, OSError)


def broker_address(app: Celery) -> str:
    """Return where the application's messages go, without a password."""
    return redacted(app.conf.broker_write_url or app.connection_for_write().as_uri())


def _length(connection: Connection, queue: str) -> int:
    connection.ensure_connection(max_retries=1, interval_start=0)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors:
        return 0  # no such queue yet: nothing was ever sent
