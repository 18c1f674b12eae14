"""What `sagas doctor` asks of the Celery side; the engine finds these checks by the entry point `sagas.doctor`."""

from __future__ import annotations

from typing import Final

from sagas.celery.application import configured_application
from sagas.celery.dispatch import readable_connection
from sagas.celery.doctor.broker import BROKER
from sagas.celery.doctor.configuration import CONFIGURATION
from sagas.celery.doctor.workers import WORKERS
from sagas.doctor import Check

CHECKS: Final = (CONFIGURATION, BROKER, WORKERS)


def load_checks() -> tuple[Check, ...]:
    """Return the checks once the application and its settings could be loaded.

    Raises:
        Exception: what the application's own code raises.
    """
    readable_connection(configured_application())  # reads the settings, too
    return CHECKS
