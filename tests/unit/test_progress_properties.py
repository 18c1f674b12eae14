"""The laws of progress, for any definition, any failures, any cut: driven as execution drives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sagas import RetryPolicy, SagaStatus
from sagas.errors import LogDoesNotFit
from sagas.plan import Plan, plan_of
from sagas.progress import Action, End, Entry, EntryStatus, Perform, Verdict, judge_failure, next_move, turned_back
from tests.samples import Stage


@dataclass(frozen=True)
class StepPlan:
    undo: bool
    pivot: bool
    max_attempts: int
    undo_attempts: int


@dataclass(frozen=True)
class Failure:
    """One failure of the action it meets; a success is None."""

    retryable: bool
    in_doubt: bool


@dataclass
class Run:
    """What a saga did, from an empty log to its end."""

    plan: tuple[StepPlan, ...]
    past_failures: bool
    saga: Plan
    end: SagaStatus = SagaStatus.RUNNING
    log: list[Entry] = field(default_factory=list)
    moves: list[Perform] = field(default_factory=list)

    def completed(self, action: Action) -> list[str]:
        return [e.step for e in self.log if e.action is action and e.status is EntryStatus.COMPLETED]


@st.composite
def plans(draw: st.DrawFn) -> tuple[StepPlan, ...]:
    count = draw(st.integers(1, 6))
    pivot = draw(st.none() | st.integers(0, count - 1))
    return tuple(
        StepPlan(
            undo=draw(st.booleans()) and (pivot is None or index <= pivot),
            pivot=index == pivot,
            max_attempts=draw(st.integers(1, 3)),
            undo_attempts=draw(st.integers(1, 3)),
        )
        for index in range(count)
    )


outcomes = st.lists(st.none() | st.builds(Failure, st.booleans(), st.booleans()), max_size=25)


def saga_of(plan: tuple[StepPlan, ...], past_failures: bool = False) -> Plan:
    stage = Stage()
    steps = [
        stage.step(
            f"s{index}",
            undo=() if step.undo else None,
            pivot=step.pivot,
            retry=RetryPolicy(max_attempts=step.max_attempts),
            compensate_retry=RetryPolicy(max_attempts=step.undo_attempts),
        )
        for index, step in enumerate(plan)
    ]
    return plan_of(stage.saga(*steps, compensate_past_failures=past_failures))


def drive(plan: tuple[StepPlan, ...], past_failures: bool, script: Sequence[Failure | None]) -> Run:
    """Let the saga meet the outcomes one by one, and success after the last."""
    run, left = Run(plan, past_failures, cached_saga_of(plan, past_failures)), iter(script)
    for move in _moves(run, limit=len(script) + 2 * len(plan) + 1):
        failure = next(left, None)
        entry = Entry(step=move.step.name, action=move.action, status=EntryStatus.COMPLETED, attempt=move.attempt)
        if failure is not None:
            verdict = judge_failure(run.saga, tuple(run.log), move, retryable=failure.retryable)
            entry = replace(entry, status=EntryStatus.FAILED, verdict=verdict, in_doubt=failure.in_doubt)
        run.log.append(entry)
    return run


def _moves(run: Run, *, limit: int) -> Iterator[Perform]:
    for _ in range(limit):
        move = next_move(run.saga, tuple(run.log))
        if isinstance(move, End):
            run.end = move.status
            return
        run.moves.append(move)
        yield move
    pytest.fail(f"no end after {limit} moves: {run.log}")


cached_saga_of = lru_cache(maxsize=500)(saga_of)

runs = st.builds(drive, plans(), st.booleans(), outcomes)

laws = settings(max_examples=200, deadline=None)


@given(run=runs)
@laws
def test_every_saga_ends_one_way_or_the_other(run: Run) -> None:
    assert run.end is (SagaStatus.COMPENSATED if turned_back(run.log) else SagaStatus.COMPLETED)


@given(run=runs)
@laws
def test_steps_are_completed_in_order_without_a_gap(run: Run) -> None:
    done = run.completed(Action.ACT)

    assert done == [step.name for step in run.saga.steps][: len(done)]
    assert run.end is not SagaStatus.COMPLETED or len(done) == len(run.saga.steps)


@given(run=runs)
@laws
def test_saga_that_turned_back_never_acts_again(run: Run) -> None:
    actions = [entry.action for entry in run.log]
    turns = [i for i, entry in enumerate(run.log) if entry.verdict is Verdict.TURN_BACK]

    assert len(turns) <= 1
    after = actions[turns[0] + 1 :] if turns else []
    assert set(after) <= {Action.COMPENSATE}
    assert Action.COMPENSATE not in actions[: len(actions) - len(after)]


@given(run=runs)
@laws
def test_what_may_have_taken_effect_is_undone_in_reverse_and_nothing_else(run: Run) -> None:
    may_have_acted = {e.step for e in run.log if e.action is Action.ACT and (e.verdict is None or e.in_doubt)}
    expected = [s.name for s in reversed(run.saga.steps) if s.name in may_have_acted and s.kind.can_compensate()]

    undone = run.completed(Action.COMPENSATE)
    if run.past_failures:
        undone, expected = sorted(undone), sorted(expected)
    assert undone == (expected if run.end is SagaStatus.COMPENSATED else [])


@given(run=runs)
@laws
def test_a_compensation_is_passed_over_only_after_it_failed_and_where_the_saga_says_so(run: Run) -> None:
    may_have_acted = {e.step for e in run.log if e.action is Action.ACT and (e.verdict is None or e.in_doubt)}
    owed = [s.name for s in reversed(run.saga.steps) if s.name in may_have_acted and s.kind.can_compensate()]
    tried: set[str] = set()
    for entry in (entry for entry in run.log if entry.action is Action.COMPENSATE):
        before = owed[: owed.index(entry.step)]
        assert set(before) <= (tried if run.past_failures else set())
        tried.add(entry.step)
        if entry.status is EntryStatus.COMPLETED:
            owed.remove(entry.step)
        assert entry.verdict is not Verdict.SET_ASIDE or (run.past_failures and len(owed) > 1)


@given(run=runs)
@laws
def test_every_owed_compensation_is_tried_before_an_attempt_is_given_up(run: Run) -> None:
    assume(run.past_failures)
    since: set[str] = set()
    owed: set[str] = set()
    for entry in run.log:
        if entry.action is Action.ACT:
            kind = next(step.kind for step in run.saga.steps if step.name == entry.step)
            owed |= {entry.step} if (entry.verdict is None or entry.in_doubt) and kind.can_compensate() else set()
            continue
        since.add(entry.step)
        if entry.status is EntryStatus.COMPLETED:
            owed.remove(entry.step)
        if entry.verdict is Verdict.GIVE_UP:
            assert owed <= since
            since.clear()


@given(run=runs)
@laws
def test_saga_past_its_pivot_only_goes_forward(run: Run) -> None:
    pivots = {step.name for step in run.saga.steps if step.kind.pivot}
    assume(pivots & set(run.completed(Action.ACT)))

    assert run.end is SagaStatus.COMPLETED
    assert all(move.action is Action.ACT for move in run.moves)


@given(run=runs)
@laws
def test_only_what_cannot_turn_back_is_given_up(run: Run) -> None:
    pivots = {step.name for step in run.saga.steps if step.kind.pivot}
    for index, entry in enumerate(run.log):
        past_pivot = any(e.step in pivots and e.status is EntryStatus.COMPLETED for e in run.log[:index])
        forced = entry.action is Action.COMPENSATE or past_pivot

        assert (entry.verdict in (Verdict.GIVE_UP, Verdict.SET_ASIDE)) <= forced
        assert (entry.verdict is Verdict.TURN_BACK) <= (not forced)


@given(run=runs)
@laws
def test_attempts_are_numbered_from_the_log(run: Run) -> None:
    for index, move in enumerate(run.moves):
        before = [e for e in run.log[:index] if (e.step, e.action) == (move.step.name, move.action)]

        assert move.attempt == len(before) + 1


@given(run=runs)
@laws
def test_policy_is_asked_for_no_more_attempts_than_it_has(run: Run) -> None:
    limits = {}
    for step in run.saga.steps:
        limits[step.name, Action.ACT] = step.kind.retry.max_attempts
        limits[step.name, Action.COMPENSATE] = step.kind.compensate_retry.max_attempts
    in_a_row: dict[tuple[str, Action], int] = {}
    for entry in run.log:
        key = (entry.step, entry.action)
        in_a_row[key] = in_a_row.get(key, 0) + 1

        assert in_a_row[key] <= limits[key]
        if entry.verdict is Verdict.SET_ASIDE:
            in_a_row[key] = 0
        if entry.verdict is Verdict.GIVE_UP:
            in_a_row.clear()


@given(run=runs)
@laws
def test_any_worker_goes_on_from_any_prefix_of_the_log_as_the_first_one_did(run: Run) -> None:
    same_code_elsewhere = saga_of(run.plan, run.past_failures)
    for cut in range(len(run.log) + 1):
        prefix = list(run.log[:cut])
        expected = run.moves[cut] if cut < len(run.moves) else End(run.end)

        assert next_move(run.saga, prefix) == expected
        assert shown(next_move(same_code_elsewhere, prefix)) == shown(expected)
        assert prefix == run.log[:cut]


def shown(move: Perform | End) -> object:
    return move if isinstance(move, End) else (move.step.name, move.action, move.attempt)


@given(run=runs, at=st.integers(0))
@laws
def test_log_of_a_saga_with_another_step_does_not_fit(run: Run, at: int) -> None:
    acts = [i for i, entry in enumerate(run.log) if entry.action is Action.ACT]
    names = [entry.step for entry in run.log]
    renamed = names[acts[at % len(acts)]]
    other = plan_of(Stage().saga(*("other" if s.name == renamed else s.name for s in run.saga.steps)))

    with pytest.raises(LogDoesNotFit):
        next_move(other, run.log)


@given(run=runs, swap=st.integers(0))
@laws
def test_log_of_a_saga_in_another_order_does_not_fit(run: Run, swap: int) -> None:
    done = run.completed(Action.ACT)
    assume(len(done) >= 2)
    at = swap % (len(done) - 1)
    order = [step.name for step in run.saga.steps]
    order[at], order[at + 1] = order[at + 1], order[at]

    with pytest.raises(LogDoesNotFit):
        next_move(plan_of(Stage().saga(*order)), run.log)
