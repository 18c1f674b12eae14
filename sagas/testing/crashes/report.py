"""The result of the crash matrix: kinds of bugs, findings, counts, and the message that lists them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from sagas.testing.crashes.crash_plan import CrashPlan

_WIDTH: Final = 116


class Fault(Enum):
    """A kind of bug: its name in the message, and its cure."""

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
    RECEIVED_NOT_REPEATABLE = (
        "received is not safe to run twice",
        "A crash before its checkpoint makes received run again, with the context as it was before: let it change "
        "the context only, and let a step take effect.",
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
    UNDOES_BY_SIGNAL = (
        "timeout is undone differently",
        "When a wait times out, compensate runs without what the signal brought, and must leave the same as if the "
        "signal had come and the step after the wait had failed: find the effect by what was known before the wait.",
    )
    EARLY_SIGNAL = (
        "signal that comes early changes the end",
        "A signal may come before the saga waits for it, and the saga then goes on in the same process, with the same "
        "steps: keep what must last in the context.",
    )
    CONTEXT_LOST = (
        "context does not survive being stored",
        "After a crash the saga goes on with the context as JSON gives it back: keep what must last in typed fields.",
    )
    STATE_LOST = (
        "step keeps state that a restart loses",
        "After a crash the saga goes on in a new process, with new steps: keep what must last in the context. A cache "
        "may live in a functools.cached_property or in the client that the step was given; a fake service belongs "
        "into `world`.",
    )
    RESTART = STATE_LOST
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
class CrashFinding:
    """One bug, with the simplest plan that shows it.

    Attributes:
        fault: its kind.
        step: the step or wait that fails or runs again in the plan; empty if the test itself is wrong.
        plan: the simplest plan that ended wrong; None if the bug was found without a run.
        left_behind: how the world after that run differs.
        runs: the number of runs that ended wrong in the same way.
    """

    fault: Fault
    step: str
    plan: CrashPlan | None
    left_behind: str
    runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashMatrix:
    """The runs and findings of `crash_matrix`.

    Attributes:
        saga: the saga's name.
        plans: the plan of each run, in order.
        findings: the bugs; empty if `crash_matrix` returned this result.
    """

    saga: str
    plans: tuple[CrashPlan, ...]
    findings: tuple[CrashFinding, ...] = field(default=())

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(self.plans)

    @property
    def crashes(self) -> int:
        """The number of simulated crashes."""
        return sum(len(plan.crashes) for plan in self.plans)

    @property
    def places(self) -> int:
        """The number of places at which the saga crashed; each place counts once for each way in which a step fails."""
        return sum(len(plan.crashes) == 1 and plan.early is None for plan in self.plans)

    def __str__(self) -> str:
        counts = f"{self.runs:,} runs, {self.crashes:,} crashes at {self.places:,} places"
        if not self.findings:
            return f"{self.saga} survives every crash: {counts}."
        bugs = "1 bug" if len(self.findings) == 1 else f"{len(self.findings)} bugs"
        advice = _wrapped(dict.fromkeys(f"{f.fault}: {f.fault.advice}" for f in self.findings), indent=2)
        return "\n\n".join([f"{self.saga}: {bugs} in {counts}.", *map(_paragraph, self.findings), advice])


class CrashMatrixFailed(AssertionError):
    """The saga does not survive every crash; the message lists the bugs.

    Attributes:
        matrix: the result as data.
    """

    def __init__(self, matrix: CrashMatrix) -> None:
        super().__init__(str(matrix))
        self.matrix = matrix


def _paragraph(finding: CrashFinding) -> str:
    lines = [f"{finding.step or 'the test'}: {finding.fault}"]
    details = {"first seen when": finding.plan, "left behind": finding.left_behind, "runs": finding.runs or None}
    lines += [f"    {name}: {detail}" for name, detail in details.items() if detail is not None]
    return _wrapped(lines, indent=8)


def _wrapped(lines: Iterable[str], *, indent: int) -> str:
    return "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent=" " * indent) for line in lines)
