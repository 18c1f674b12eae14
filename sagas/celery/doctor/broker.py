"""Does the broker answer, and how long are its queues?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery import Celery

from sagas.celery.application import configured_application
from sagas.celery.dispatch import CeleryDispatcher, broker_address
from sagas.celery.names import QUEUES, SCAN_QUEUE
from sagas.doctor import Check, Finding, Installation, problem
from sagas.errors import BrokerUnavailable

#: One waits for a moment between beat and a worker; two beats may have looked at the same moment.
_SCANS_WAITING: Final = 3

BROKER_DOWN: Final = problem(
    "broker-down",
    what="the broker does not answer",
    why="Nothing reaches workers. Starting sagas still succeeds: they are stored, and run once the broker is back.",
    cure="See that the broker runs at {address} and accepts this user and password, or correct SAGAS_BROKER_URL.",
)
SCANS_PILE_UP: Final = problem(
    "scans-pile-up",
    what="several scans wait for a worker",
    why="No worker takes the queue `sagas.scan`, or all are busy. Beat sends no scan while one waits, so somebody else "
    "sends them.",
    cure="Start a worker that takes `sagas.scan` (one for it alone: `celery -A sagas worker -Q sagas.scan`), and see "
    "who else sends the task.",
)


def queues(app: Celery) -> Iterator[Finding | str]:
    """Yield what is wrong with this application's broker."""
    address = broker_address(app)
    dispatcher = CeleryDispatcher(app)
    try:
        lengths = {queue: dispatcher.length(queue) for queue in QUEUES}
    except BrokerUnavailable as error:
        yield BROKER_DOWN(str(error), address=address)
        return
    yield f"{address} answers; waiting: {', '.join(f'{length} in {queue}' for queue, length in lengths.items())}"
    if lengths[SCAN_QUEUE] > _SCANS_WAITING:
        yield SCANS_PILE_UP(f"{lengths[SCAN_QUEUE]} scans wait in {SCAN_QUEUE}.")


def _broker(_: Installation) -> Iterator[Finding | str]:
    return queues(configured_application())


BROKER: Final = Check("broker", _broker, (BROKER_DOWN, SCANS_PILE_UP), needs=("celery",))
