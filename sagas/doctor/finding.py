"""A finding: what is wrong, why it matters, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

WARNING: Final = "warning"
PROBLEM: Final = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. Checks declare theirs as constants, which `docs/doctor.md` lists.

    Attributes:
        severity: a problem stops sagas from running as promised; a warning weakens a promise.
        id: stable, for programs that read `--json`.
        what: what is wrong; in general for a declared finding, with names and numbers for a reported one.
        why: why it matters.
        cure: the command or setting; a declared finding has names in braces, which `seen` fills in.
    """

    severity: str
    id: str
    what: str
    why: str
    cure: str

    def seen(self, what: str, **details: object) -> Finding:
        """Return this finding as a check reports it.

        Args:
            what: what the check saw, with names and numbers.
            details: the values for the braces of the cure.
        """
        return replace(self, what=what, cure=self.cure.format(**details))


problem = partial(Finding, PROBLEM)
warning = partial(Finding, WARNING)
