"""What `sagas doctor` asks of the Celery side; the engine finds these checks by the entry point `sagas.doctor`."""

from typing import Final

from tasks.doctor.broker import BROKER
from tasks.doctor.configuration import CONFIGURATION
from tasks.doctor.workers import WORKERS

CHECKS: Final = (CONFIGURATION, BROKER, WORKERS)
