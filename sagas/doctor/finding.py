"""A finding: what is wrong, why that matters, and the command or setting that cures it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is: a warning costs something or will, a problem keeps sagas from being run as promised."""

    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with this installation; `id` is that of its kind."""

    id: str
    severity: Severity
    what: str
    why: str
    cure: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What a check can find; `docs/doctor.md` lists them all.

    Attributes:
        id: stable, for programs that read `--json`.
        severity: a warning or a problem.
        what: what is wrong, in general.
        why: why it matters.
        cure: the command or setting; names in braces are filled in from what was found.
    """

    id: str
    severity: Severity
    what: str
    why: str
    cure: str

    def __call__(self, what: str, **details: object) -> Finding:
        """Return the finding that this is so here.

        Args:
            what: what was seen, with its names and numbers.
            details: what the braces of the cure stand for.
        """
        return Finding(id=self.id, severity=self.severity, what=what, why=self.why, cure=self.cure.format(**details))


def problem(name: str, *, what: str, why: str, cure: str) -> Kind:
    """A kind of finding that keeps sagas from being run as promised."""
    return Kind(name, Severity.PROBLEM, what, why, cure)


def warning(name: str, *, what: str, why: str, cure: str) -> Kind:
    """A kind of finding that costs something, or will."""
    return Kind(name, Severity.WARNING, what, why, cure)
