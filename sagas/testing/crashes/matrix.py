"""Every run there is to make of a saga, and which bug is to blame when one ends otherwise than it should."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from sagas.progress import Action, SagaStatus
from sagas.testing.crashes.keepsakes import Keepsake
from sagas.testing.crashes.plan import (
    Failure,
    How,
    Moment,
    Place,
    Plan,
    failures_of,
    places_that_differ,
    places_to_crash,
    places_to_crash_first,
)
from sagas.testing.crashes.rehearsal import SAGA_ID, Case, Run, rehearse
from sagas.testing.crashes.report import CrashMatrix, Fault, Finding
from sagas.testing.crashes.snapshot import Content, content, differences, without_notes

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
            before = self._new_world()
            base = self._run_undisturbed(None)
            if leftovers := list(differences(self._new_world(), before, "world")):
                self._blame((Fault.NOT_REPRODUCIBLE, "", ""), None, f"in a new world, {_shorten(leftovers)}")
            elif base.status is self._ends:
                self._run_failures()
                for failure, undisturbed in self._undisturbed.items():
                    if undisturbed.status.finished:
                        self._run_crashes(failure, undisturbed)
            else:
                self.cause = base.raised
        return CrashMatrix(saga=self._case.saga.name, plans=tuple(self._plans), findings=tuple(self._findings.values()))

    # -- running ----------------------------------------------------------------------------------------------

    def _new_world(self) -> Content:
        return content(self._case.look(self._case.make_world()))

    def _rehearse(self, failure: Failure | None, crashes: Sequence[int] = (), *, watch: bool = False) -> Run:
        run = rehearse(self._case, failure, crashes, watch=watch)
        self._plans.append(run.plan)
        return run

    def _run_undisturbed(self, failure: Failure | None) -> Run:
        run = self._rehearse(failure, watch=True)
        if failure is not None and not run.struck:
            return run  # the saga never comes to this step
        self._undisturbed[failure] = run
        for keepsake in run.keepsakes:
            if keepsake.certain:
                self._blame(_key_of(keepsake), None, str(keepsake))
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
            self._run_undisturbed(failure)
        for failure in filter(None, self._undisturbed):
            self._judge_failure(failure, self._undisturbed[failure])

    def _run_crashes(self, failure: Failure | None, undisturbed: Run) -> None:
        # Per place at which a crash ended wrong: the bugs to blame.
        guilty: dict[Place, list[_Key]] = {}
        first: dict[int, Run] = {}
        for index in places_to_crash(undisturbed.trace):
            run = first[index] = self._rehearse(failure, [index])
            problems = self._problems(run, self._expected(run, undisturbed))
            if problems:
                keys = self._suspects(run, undisturbed, index, guilty, problems)
                guilty[undisturbed.trace[index]._replace(process=0)] = keys
                for key in keys:
                    self._blame(key, run, _shorten(problems))
        if self._pairs:
            for index in places_to_crash_first(undisturbed.trace, failure):
                self._run_second_crashes(failure, undisturbed, first[index], index, guilty)

    def _run_second_crashes(
        self, failure: Failure | None, undisturbed: Run, first: Run, index: int, guilty: dict[Place, list[_Key]]
    ) -> None:
        for second in places_that_differ(first.trace):
            if second <= index:
                continue
            run = self._rehearse(failure, [index, second])
            problems = self._problems(run, self._expected(run, undisturbed))
            if problems:
                places = [place._replace(process=0) for place in (undisturbed.trace[index], first.trace[second])]
                known = next((guilty[place] for place in places if place in guilty), [])
                for key in known or self._suspects_of_pair(run, undisturbed, problems):
                    self._blame(key, run, _shorten(problems))

    # -- judging ----------------------------------------------------------------------------------------------

    def _judge_end(self, run: Run) -> None:
        """See whether a run without crashes ended as such a run may."""
        failure = run.plan.failure
        if not run.status.finished or (failure is None and run.status is not self._ends):
            if failure is not None and failure.how is not How.REFUSED and run.failed_step == failure.step:
                return  # judged beside the others
            wrong = f"ended {_status(run)} instead of {self._ends}" if failure is None else f"ended {_status(run)}"
            keys = [(Fault.ENDS_WRONG, run.failed_step or "", "")]
            if run.error and "ContextError" in run.error:
                lost = [_key_of(k) for k in run.keepsakes if k.in_context and k.step == run.failed_step]
                keys = lost or [(Fault.CONTEXT_LOST, run.failed_step or "", "")]
            for key in keys:
                self._blame(key, run, wrong)
        elif run.refused:
            key = self._alike(Fault.ENDS_WRONG, failure.step if failure else "", run.refused)
            self._blame(key, run, f"check: {run.refused}")

    def _judge_failure(self, failure: Failure, run: Run) -> None:
        """See whether a run in which a step failed left what a similar run did.

        A step that was tried again until it succeeded leaves what one leaves that succeeded at once; one whose request
        was lost, what a refused one leaves; one whose answer was lost, what one leaves that succeeded and was undone
        because the next one failed.
        """
        if not run.status.finished and (failure.how is How.REFUSED or run.failed_step != failure.step):
            return  # blamed already
        likes = self._like(failure, run)
        # A service may note that it was asked to undo what it never did.
        keys = [f"{SAGA_ID}:{failure.step}:{action}" for action in Action] if failure.how is How.REQUEST_LOST else []
        found = [self._problems(run, like, check=False, but_for=keys) for like in likes]
        if not run.status.finished and not likes:
            found = [[f"ended {_status(run)}"]]
        if not found or not all(found):
            return
        problems = found[0]
        repeated = self._known_end(run) or (_repeated(run, likes[0]) if likes else [])
        usual = {
            How.REFUSED: Fault.SECOND_ATTEMPT,
            How.ANSWER_LOST: Fault.ANSWER_LOST,
            How.REQUEST_LOST: Fault.UNDOES_BLINDLY,
        }[failure.how]
        for key in repeated or [(usual, failure.step, "")]:
            self._blame(key, run, _shorten(problems))

    def _like(self, failure: Failure, run: Run) -> list[Run]:
        steps = [step.name for step in self._case.saga.steps]
        position = steps.index(failure.step)
        if failure.once or run.status is SagaStatus.COMPLETED:
            return [self._undisturbed[None]]
        if failure.how is How.REQUEST_LOST:
            # A compensation may leave a mark against a request that comes late: then it leaves it in both cases.
            candidates = [(position, How.REFUSED), (position, How.ANSWER_LOST)]
        elif failure.how is How.ANSWER_LOST:
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

    def _problems(self, run: Run, expected: Run, *, check: bool = True, but_for: Collection[str] = ()) -> list[str]:
        """Say what is wrong with a run that should equal another, but for notes of these idempotency keys."""
        if run.status is not expected.status:
            return [f"ended {_status(run)} instead of {expected.status}"]
        problems = [f"check: {run.refused}"] if check and run.refused not in (None, expected.refused) else []
        failures = (run.plan.failure, expected.plan.failure)
        if not any((failure, "world") in self._incomparable for failure in failures):
            worlds = (run.world, expected.world)
            here, there = (without_notes(world, but_for) for world in worlds) if but_for else worlds
            problems += differences(here, there, "world")
        # What a compensated saga's context holds is nobody's result; and a retry may leave the attempt's number.
        comparable = run.status is SagaStatus.COMPLETED and failures[0] == failures[1]
        if comparable and (failures[0], "context") not in self._incomparable:
            problems += differences(run.context, expected.context, "context")
        return problems

    def _suspects(
        self, run: Run, undisturbed: Run, index: int, guilty: dict[Place, list[_Key]], problems: Sequence[str]
    ) -> list[_Key]:
        """Which bugs to blame for a run with one crash that ended wrong."""
        if keys := self._known_end(run):
            return keys
        place = undisturbed.trace[index]
        if place.repeats:
            # Had the process died just before this action, nothing would have run twice.
            if keys := guilty.get(place._replace(moment=Moment.BEFORE, process=0), []):
                return keys
            if keys := _repeated(run, undisturbed):
                return keys
        if keys := self._known_blind(run, undisturbed):
            return keys
        lost = [keepsake for keepsake, at in undisturbed.keepsakes.items() if keepsake.step and at <= index]
        for keepsake in lost:
            self._blame(_key_of(keepsake), None, str(keepsake))
        if lost:
            return [_key_of(keepsake) for keepsake in lost]
        following = next((p for p in undisturbed.trace[index:] if p.moment is Moment.BEFORE), place)
        return [self._alike(Fault.RESTART, following.step, _shorten(problems))]

    def _suspects_of_pair(self, run: Run, undisturbed: Run, problems: Sequence[str]) -> list[_Key]:
        """Which bugs to blame for a run with two crashes that ended wrong although either alone did not."""
        if keys := self._known_end(run) or self._known_blind(run, undisturbed):
            return keys
        repeated = _repeated(run, self._expected(run, undisturbed))
        known = [key for key in repeated if key in self._findings]
        return known or repeated[:1] or [self._alike(Fault.RESTART, run.plan.crashes[0].step, _shorten(problems))]

    def _known_blind(self, run: Run, undisturbed: Run) -> list[_Key]:
        """The compensations that run here for nothing, if they were seen to go wrong at that without a crash."""
        nothing = _undone_for_nothing(run) - _undone_for_nothing(undisturbed)
        keys: list[_Key] = [(Fault.UNDOES_BLINDLY, step, "") for step in sorted(nothing)]
        return [key for key in keys if key in self._findings]

    def _alike(self, fault: Fault, step: str, text: str) -> _Key:
        """The bug that left the same behind elsewhere, or else a new one of this step."""
        return next((key for key in self._findings if (key[0], key[2]) == (fault, text)), (fault, step, text))

    def _known_end(self, run: Run) -> list[_Key]:
        """What is to blame for a saga that did not end, if it would not have ended without crashes either."""
        key = (Fault.ENDS_WRONG, run.failed_step or "", "")
        return [key] if not run.status.finished and key in self._findings else []

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
        if times > max(1, expected.calls[step, action]) and (step, action) in run.succeeded
    ]


def _undone_for_nothing(run: Run) -> set[str]:
    compensated = {step for step, action in run.calls if action is Action.COMPENSATE}
    return {step for step in compensated if (step, Action.ACT) not in run.succeeded}


def _key_of(keepsake: Keepsake) -> _Key:
    return Fault.CONTEXT_LOST if keepsake.in_context else Fault.STATE_LOST, keepsake.step, keepsake.lost


def _shorten(problems: Sequence[str]) -> str:
    more = len(problems) - _SHOWN_DIFFERENCES
    shown = list(problems[:_SHOWN_DIFFERENCES])
    text = "; ".join(chain(shown, [f"and {more} more"] if more > 0 else []))
    return text.replace(f"{SAGA_ID}:", "")  # of idempotency keys, the rest says what they are for


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
