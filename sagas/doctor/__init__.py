"""What is wrong with an installation, why it matters, and what cures it."""

from sagas.doctor.check import Check
from sagas.doctor.examination import Examined, State, every_kind, examine
from sagas.doctor.finding import Finding, Kind, Severity, problem, warning
from sagas.doctor.installation import Installation

__all__ = [
    "Check",
    "Examined",
    "Finding",
    "Installation",
    "Kind",
    "Severity",
    "State",
    "every_kind",
    "examine",
    "problem",
    "warning",
]
