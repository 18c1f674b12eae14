"""The registry of checks. Celery's are looked up by entry point, so that the doctor works without Celery."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from sagas.doctor.check import Check
from sagas.doctor.database import DATABASE, DURABILITY, PRIVILEGES, SCHEMA
from sagas.doctor.environment import CODE, SETTINGS
from sagas.doctor.finding import problem
from sagas.doctor.schedules import SCHEDULES
from sagas.doctor.unfinished import DEFINITIONS, SCANS, STUCK

ENTRY_POINT: Final = "sagas.doctor"

CELERY_UNUSABLE: Final = problem(
    "celery-unusable",
    what="the Celery application cannot be loaded",
    why="No worker and no beat starts. The broker, the workers and Celery's settings could not be checked.",
    cure="Fix the error in the message: install celery-sagas with its dependencies (`pip install celery-sagas`), or "
    "correct the application that SAGAS_CELERY_APP names.",
)


def every_check() -> tuple[Check, ...]:
    """Return every check, in the order in which they run: a check comes after those that it needs."""
    return (
        SETTINGS,
        DATABASE,
        SCHEMA,
        PRIVILEGES,
        DURABILITY,
        CODE,
        *_celery_checks(),
        SCANS,
        SCHEDULES,
        DEFINITIONS,
        STUCK,
    )


def _celery_checks() -> tuple[Check, ...]:
    try:
        checks = tuple(check for entry_point in entry_points(group=ENTRY_POINT) for check in entry_point.load()())
        error = f"nothing is installed under the entry point `{ENTRY_POINT}`"
    except Exception as failure:  # whatever an installation with parts missing raises
        checks, error = (), f"{type(failure).__name__}: {failure}"
    unusable = CELERY_UNUSABLE.seen(f"the checks of Celery cannot be loaded ({error}).")
    return checks or (Check("celery", lambda _: [unusable], (CELERY_UNUSABLE,)),)
