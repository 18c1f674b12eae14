"""`sagas doctor`: checks an installation for whatever weakens a guarantee, and says what to do about it."""

from sagas.doctor.check import Check, Installation
from sagas.doctor.checks import CELERY_UNUSABLE, every_check
from sagas.doctor.examination import OK, SKIPPED, Result, every_finding, examine
from sagas.doctor.finding import PROBLEM, WARNING, Finding, problem, warning

__all__ = [
    "CELERY_UNUSABLE",
    "OK",
    "PROBLEM",
    "SKIPPED",
    "WARNING",
    "Check",
    "Finding",
    "Installation",
    "Result",
    "every_check",
    "every_finding",
    "examine",
    "problem",
    "warning",
]
