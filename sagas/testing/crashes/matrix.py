"""Every run there is to make of a saga, and which bug is to blame when one ends otherwise than it should."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from sagas.progress import Action, SagaStatus
from sagas.testing.crashes.keepsakes import Keepsake
from sagas.testing.crashes.plan import Failure, How, Moment, Place, Plan, crash_places, failures_of
from sagas.testing.crashes.rehearsal import Case, Run, rehearse
from sagas.testing.crashes.report import CrashMatrix, Fault, Finding
from sagas.testing.crashes.snapshot import differences

_SHOWN_DIFFERENCES: Final = 3
#: What tells one bug from another: the fault, the step, and what is lost, if something is.
_Key = tuple[Fault, str, str]


class Matrix:
    """All runs of one saga.

    Args:
        case: the saga.
        ends: how it ends when nothing goes wrong.
        pairs: whether to crash it twice, too.
    """

    def __init__(self, case: Case[Any, Any], *, ends: SagaStatus, pairs: bool) -> None:
        self._case = case
        self._ends = ends
        self._pairs = pairs
        self._plans: list[Plan] = []
        self._findings: dict[_Key, Finding] = {}
        # Per failing step, or None: the run without crashes to which those with crashes are compared.
        self._undisturbed: dict[Failure | None, Run] = {}
        self._incomparable: set[tuple[Failure | None, str]] = set()
        #: What a step raised when nothing had gone wrong yet.
        self.cause: BaseException | None = None

    def run(self) -> CrashMatrix:
        """Make every run, and report."""
        with _quiet():
            base = self._run_undisturbed(None)
            if base.status is self._ends:
                self._run_failures()
                for failure, undisturbed in self._undisturbed.items():
                    if undisturbed.status.finished:
                        self._run_crashes(failure, undisturbed)
            else:
                self.cause = base.raised
        return CrashMatrix(saga=self._case.saga.name, plans=tuple(self._plans), findings=tuple(self._findings.values()))

    # -- running ----------------------------------------------------------------------------------------------

    def _rehearse(self, failure: Failure | None, crashes: Sequence[int] = (), *, watch: bool = False) -> Run:
        run = rehearse(self._case, failure, crashes, watch=watch)
        self._plans.append(run.plan)
        return run

    def _run_undisturbed(self, failure: Failure | None) -> Run:
        run = self._undisturbed[failure] = self._rehearse(failure, watch=True)
        for keepsake in run.keepsakes:
            self._blame(_key_of(keepsake), None, _loss(keepsake))
        again = self._rehearse(failure)
        for what in ("world", "context"):
            found = list(differences(getattr(again, what), getattr(run, what), what))
            if found:
                self._incomparable.add((failure, what))
            if found and what == "world":
                self._blame((Fault.NOT_REPRODUCIBLE, "", ""), run, _shorten(found))
        self._judge_end(run)
        return run

    def _run_failures(self) -> None:
        for failure in failures_of(self._case.saga):
            run = self._run_undisturbed(failure)
            if not run.struck:
                del self._undisturbed[failure]
        for failure in filter(None, self._undisturbed):
            self._judge_failure(failure, self._undisturbed[failure])

    def _run_crashes(self, failure: Failure | None, undisturbed: Run) -> None:
        # Per place at which a crash ended wrong: the bugs to blame.
        guilty: dict[Place, list[_Key]] = {}
        first: dict[int, Run] = {}
        for index in crash_places(undisturbed.trace, every=True):
            run = first[index] = self._rehearse(failure, [index])
            problems = self._problems(run, self._expected(run, undisturbed))
            if problems:
                keys = self._suspects(run, undisturbed, index, guilty)
                guilty[undisturbed.trace[index]] = keys
                for key in keys:
                    self._blame(key, run, _shorten(problems))
        if self._pairs:
            for index in crash_places(undisturbed.trace, every=False):
                self._run_second_crashes(failure, undisturbed, first[index], index, guilty)

    def _run_second_crashes(
        self, failure: Failure | None, undisturbed: Run, first: Run, index: int, guilty: dict[Place, list[_Key]]
    ) -> None:
        for second in crash_places(first.trace, every=False):
            if second <= index:
                continue
            run = self._rehearse(failure, [index, second])
            problems = self._problems(run, self._expected(run, undisturbed))
            if problems:
                places = (undisturbed.trace[index], first.trace[second]._replace(process=1))
                keys = next((guilty[place] for place in places if place in guilty), None)
                for key in keys or self._suspects_of_pair(run, undisturbed):
                    self._blame(key, run, _shorten(problems))

    # -- judging ----------------------------------------------------------------------------------------------

    def _judge_end(self, run: Run) -> None:
        """See whether a run without crashes ended as such a run may."""
        failure = run.plan.failure
        if failure is None and run.status is not self._ends or not run.status.finished:
            if failure is not None and failure.how is not How.REFUSED:
                return  # judged beside the others
            lost = run.failed_step if run.error and "ContextError" in run.error else None
            wrong = f"ended {_status(run)} instead of {self._ends}" if failure is None else f"ended {_status(run)}"
            key = (Fault.CONTEXT_LOST if lost else Fault.ENDS_WRONG, run.failed_step or "", "")
            self._blame(key, run, wrong)
        elif run.refused:
            self._blame((Fault.ENDS_WRONG, failure.step if failure else "", run.refused), run, f"check: {run.refused}")

    def _judge_failure(self, failure: Failure, run: Run) -> None:
        """See whether a run in which a step failed left what a similar run did.

        A step that was tried again until it succeeded leaves what one leaves that succeeded at once; one whose request
        was lost, what a refused one leaves; one whose answer was lost, what one leaves that succeeded and was undone
        because the next one failed.
        """
        if not run.status.finished and failure.how is How.REFUSED:
            return  # blamed already
        likes = self._like(failure, run)
        problems: list[str] = []
        for like in likes:
            problems = self._problems(run, like)
            if not problems:
                return
        if not likes and not run.status.finished:
            problems = [f"ended {_status(run)}"]
        if not problems:
            return
        repeated = _repeated(run, likes[0]) if likes else []
        usual = {
            How.REFUSED: Fault.SECOND_ATTEMPT,
            How.ANSWER_LOST: Fault.ANSWER_LOST,
            How.REQUEST_LOST: Fault.UNDOES_NOTHING,
        }[failure.how]
        for key in repeated or [(usual, failure.step, "")]:
            self._blame(key, run, _shorten(problems))

    def _like(self, failure: Failure, run: Run) -> list[Run]:
        steps = [step.name for step in self._case.saga.steps]
        position = steps.index(failure.step)
        if run.status is SagaStatus.COMPLETED:
            return [self._undisturbed[None]]
        if failure.how is How.REQUEST_LOST:
            # A compensation may leave a mark against a request that comes late: then it leaves it in both cases.
            candidates = [(position, How.REFUSED), (position, How.ANSWER_LOST)]
        elif failure.how is How.ANSWER_LOST and not self._case.saga.steps[position].pivot:
            candidates = [(position + 1, How.REFUSED)]
        else:
            candidates = []
        likes = [self._last_failure(steps[at], how) for at, how in candidates if at < len(steps)]
        return [like for like in likes if like is not None and like.status is not SagaStatus.COMPLETED]

    def _last_failure(self, step: str, how: How) -> Run | None:
        for failure, run in self._undisturbed.items():
            if failure is not None and (failure.step, failure.how, failure.once) == (step, how, False):
                return run if run.status.finished else None
        return None

    def _expected(self, run: Run, undisturbed: Run) -> Run:
        """The run without crashes that this one should equal: a crash can leave it in doubt whether a step acted."""
        for step in _undone_for_nothing(run) - _undone_for_nothing(undisturbed):
            return self._last_failure(step, How.REQUEST_LOST) or undisturbed
        return undisturbed

    def _problems(self, run: Run, expected: Run) -> list[str]:
        if run.status is not expected.status:
            return [f"ended {_status(run)} instead of {expected.status}"]
        problems = [f"check: {run.refused}"] if run.refused not in (None, expected.refused) else []
        scenario = expected.plan.failure
        if (scenario, "world") not in self._incomparable and run.world != expected.world:
            problems += differences(run.world, expected.world, "world")
        # What a compensated saga's context holds is nobody's result; and a retry may leave the attempt's number.
        comparable = (scenario, "context") not in self._incomparable and run.plan.failure == scenario
        if run.status is SagaStatus.COMPLETED and comparable and run.context != expected.context:
            problems += differences(run.context, expected.context, "context")
        return problems

    def _suspects(self, run: Run, undisturbed: Run, index: int, guilty: dict[Place, list[_Key]]) -> list[_Key]:
        """Which bugs to blame for a run with one crash that ended wrong."""
        place = undisturbed.trace[index]
        if place.repeats:
            # Had the process died just before this action, nothing would have run twice.
            if keys := guilty.get(place._replace(moment=Moment.BEFORE)):
                return keys
            if keys := _repeated(run, undisturbed):
                return keys
        nothing = _undone_for_nothing(run) - _undone_for_nothing(undisturbed)
        keys = [(Fault.UNDOES_NOTHING, step, "") for step in sorted(nothing)]
        if any(key in self._findings for key in keys):
            return keys
        lost = [keepsake for keepsake, at in undisturbed.keepsakes.items() if keepsake.step and at <= index]
        if lost:
            return [_key_of(keepsake) for keepsake in lost]
        following = next((p for p in undisturbed.trace[index:] if p.moment is Moment.BEFORE), place)
        return keys or [(Fault.RESTART, following.step, "")]

    def _suspects_of_pair(self, run: Run, undisturbed: Run) -> list[_Key]:
        keys = _repeated(run, self._expected(run, undisturbed))
        nothing = _undone_for_nothing(run) - _undone_for_nothing(undisturbed)
        keys += [(Fault.UNDOES_NOTHING, step, "") for step in sorted(nothing)]
        known = [key for key in keys if key in self._findings]
        return known or keys[:1] or [(Fault.RESTART, run.plan.crashes[0].step, "")]

    def _blame(self, key: _Key, run: Run | None, left_behind: str) -> None:
        fault, step, _ = key
        finding = self._findings.setdefault(key, Finding(fault, step, None, left_behind))
        if run is None:
            return
        if finding.plan is None:
            finding.plan = run.plan
            if finding.left_behind != left_behind:
                finding.left_behind += f"; {left_behind}"
        finding.runs += 1


def _status(run: Run) -> str:
    why = f" ({run.error})" if run.error else ""
    return f"{run.status}{why}" if run.status.finished else f"dead{why}"


def _repeated(run: Run, expected: Run) -> list[_Key]:
    faults = {Action.ACT: Fault.ACT_NOT_REPEATABLE, Action.COMPENSATE: Fault.COMPENSATION_NOT_REPEATABLE}
    return [
        (faults[action], step, "")
        for (step, action), times in run.calls.items()
        if times > max(1, expected.calls[step, action])
    ]


def _undone_for_nothing(run: Run) -> set[str]:
    return {step for step, action in run.calls if action is Action.COMPENSATE and not run.calls[step, Action.ACT]}


def _key_of(keepsake: Keepsake) -> _Key:
    return Fault.CONTEXT_LOST if keepsake.in_context else Fault.STATE_LOST, keepsake.step, keepsake.lost


def _loss(keepsake: Keepsake) -> str:
    if keepsake.in_context:
        return f"stored and read back, {keepsake.lost}"
    return f"{keepsake.lost}, set by {keepsake.action}, is lost"


def _shorten(problems: Sequence[str]) -> str:
    more = len(problems) - _SHOWN_DIFFERENCES
    shown = list(problems[:_SHOWN_DIFFERENCES])
    return "; ".join(chain(shown, [f"and {more} more"] if more > 0 else []))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine from logging thousands of failures that are meant."""
    logger = logging.getLogger("sagas")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
