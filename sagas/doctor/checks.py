"""Every check, in order: what others stand on first; then Celery's, which are looked up by name; then the sagas."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

from sagas.doctor.check import Check
from sagas.doctor.code import CODE
from sagas.doctor.database import DATABASE_CHECKS
from sagas.doctor.definitions import DEFINITIONS
from sagas.doctor.environment import SETTINGS
from sagas.doctor.finding import Finding, problem
from sagas.doctor.installation import Installation
from sagas.doctor.scanning import SCANS
from sagas.doctor.stuck import PAUSES, STUCK

#: How Celery's checks are found without importing Celery.
ENTRY_POINT: Final = "sagas.doctor"

CELERY_UNUSABLE: Final = problem(
    "celery-unusable",
    what="the Celery application cannot be loaded",
    why="No worker and no beat starts like this. The broker, workers and Celery's settings could not be looked at.",
    cure="See to the error that is told: install celery-sagas whole (`pip install celery-sagas`), or correct the "
    "application that SAGAS_CELERY_APP names.",
)


def _load_celery(installation: Installation) -> Iterator[Finding | str]:
    found = list(entry_points(group=ENTRY_POINT))
    if not found:
        yield CELERY_UNUSABLE("the Celery application is not installed: nothing has the entry point `sagas.doctor`.")
        return
    try:
        for entry_point in found:
            installation.celery_checks += tuple(entry_point.load()())
    except (Exception, SystemExit) as error:  # a module of the user's runs here, and the application exits with words
        yield CELERY_UNUSABLE(f"the Celery application cannot be loaded: {type(error).__name__}: {error}.")


_CELERY: Final = Check("celery", _load_celery, (CELERY_UNUSABLE,), needs=("settings",), seconds=20)

FOUNDATION: Final = (SETTINGS, *DATABASE_CHECKS, CODE, _CELERY)
SAGAS: Final = (SCANS, DEFINITIONS, STUCK, PAUSES)
