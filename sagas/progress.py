"""What a saga does next, from its plan and its log alone: no I/O, no clock, no randomness.

The log holds what *ended*. The direction is read from it too: once a row says that the saga turned back, it only
goes backward (strict backward recovery).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sagas.definition import RetryPolicy
from sagas.errors import LogDoesNotFit
from sagas.plan import Plan, PlannedStep


class SagaStatus(StrEnum):
    """Where a saga stands; stored and shown by the same word."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        """Whether nothing will ever happen to the saga again."""
        return self in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)


#: What recovery looks at: begun and not finished.
RECOVERABLE = (SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED)


class Action(StrEnum):
    """What a row of the log is about: the two things a step can do, what an operator did, or what became of a holder."""

    ACT = "act"
    COMPENSATE = "compensate"
    OPERATOR = "operator"
    HOLDER = "holder"


class EntryStatus(StrEnum):
    """How an action ended. STARTED appears only in logs that an older layout wrote, and says nothing.

    SKIPPED: a person saw to the step, so code neither acts nor compensates it from then on. LOST: the lease ended
    without its holder.
    """

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOST = "lost"
    STARTED = "started"


class Verdict(StrEnum):
    """What was decided when an action failed; kept in the log, so that no later code decides it otherwise.

    SET_ASIDE: the attempts at a compensation are spent; other steps are compensated before it is tried again.
    """

    RETRY = "retry"
    TURN_BACK = "turn back"
    SET_ASIDE = "set aside"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the log, as far as progress depends on it.

    Attributes:
        step: its name, or the command of an operator.
        in_doubt: whether this attempt may have taken effect although it failed.
        in_flight: of a holder that was lost or failed: the steps that it may have begun; None: any that could begin.
        schedules: whether a newer version wrote the row and the saga cannot go on without understanding it.
    """

    step: str
    action: Action
    status: EntryStatus
    attempt: int = 1
    verdict: Verdict | None = None
    in_doubt: bool = False
    in_flight: tuple[str, ...] | None = None
    schedules: bool = False

    @property
    def known(self) -> bool:
        """Whether this version knows rows of this kind; others are carried along."""
        return isinstance(self.action, Action) and isinstance(self.status, EntryStatus)


@dataclass(frozen=True, slots=True)
class Perform:
    """Do this action of this step next."""

    step: PlannedStep
    action: Action
    attempt: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do; the saga ends so."""

    status: SagaStatus


def turned_back(log: Iterable[Entry]) -> bool:
    """Whether the saga has begun to compensate, and so never runs forward again."""
    return any(entry.verdict is Verdict.TURN_BACK or entry.action is Action.COMPENSATE for entry in log)


def next_move(plan: Plan, log: Sequence[Entry]) -> Perform | End:
    """Return what the saga does next.

    Raises:
        LogDoesNotFit: the log tells of steps that this plan lacks or has in another order.
    """
    done = _completed_acts(plan, log)
    if turned_back(log):
        return _next_backward(plan, log, done)
    if len(done) == len(plan.steps):
        return End(SagaStatus.COMPLETED)
    return _perform(plan.steps[len(done)], Action.ACT, log)


def status_before(move: Perform | End) -> SagaStatus:
    """Return where a saga stands whose next move this is."""
    if isinstance(move, End):
        return move.status
    return SagaStatus.RUNNING if move.action is Action.ACT else SagaStatus.COMPENSATING


def judge_failure(plan: Plan, log: Sequence[Entry], move: Perform, *, retryable: bool) -> Verdict:
    """Return what follows from the failure of this move.

    A step after the pivot is never compensated, and a compensation cannot be: when their attempts are spent,
    this attempt at the saga is given up, to be made again later.

    Args:
        retryable: whether the step's policy wants another attempt after an error of this kind.
    """
    if retryable and failures_in_a_row(log, move) + 1 < retry_policy(plan, log, move).max_attempts:
        return Verdict.RETRY
    if move.action is Action.COMPENSATE:
        others = [step for step in _owed(plan, log, _done_acts(log)) if step != move.step and not _set_aside(log, step)]
        return Verdict.SET_ASIDE if plan.compensate_past_failures and others else Verdict.GIVE_UP
    return Verdict.GIVE_UP if past_pivot(plan, log) else Verdict.TURN_BACK


def retry_policy(plan: Plan, log: Sequence[Entry], move: Perform) -> RetryPolicy:
    """Return the policy that says how often, and how soon, this action is tried again."""
    if move.action is Action.COMPENSATE:
        return move.step.kind.compensate_retry
    return move.step.kind.retry_after_pivot() if past_pivot(plan, log) else move.step.kind.retry


def failures_in_a_row(log: Sequence[Entry], move: Perform) -> int:
    """How often this action has failed since its attempts were last spent: what counts against its policy."""
    return _failures(log, move.step, move.action)


def _failures(log: Sequence[Entry], step: PlannedStep, action: Action) -> int:
    failures = 0
    for entry in reversed(log):
        if entry.action is action and entry.status is EntryStatus.FAILED:
            if entry.verdict is Verdict.GIVE_UP or (entry.step == step.name and entry.verdict is Verdict.SET_ASIDE):
                break
            failures += entry.step == step.name
    return failures


def _set_aside(log: Sequence[Entry], step: PlannedStep) -> bool:
    """Whether the attempts at this compensation are spent until the saga is next given up."""
    for entry in reversed(log):
        if entry.verdict is Verdict.GIVE_UP:
            return False
        if entry.verdict is Verdict.SET_ASIDE and entry.step == step.name:
            return True
    return False


def past_pivot(plan: Plan, log: Sequence[Entry]) -> bool:
    """Whether the saga may only go forward: the step that is its point of no return is done."""
    done = set(_done_acts(log))
    return any(step.kind.pivot and step.name in done for step in plan.steps)


def _done_acts(log: Sequence[Entry]) -> list[str]:
    done = (EntryStatus.COMPLETED, EntryStatus.SKIPPED)
    return [entry.step for entry in log if entry.action is Action.ACT and entry.status in done]


def _completed_acts(plan: Plan, log: Sequence[Entry]) -> list[str]:
    done = _done_acts(log)
    names = [step.name for step in plan.steps]
    for entry in log:
        if entry.schedules and not entry.known:
            raise LogDoesNotFit(
                f"the log of this saga has a row of the kind {entry.action} {entry.status}, which a newer version "
                "wrote: run that version."
            )
        of_a_step = entry.action in (Action.ACT, Action.COMPENSATE) and entry.status is not EntryStatus.STARTED
        if entry.step not in names and of_a_step:
            raise LogDoesNotFit(
                f"the log of this saga tells of step {entry.step!r}, which {plan.owner} does not have "
                f"(it has {', '.join(names)}): run the code that has it, or bring the step back under that name."
            )
    if done != names[: len(done)]:
        raise LogDoesNotFit(
            f"the log of this saga completed {', '.join(done)}, which is not how {plan.owner} begins "
            f"({', '.join(names[: len(done)])}): run the code that has this order."
        )
    return done


def _next_backward(plan: Plan, log: Sequence[Entry], done: Sequence[str]) -> Perform | End:
    owed = _owed(plan, log, done)
    if not owed:
        return End(SagaStatus.COMPENSATED)
    step = owed[0]
    if plan.compensate_past_failures:
        # Each is tried once before any is tried again.
        step = min(owed, key=lambda owed: (_set_aside(log, owed), _failures(log, owed, Action.COMPENSATE)))
    return _perform(step, Action.COMPENSATE, log)


def _owed(plan: Plan, log: Sequence[Entry], done: Sequence[str]) -> list[PlannedStep]:
    """The steps that are still to be compensated, the last first."""
    undone = {e.step for e in log if e.action is Action.COMPENSATE and e.status is EntryStatus.COMPLETED}
    undone |= {e.step for e in log if e.status is EntryStatus.SKIPPED}
    acted = {*done, *_in_doubt(plan, log)}
    return [
        step
        for step in reversed(plan.steps)
        if step.name in acted and step.name not in undone and step.kind.can_compensate()
    ]


def _in_doubt(plan: Plan, log: Sequence[Entry]) -> set[str]:
    """The steps that may have taken effect although the log has no row that says so."""
    doubtful = {entry.step for entry in log if entry.action is Action.ACT and entry.in_doubt}
    for place, entry in enumerate(log):
        if entry.action is Action.HOLDER:
            before = log[:place]
            done = _done_acts(before)
            if entry.in_flight is not None:
                doubtful.update(name for name in entry.in_flight if name not in done)
            elif len(done) < len(plan.steps) and not turned_back(before):
                doubtful.add(plan.steps[len(done)].name)
    return doubtful


def _perform(step: PlannedStep, action: Action, log: Sequence[Entry]) -> Perform:
    failed = sum(e.step == step.name and e.action is action and e.status is EntryStatus.FAILED for e in log)
    return Perform(step, action, failed + 1)
