"""What the matrix found, counted and told as a table."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from sagas.testing.crashes.plan import Plan

_WIDTH: Final = 116


class Fault(Enum):
    """A kind of bug: its name in the table, and what to do about it."""

    ACT_NOT_REPEATABLE = (
        "act is not safe to run twice",
        "A crash before its checkpoint makes act run again, with the same call.idempotency_key: hand the key to the "
        "service, or look first whether the effect is there.",
    )
    COMPENSATION_NOT_REPEATABLE = (
        "compensate is not safe to run twice",
        "A crash before its checkpoint makes compensate run again, with the same call.idempotency_key: hand the key "
        "to the service, or look first whether the effect is still there.",
    )
    UNDOES_BLINDLY = (
        "compensate assumes that act took effect",
        "compensate also runs when that is in doubt: undo only an effect that is there, and succeed if there is none.",
    )
    ANSWER_LOST = (
        "compensate needs what act returned",
        "When the answer of act is lost, so is what it wrote to the context, and compensate runs all the same: find "
        "the effect by what was known before, such as the saga's id or the order's number.",
    )
    CONTEXT_LOST = (
        "context does not survive being stored",
        "After a crash the saga goes on with the context as JSON gives it back: keep what must last in typed fields.",
    )
    STATE_LOST = (
        "step keeps state to itself",
        "After a crash the saga goes on with new steps: keep what must last in the context. A cache may live in a "
        "functools.cached_property or in the client that the step was given; a fake service belongs into `world`.",
    )
    RESTART = (
        "goes on differently after a restart",
        "Nothing ran twice here: what made the difference was in the memory of the process that crashed.",
    )
    SECOND_ATTEMPT = (
        "second attempt ends differently",
        "The first attempt failed without taking effect, so the saga should end as if it had not been made.",
    )
    ENDS_WRONG = (
        "ends wrong without any crash",
        "The engine did what the saga says; the saga, the fakes or the check are wrong.",
    )
    NOT_REPRODUCIBLE = (
        "two runs alike end differently",
        "Worlds cannot be compared then: let `world` make a new one each time, take ids from call.idempotency_key, "
        "or pass a `snapshot` that leaves random ids and times out.",
    )

    def __init__(self, title: str, advice: str) -> None:
        self.title = title
        self.advice = advice

    def __str__(self) -> str:
        return self.title


@dataclass
class Finding:
    """One bug, as one row of the table.

    Attributes:
        fault: its kind.
        step: the step that has it; empty if it cannot be told.
        plan: the simplest run that ended wrong because of it; None if none did.
        left_behind: what that run left behind, or lost.
        runs: how many runs ended wrong because of it.
    """

    fault: Fault
    step: str
    plan: Plan | None
    left_behind: str
    runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashMatrix:
    """What `crash_matrix` did and found.

    Attributes:
        saga: the saga's name.
        plans: what went wrong in each run, in order.
        findings: the bugs; none, if `crash_matrix` returned this.
    """

    saga: str
    plans: tuple[Plan, ...]
    findings: tuple[Finding, ...] = field(default=())

    @property
    def runs(self) -> int:
        """How often the saga was run."""
        return len(self.plans)

    @property
    def crashes(self) -> int:
        """How many crashes were simulated."""
        return sum(len(plan.crashes) for plan in self.plans)

    @property
    def places(self) -> int:
        """At how many places the saga crashed, the same one counted anew for each way in which a step fails."""
        return sum(len(plan.crashes) == 1 for plan in self.plans)

    def __str__(self) -> str:
        counts = f"{_count(self.runs, 'run')}, {_count(self.crashes, 'crash', 'es')} at {_count(self.places, 'place')}"
        if not self.findings:
            return f"{self.saga} survives every crash: {counts}."
        bugs = _count(len(self.findings), "bug")
        return f"{self.saga}: {bugs} in {counts}.\n\n{_table(self.findings)}\n\n{_advice(self.findings)}"


class CrashMatrixFailed(AssertionError):
    """The saga does not survive every crash; the message is a table of what is wrong.

    Attributes:
        matrix: the same as data.
    """

    def __init__(self, matrix: CrashMatrix) -> None:
        super().__init__(str(matrix))
        self.matrix = matrix


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _table(findings: tuple[Finding, ...]) -> str:
    # Imported here: rich takes longer to import than a matrix takes that finds nothing.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("step", "bug", "first seen when", "what was left behind"):
        table.add_column(title, overflow="fold")
    table.add_column("runs", justify="right", no_wrap=True)
    for finding in findings:
        when = "always" if finding.plan is None else str(finding.plan)
        runs = f"{finding.runs:,}" if finding.runs else "-"
        cells = (finding.step, finding.fault.title, when, finding.left_behind, runs)
        table.add_row(*(Text(cell) for cell in cells))
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def _advice(findings: tuple[Finding, ...]) -> str:
    faults = dict.fromkeys(finding.fault for finding in findings)
    return "\n".join(
        textwrap.fill(f"{fault.title}: {fault.advice}", _WIDTH, subsequent_indent="  ") for fault in faults
    )
