"""Make all runs of one saga, and report the bugs of runs that end differently than they should.

A run without crashes is a baseline. Runs with crashes must equal the baseline with the same failing step. A baseline
with a failing step must equal another baseline that should leave the same world. A bug is reported by the simplest plan
that shows it. The kind of the bug follows from that plan: from the step that failed, or from the place of the crash.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sagas.progress import Action, SagaStatus, Verdict
from sagas.testing.crashes.class_state import class_state
from sagas.testing.crashes.crash_plan import (
    CrashPlan,
    Failure,
    How,
    failures_of,
    in_doubt_instead,
    places_to_crash_first,
    refusals_after,
)
from sagas.testing.crashes.places import Moment, Place, Waiting, places_that_differ, places_to_crash
from sagas.testing.crashes.report import CrashFinding, CrashMatrix, Fault
from sagas.testing.crashes.simulated_process import SAGA_ID, describe
from sagas.testing.crashes.simulation import Case, Run, simulate
from sagas.testing.crashes.snapshot import Content, content, differences, without_notes

_SHOWN_DIFFERENCES: Final = 3


@dataclass
class _Crashes:
    """The runs with crashes that belong to one baseline.

    Attributes:
        baseline: the run without crashes.
        expected: runs; each run with crashes must equal one of them.
        runs: runs with one crash, by the position in the baseline's trace.
        guilty: the bug that a single crash at this place showed.
    """

    baseline: Run
    expected: list[Run]
    runs: dict[int, Run] = field(default_factory=dict)
    guilty: dict[Place, CrashFinding] = field(default_factory=dict)


class Matrix:
    """All runs of one saga.

    Args:
        case: the saga.
        ends: the status in which the saga ends when nothing goes wrong.
        pairs: whether to make runs with two crashes, too.
    """

    def __init__(self, case: Case[Any, Any], *, ends: SagaStatus, pairs: bool) -> None:
        self._case = case
        self._ends = ends
        self._pairs = pairs
        self._plans: list[CrashPlan] = []
        self._findings: list[CrashFinding] = []
        self._baselines: dict[Failure | None, Run] = {}
        #: The exception that a step raised when nothing had gone wrong yet.
        self.cause: BaseException | None = None

    def run(self) -> CrashMatrix:
        """Make all runs, and report the bugs."""
        with _quiet():
            before, on_classes = self._new_world()
            base = self._make_baseline(None)
            again, changed = self._new_world()
            for step, state in changed.items():
                if lost := differences(state, on_classes[step], ""):
                    self._report(Fault.STATE_LOST, step, base, lost)
            if leftovers := differences(again, before, "world"):
                self._report(Fault.NOT_REPRODUCIBLE, "", None, ["in a new world, " + leftovers[0], *leftovers[1:]])
            elif base.status is not self._ends:
                self.cause = base.raised
            elif None in self._baselines:
                self._run_failures()
        return CrashMatrix(saga=self._case.saga.name, plans=tuple(self._plans), findings=tuple(self._findings))

    def _run_failures(self) -> None:
        for failure in failures_of(self._case.saga, self._case.signals):
            self._make_baseline(failure)
        # Begin with failures that happen once: their plan is the simplest to show an act that cannot be repeated.
        for failure in sorted(filter(None, self._baselines), key=lambda failure: not failure.once):
            self._judge_failure(failure, self._baselines[failure])
        ended = [_Crashes(run, self._expected(run)) for run in self._baselines.values() if run.status.finished]
        for crashes in ended:
            self._run_crashes(crashes)
        for crashes in ended:
            if crashes.baseline.plan.failure is None:
                for wait in self._case.signals:
                    self._run_early_signal(wait, crashes)
        for crashes in ended if self._pairs else ():
            self._run_second_crashes(crashes)

    def _make_baseline(self, failure: Failure | None) -> Run:
        run = self._simulate(failure)
        if failure is not None and not run.struck:
            return run  # the saga never reaches this step
        again = self._simulate(failure)
        if found := differences(again.world, run.world, "world"):
            self._report(Fault.NOT_REPRODUCIBLE, "", run, found)
            return run
        self._baselines[failure] = run if again.context == run.context else replace(run, context=None)
        self._judge_end(run)
        return run

    def _run_crashes(self, crashes: _Crashes) -> None:
        trace = crashes.baseline.trace
        for index in places_to_crash(trace):
            run = crashes.runs[index] = self._simulate(crashes.baseline.plan.failure, index)
            if problems := self._problems(run, crashes.expected):
                finding = self._report_crash(trace[index], run, problems, crashes.guilty)
                crashes.guilty[_anywhere(trace[index])] = finding

    def _run_second_crashes(self, crashes: _Crashes) -> None:
        failure, trace = crashes.baseline.plan.failure, crashes.baseline.trace
        for index in places_to_crash_first(trace, failure):
            if _anywhere(trace[index]) in crashes.guilty:
                continue  # a single crash shows the bug
            after = crashes.runs[index].trace
            for second in places_that_differ(after):
                if second <= index:
                    continue
                run = self._simulate(failure, index, second)
                if problems := self._problems(run, crashes.expected):
                    self._report_crash(after[second], run, problems, crashes.guilty)

    def _run_early_signal(self, wait: str, crashes: _Crashes) -> None:
        """Let a signal come early: before the saga begins, when the wait is about to begin, and just before a crash."""
        trace = crashes.baseline.trace
        places = {place.waiting: index for index, place in reversed(list(enumerate(trace))) if place.step == wait}
        if Waiting.BEGINS not in places:
            return  # the saga never waits for it
        early, late = (self._simulate(None, early=(wait, position)) for position in (-1, places[Waiting.BEGINS]))
        for run in (early, late):
            if problems := self._problems(run, crashes.expected):
                self._report(Fault.EARLY_SIGNAL, wait, run, problems)
                return
        before = [(index, index, trace[index]) for index in places_to_crash(trace) if index < places[Waiting.RECEIVES]]
        after = [(-1, index, early.trace[index]) for index in places_to_crash(early.trace)]
        for position, index, place in (*before, *after):
            run = self._simulate(None, index, early=(wait, position))
            if problems := self._problems(run, crashes.expected):
                known = crashes.guilty.get(_anywhere(place))
                if known is None:
                    self._report(Fault.EARLY_SIGNAL, wait, run, problems)
                else:
                    known.runs += 1

    def _expected(self, baseline: Run) -> list[Run]:
        """Return the runs of which each run with crashes must equal one: a crash can put the failing step in doubt."""
        if baseline.status is not SagaStatus.COMPENSATED:
            return [baseline]
        failure = baseline.plan.failure
        if failure is not None and failure.earlier:
            return [baseline, *(self._simulate(other) for other in in_doubt_instead(failure) if other != failure)]
        return [baseline, *self._baselines_of((_failed_act(baseline), How.REQUEST_LOST, False))]

    def _judge_end(self, run: Run) -> None:
        """Report a run without crashes that ended in a wrong status."""
        failure = run.plan.failure
        lost = [entry for entry in run.failures if entry.error_type == "ContextError"]
        if lost:
            self._report(Fault.CONTEXT_LOST, lost[-1].step, run, [f"ended {_end(run, describe(lost[-1]))}"])
        elif failure is None and run.status is not self._ends:
            self._report(Fault.ENDS_WRONG, _failed_step(run), run, [f"ended {_end(run)} instead of {self._ends}"])
        elif not run.status.finished and not _judged_by_comparison(failure, run):
            self._report(Fault.ENDS_WRONG, _failed_step(run), run, [f"ended {_end(run)}"])
        elif run.refused:
            self._report(Fault.ENDS_WRONG, failure.step if failure else "", run, [f"check: {run.refused}"])

    def _judge_failure(self, failure: Failure, run: Run) -> None:
        """Report a run with a failing step, if it left another world than the run that should leave the same one.

        A step that succeeded after a retry must leave the same world as a step that succeeded at once. A step whose
        request was lost must leave the same as a refused step. A step whose answer was lost must leave the same as a
        step that succeeded and was undone because the next step failed. So must a wait that timed out.
        """
        dead = not run.status.finished
        # A compensation that always raises is one bug, for each effect that it should undo.
        always = self._known(Fault.ENDS_WRONG, failure.step) or self._known(Fault.CONTEXT_LOST, failure.step)
        if dead and (always or not _judged_by_comparison(failure, run)):
            return  # reported already
        fault, step, counterparts = self._counterparts(failure, run)
        # A service may note a request to undo an effect that it never had.
        lost = failure.how is How.REQUEST_LOST
        notes = [f"{SAGA_ID}:{failure.step}:{action}" for action in Action] if lost else []
        problems = self._problems(replace(run, refused=None), counterparts, notes)
        if dead and not counterparts:
            problems = [f"ended {_end(run)}"]
        if problems:
            self._report(fault, step, run, problems)

    def _counterparts(self, failure: Failure, run: Run) -> tuple[Fault, str, list[Run]]:
        """Return the runs of which one should have left the same world, and the bug and its step if none did."""
        repeated = Fault.ACT_NOT_REPEATABLE if failure.how is How.ANSWER_LOST else Fault.SECOND_ATTEMPT
        before = failure.key[:-1]
        if failure.how is How.NO_SIGNAL:
            # Only a timeout that aborts has a counterpart: a saga that goes on without the signal is another one.
            following = refusals_after(self._case.saga, failure.step) if _failed_act(run) == failure.step else ()
            found = self._baselines_of(*_keys(following)) if following else []
            return Fault.UNDOES_BY_SIGNAL, failure.step, [r for r in found if r.status is SagaStatus.COMPENSATED]
        if failure.once or run.status is SagaStatus.COMPLETED:
            # After a fallback, the world is another one, and no other run is known to leave the same.
            return repeated, failure.step, [] if _fell_back(failure, run) else self._baselines_of(*before)
        fault, step, found = Fault.SECOND_ATTEMPT, failure.step, list[Run]()
        doubtful = next((place for place, each in enumerate(failure.chain) if each.how is How.ANSWER_LOST), None)
        if failure.how is How.REQUEST_LOST:
            # A compensation may leave a mark against a late request. It then leaves the mark in both cases.
            fault = Fault.UNDOES_BLINDLY
            found = [
                other
                for how in (How.REFUSED, How.ANSWER_LOST)
                for other in self._baselines_of(*before, (failure.step, how, False))
            ]
        elif doubtful is not None:
            step = failure.chain[doubtful].step
            fault = repeated if failure.attempts > 1 and self._known(repeated, step) else Fault.ANSWER_LOST
            following = refusals_after(self._case.saga, step)
            found = self._baselines_of(*failure.key[:doubtful], *_keys(following)) if following else []
        return fault, step, [other for other in found if other.status is SagaStatus.COMPENSATED]

    def _problems(self, run: Run, expected: Sequence[Run], notes: Collection[str] = ()) -> list[str]:
        """Describe how a run differs from all of these runs, except for notes of these idempotency keys."""
        found = [self._differences(run, other, notes) for other in expected]
        return min(found, key=len, default=[])

    def _differences(self, run: Run, expected: Run, notes: Collection[str]) -> list[str]:
        if run.status is not expected.status:
            return [f"ended {_end(run)} instead of {expected.status}"]
        problems = [f"check: {run.refused}"] if run.refused not in (None, expected.refused) else []
        world, other = (without_notes(it, notes) if notes else it for it in (run.world, expected.world))
        problems += differences(world, other, "world")
        # The context of a compensated saga is no result, and a retry may leave the number of the attempt in it.
        comparable = run.status is SagaStatus.COMPLETED and run.plan.failure == expected.plan.failure
        if comparable and expected.context is not None:
            problems += differences(run.context, expected.context, "context")
        return problems

    def _report_crash(
        self, place: Place, run: Run, problems: list[str], guilty: dict[Place, CrashFinding]
    ) -> CrashFinding:
        """Report a run by its last crash, given the bugs at earlier places of the same trace."""
        known = guilty.get(_anywhere(place))
        if place.repeats:
            # If a crash right before the action ends wrong, too, the repeated action is not the cause.
            known = known or guilty.get(_anywhere(place._replace(moment=Moment.BEFORE)))
            acts = Fault.RECEIVED_NOT_REPEATABLE if place.waiting else Fault.ACT_NOT_REPEATABLE
            fault = acts if place.action is Action.ACT else Fault.COMPENSATION_NOT_REPEATABLE
        else:
            # State that was lost at one place is also lost at later places.
            known = known or next((finding for finding in guilty.values() if finding.fault is Fault.STATE_LOST), None)
            fault = Fault.STATE_LOST
        if known is None:
            return self._report(fault, place.step, run, problems)
        known.runs += 1
        return known

    def _report(self, fault: Fault, step: str, run: Run | None, problems: Sequence[str]) -> CrashFinding:
        """Add a finding, or count the run for the finding that is known already."""
        text = _shorten(problems)
        finding = self._known(fault, step, text)
        if finding is None:
            finding = CrashFinding(fault, step, run.plan if run else None, text)
            self._findings.append(finding)
        finding.runs += run is not None
        return finding

    def _known(self, fault: Fault, step: str, text: str = "") -> CrashFinding | None:
        """Return the finding of the same bug; without a crash, equal texts mean the same bug, for any failing step."""
        alike = [finding for finding in self._findings if finding.fault is fault]
        same = (f for f in alike if f.step == step or (fault is Fault.ENDS_WRONG and f.left_behind == text))
        return next(same, None)

    def _baselines_of(self, *key: tuple[str, How, bool]) -> list[Run]:
        """Return the baseline in which these steps fail, in this order, if there is one."""
        return [run for failure, run in self._baselines.items() if (failure.key if failure else ()) == key]

    def _new_world(self) -> tuple[Content, dict[str, Content]]:
        """Return the content of a new world, and the data on the steps' classes that does not belong to the world."""
        world = self._case.make_world()
        return content(self._case.look(world)), class_state(self._case.saga, world)

    def _simulate(self, failure: Failure | None, *crashes: int, early: tuple[str, int] | None = None) -> Run:
        run = simulate(self._case, failure, crashes, early)
        self._plans.append(run.plan)
        return run


def _judged_by_comparison(failure: Failure | None, run: Run) -> bool:
    """Whether the saga did not end because the step in doubt could not be undone; such bugs have their own kinds."""
    in_doubt = [] if failure is None else [each.step for each in failure.chain if each.how.in_doubt]
    return _failed_step(run) in in_doubt


def _keys(failures: Sequence[Failure]) -> list[tuple[str, How, bool]]:
    return [(failure.step, failure.how, failure.once) for failure in failures]


def _fell_back(failure: Failure, run: Run) -> bool:
    return any(entry.step == failure.step and entry.verdict is Verdict.FALLBACK for entry in run.failures)


def _anywhere(place: Place) -> Place:
    """Return the place without the number of the process."""
    return place._replace(process=0)


def _failed_step(run: Run) -> str:
    return run.failures[-1].step if run.failures else ""


def _failed_act(run: Run) -> str:
    return next((entry.step for entry in reversed(run.failures) if entry.action is Action.ACT), "")


def _end(run: Run, error: str | None = None) -> str:
    why = f" ({error or run.error})" if error or run.error else ""
    return f"{run.status if run.status.finished else 'dead'}{why}"


def _shorten(problems: Sequence[str]) -> str:
    more = len(problems) - _SHOWN_DIFFERENCES
    text = "; ".join([*problems[:_SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])
    return text.replace(f"{SAGA_ID}:", "")  # the rest of an idempotency key names the action


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine from logging thousands of intended failures."""
    logger = logging.getLogger("sagas")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
