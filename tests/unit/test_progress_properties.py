"""The laws of progress, for any graph, failures, order of events and crash: driven as the loop drives it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sagas import SagaStatus
from sagas.errors import LogDoesNotFit
from sagas.graph import Fallback, Graph, Node
from sagas.progress import Action, Entry, EntryStatus, Frontier, Move, Progress, Verdict, aborted, frontier

ACT, COMPENSATE = Action.ACT, Action.COMPENSATE


@dataclass(frozen=True)
class Plan:
    """A graph, and how often each action is tried, by the name of its step or fallback.

    Attributes:
        goes_on: the waits after whose timeout the saga goes on.
    """

    graph: Graph
    attempts: dict[str, int]
    undo_attempts: dict[str, int]
    past_failures: bool
    goes_on: frozenset[str]

    def maximum(self, move: Move) -> int:
        return (self.attempts if move.action is ACT else self.undo_attempts)[move.node.name]

    def owner(self, name: str) -> str:
        return self.graph.owners[name].name


@dataclass
class Run:
    """What a saga did, from an empty log to its end.

    Attributes:
        began: which moves were in flight when each row was written, by the row's place in the log.
        effects: actions that took effect, whether the log says so or not.
    """

    plan: Plan
    end: SagaStatus | None = None
    log: list[Entry] = field(default_factory=list)
    moves: list[tuple[int, Move]] = field(default_factory=list)
    effects: list[tuple[str, Action]] = field(default_factory=list)

    def completed(self, action: Action) -> list[str]:
        return [e.step for e in self.log if e.action is action and e.status is EntryStatus.COMPLETED]


@st.composite
def plans(draw: st.DrawFn, *, chains: bool = False, pivot_first: bool = False, falls_back: bool = False) -> Plan:
    count = draw(st.integers(1, 6))
    names = [f"s{index}" for index in range(count)]
    after = [
        (names[index - 1],)
        if chains and index
        else tuple(n for n in names[:index] if not chains and draw(st.booleans()))
        for index in range(count)
    ]
    kinds = [draw(st.sampled_from(["step"] * 4 + ["wait", "sleep"] * (not falls_back))) for _ in names]
    nodes = [Node(name=name, kind=kind, after=before) for name, kind, before in zip(names, kinds, after, strict=True)]
    pivots = [None, *(node.name for node in nodes if not node.waits and _orders_all(nodes, node.name))]
    pivots = pivots[1:2] if pivot_first and len(pivots) > 1 else pivots
    pivot = draw(st.sampled_from(pivots))
    later = set() if pivot is None else {node.name for node in nodes if pivot in _before(nodes, node.name)}
    fallbacks = st.sampled_from([1, 2] if falls_back else [0, 0, 1, 2])
    graph = Graph(
        "trip",
        1,
        tuple(
            replace(
                node,
                pivot=node.name == pivot,
                undoable=not node.waits and node.name not in later and draw(st.booleans()),
                fallbacks=tuple(
                    Fallback(name=f"{node.name}f{rank}", undoable=node.name not in later and draw(st.booleans()))
                    for rank in range(0 if node.waits else draw(fallbacks))
                ),
            )
            for node in nodes
        ),
    )
    return Plan(
        graph,
        {name: draw(st.integers(1, 3)) for name in graph.named},
        {name: draw(st.integers(1, 3)) for name in graph.named},
        past_failures=draw(st.booleans()),
        goes_on=frozenset(n.name for n in graph.nodes if n.kind == "sleep" or n.name in later or draw(st.booleans())),
    )


def _before(nodes: Sequence[Node], name: str) -> set[str]:
    """Everything that a node depends on, directly or not."""
    named = {node.name: node for node in nodes}
    found: set[str] = set()
    left = list(named[name].after)
    while left:
        found.add(each := left.pop())
        left += named[each].after
    return found


def _orders_all(nodes: Sequence[Node], name: str) -> bool:
    """Whether every other node comes before or after this one: only then may it be the pivot."""
    before = _before(nodes, name)
    return all(n.name == name or n.name in before or name in _before(nodes, n.name) for n in nodes)


def drive(plan: Plan, seed: int, failures: int, crashes: int) -> Run:
    """Run a saga as a holder does, several nodes at once, with this many failures and crashes at random moments."""
    chance, run, running = random.Random(seed), Run(plan), list[Move]()
    in_flight: tuple[str, ...] | None = None  # unknown until the holder's first write
    for _ in range(400):
        now = Progress(plan.graph, run.log, past_failures=plan.past_failures)
        ahead = now.frontier()
        if ahead.end is not None and not running:
            run.end = ahead.end
            return run
        waits = now.aborted and any(move.action is ACT for move in running)
        names = {move.node.name for move in running}
        for move in [] if waits else [m for m in ahead.ready if m.node.name not in names]:
            running.append(move)
            run.moves.append((len(run.log), move))
        if crashes and chance.random() < 0.2:
            crashes -= 1
            for move in running:
                if chance.random() < 0.5:
                    run.effects.append((move.node.name, move.action))
            run.log.append(Entry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=in_flight))
            running, in_flight = [], None
            continue
        if not running:
            _attend(run, ahead.awaiting, chance)
            in_flight = None  # the saga was put down, or another holder ended the wait
            continue
        move = running.pop(chance.randrange(len(running)))
        entry = Entry(step=move.node.name, action=move.action, status=EntryStatus.COMPLETED, attempt=move.attempt)
        if failures and chance.random() < 0.5:
            failures -= 1
            verdict = now.judge_failure(move, retryable=chance.random() < 0.7, max_attempts=plan.maximum(move))
            in_doubt = move.action is ACT and chance.random() < 0.3
            entry = replace(entry, status=EntryStatus.FAILED, verdict=verdict, in_doubt=in_doubt)
            if in_doubt:
                run.effects.append((move.node.name, move.action))
        else:
            run.effects.append((move.node.name, move.action))
        run.log.append(entry)
        ready = Progress(plan.graph, run.log, past_failures=plan.past_failures).frontier().ready
        in_flight = tuple(dict.fromkeys([*(m.node.name for m in running), *(m.node.name for m in ready)]))
    pytest.fail(f"no end: {run.log}")


def _attend(run: Run, awaiting: tuple[Move, ...], chance: random.Random) -> None:
    """Begin the waits, as a holder does that puts the saga down; or end one of them, by a signal or by its timeout."""
    begun = {entry.step for entry in run.log if entry.status is EntryStatus.ARMED}
    if not begun.issuperset(move.node.name for move in awaiting):
        run.moves += [(len(run.log), move) for move in awaiting if move.node.name not in begun]
        run.log += [
            Entry(step=move.node.name, action=ACT, status=EntryStatus.ARMED, seconds=60.0)
            for move in awaiting
            if move.node.name not in begun
        ]
        return
    move = chance.choice(awaiting)
    entry = Entry(step=move.node.name, action=ACT, status=EntryStatus.COMPLETED, attempt=move.attempt)
    if move.node.name not in run.plan.goes_on and chance.random() < 0.3:
        entry = replace(entry, status=EntryStatus.FAILED, verdict=Verdict.ABORT)
    run.log.append(entry)


def ended(log: Iterable[Entry]) -> list[Entry]:
    """Return the rows that say how an action ended, in order."""
    return [e for e in log if e.action in (ACT, COMPENSATE) and e.status is not EntryStatus.ARMED]


def runs(
    *, chains: bool = False, pivot_first: bool = False, falls_back: bool = False, crashes: int = 4
) -> st.SearchStrategy[Run]:
    """Runs of any plan.

    With ``falls_back``, nearly every run falls back: hypothesis refuses a test that throws most of its runs away.
    """
    return st.builds(
        drive,
        plans(chains=chains, pivot_first=pivot_first, falls_back=falls_back),
        st.integers(0, 2**32),
        st.integers(8 if falls_back else 0, 12),
        st.integers(0, crashes),
    )


# `make proofs` tries five times as many.
laws = settings(max_examples=int(os.environ.get("SAGAS_TEST_EXAMPLES", "100")))


@given(run=runs())
@laws
def test_every_saga_ends_one_way_or_the_other(run: Run) -> None:
    assert run.end is (SagaStatus.COMPENSATED if aborted(run.log) else SagaStatus.COMPLETED)


@given(run=runs())
@laws
def test_a_node_begins_only_after_all_that_it_depends_on(run: Run) -> None:
    for place, move in run.moves:
        acted = (e.step for e in run.log[:place] if e.action is ACT and e.status is EntryStatus.COMPLETED)
        done = set(map(run.plan.owner, acted))
        assert move.action is COMPENSATE or set(move.node.after) <= done
    assert run.end is not SagaStatus.COMPLETED or len(run.completed(ACT)) == len(run.plan.graph.nodes)


@given(run=runs())
@laws
def test_nothing_begins_forward_once_the_saga_has_aborted(run: Run) -> None:
    for place, move in run.moves:
        assert aborted(run.log[:place]) == (move.action is COMPENSATE)


@given(run=runs())
@laws
def test_every_effect_is_undone_if_the_saga_is_compensated(run: Run) -> None:
    assume(run.end is SagaStatus.COMPENSATED)
    last = {}
    for place, (name, action) in enumerate(run.effects):
        last[name, action] = place
    for node in run.plan.graph.named.values():
        if node.undoable and (node.name, ACT) in last:
            assert last.get((node.name, COMPENSATE), -1) > last[node.name, ACT]


@given(run=runs())
@laws
def test_only_what_succeeded_or_is_in_doubt_is_undone_and_once(run: Run) -> None:
    named = run.plan.graph.named
    may_have_acted = set(run.completed(ACT)) | {e.step for e in run.log if e.action is ACT and e.in_doubt}
    for place, entry in enumerate(run.log):
        if entry.action is Action.HOLDER:
            before = Progress(run.plan.graph, run.log[:place])
            ready = [] if before.aborted else [move.node.name for move in before.frontier().ready]
            may_have_acted.update(ready if entry.in_flight is None else entry.in_flight)
    undone = run.completed(COMPENSATE)

    assert len(undone) == len(set(undone))
    assert set(undone) <= {name for name in may_have_acted if named[name].undoable}
    assert run.end is SagaStatus.COMPENSATED or not undone


@given(run=runs())
@laws
def test_the_order_of_undoing_reverses_the_graph(run: Run) -> None:
    undone = run.completed(COMPENSATE)
    assume(not run.plan.past_failures)
    for place, name in enumerate(undone):
        owners = set(map(run.plan.owner, undone[:place]))
        assert not _before(run.plan.graph.nodes, run.plan.owner(name)) & owners
        alternates = [each.name for each in run.plan.graph.alternates[run.plan.owner(name)]]
        assert not set(alternates[: alternates.index(name)]) & set(undone[:place])


@given(run=runs())
@laws
def test_a_fallback_acts_only_after_what_it_stands_in_for_failed_for_good(run: Run) -> None:
    for place, move in run.moves:
        alternates = [each.name for each in run.plan.graph.alternates[run.plan.owner(move.node.name)]]
        fell_back = [e.step for e in run.log[:place] if e.verdict is Verdict.FALLBACK and e.step in alternates]

        assert move.action is COMPENSATE or fell_back == alternates[: alternates.index(move.node.name)]


@given(run=runs())
@laws
def test_one_alternate_of_a_node_succeeds_and_it_is_the_last_to_act(run: Run) -> None:
    acted = run.completed(ACT)

    assert len(set(map(run.plan.owner, acted))) == len(acted)
    for place, entry in enumerate(run.log):
        if entry.action is ACT and entry.status is EntryStatus.COMPLETED:
            alternates = {each.name for each in run.plan.graph.alternates[run.plan.owner(entry.step)]}
            assert not any(e.action is ACT and e.step in alternates for e in run.log[place + 1 :])


@given(run=runs())
@laws
def test_a_saga_aborts_or_fails_only_when_no_fallback_is_left(run: Run) -> None:
    for place, entry in enumerate(run.log):
        if entry.action is ACT and entry.verdict in (Verdict.ABORT, Verdict.FAIL_ATTEMPT):
            assert aborted(run.log[:place]) or entry.step not in run.plan.graph.next_alternate


@given(run=runs(chains=True, crashes=0))
@laws
def test_a_compensation_is_skipped_only_after_it_failed_and_if_the_saga_allows_it(run: Run) -> None:
    may_have_acted = {e.step for e in run.log if e.action is ACT and (e.verdict is None or e.in_doubt)}
    every = reversed(run.plan.graph.named.values())
    owed = [n.name for n in every if n.name in may_have_acted and n.undoable]
    tried: set[str] = set()
    since: set[str] = set()
    for entry in (entry for entry in run.log if entry.action is COMPENSATE):
        before = owed[: owed.index(entry.step)]
        assert set(before) <= (tried if run.plan.past_failures else set())
        tried.add(entry.step)
        since.add(entry.step)
        if entry.status is EntryStatus.COMPLETED:
            owed.remove(entry.step)
        assert entry.verdict is not Verdict.SET_ASIDE or (run.plan.past_failures and len(owed) > 1)
        if entry.verdict is Verdict.FAIL_ATTEMPT:
            assert not run.plan.past_failures or set(owed) <= since
            since.clear()


@given(run=runs(pivot_first=True) | runs(chains=True, pivot_first=True))
@laws
def test_saga_past_its_pivot_only_goes_forward(run: Run) -> None:
    pivots = {node.name for node in run.plan.graph.named.values() if node.pivot}
    assume(pivots & set(run.completed(ACT)))

    assert run.end is SagaStatus.COMPLETED
    assert all(move.action is ACT for _, move in run.moves)


@given(run=runs())
@laws
def test_an_attempt_is_given_up_only_by_what_cannot_abort(run: Run) -> None:
    pivots = {node.name for node in run.plan.graph.named.values() if node.pivot}
    for place, entry in enumerate(run.log):
        past_pivot = any(e.step in pivots and e.status is EntryStatus.COMPLETED for e in run.log[:place])
        forced = entry.action is COMPENSATE or past_pivot

        assert (entry.verdict in (Verdict.FAIL_ATTEMPT, Verdict.SET_ASIDE)) <= forced
        assert (entry.verdict is Verdict.ABORT) <= (not forced)


@given(run=runs())
@laws
def test_attempts_are_numbered_from_the_log(run: Run) -> None:
    for place, move in run.moves:
        failed = [e for e in ended(run.log[:place]) if (e.step, e.action) == (move.node.name, move.action)]

        assert move.attempt == len(failed) + 1


@given(run=runs())
@laws
def test_policy_is_asked_for_no_more_attempts_than_it_has(run: Run) -> None:
    in_a_row: dict[tuple[str, Action], int] = {}
    for entry in ended(run.log):
        key = (entry.step, entry.action)
        in_a_row[key] = in_a_row.get(key, 0) + 1
        move = Move(run.plan.graph.named[entry.step], entry.action, 1)

        assert in_a_row[key] <= run.plan.maximum(move) or entry.verdict is Verdict.ABORT
        if entry.verdict is Verdict.SET_ASIDE:
            in_a_row[key] = 0
        if entry.verdict is Verdict.FAIL_ATTEMPT:
            in_a_row = {other: count for other, count in in_a_row.items() if other[1] is not entry.action}


@given(run=runs(), moment=st.integers(0))
@laws
def test_any_worker_goes_on_from_any_prefix_of_the_log_as_the_first_one_did(run: Run, moment: int) -> None:
    cut = moment % (len(run.log) + 1)
    grown = Progress(run.plan.graph, past_failures=run.plan.past_failures)
    for entry in run.log[:cut]:
        grown.add(entry)
    elsewhere = Graph.parse(run.plan.graph.text)

    assert elsewhere == run.plan.graph
    assert grown.frontier() == frontier(elsewhere, run.log[:cut], past_failures=run.plan.past_failures)
    began = {move.node.name for place, move in run.moves if place == cut}
    following = grown.frontier()
    assert began <= {move.node.name for move in (*following.ready, *following.awaiting)}


@given(run=runs(), moment=st.integers(0))
@laws
def test_a_wait_is_awaited_from_its_turn_to_its_end_and_an_abort_ends_it(run: Run, moment: int) -> None:
    log = run.log[: moment % (len(run.log) + 1)]
    now = frontier(run.plan.graph, log, past_failures=run.plan.past_failures)

    done = {run.plan.owner(e.step) for e in log if e.action is ACT and e.status is EntryStatus.COMPLETED}
    open_waits = {n.name for n in run.plan.graph.nodes if n.waits and n.name not in done and done >= set(n.after)}
    assert {move.node.name for move in now.awaiting} == (set() if aborted(log) else open_waits)
    assert not any(move.node.waits for move in now.ready)


@given(run=runs())
@laws
def test_the_beginning_of_a_wait_is_kept_and_changes_nothing_else(run: Run) -> None:
    for place, entry in enumerate(run.log):
        if entry.status is EntryStatus.ARMED:
            before, after = (Progress(run.plan.graph, run.log[:cut]) for cut in (place, place + 1))

            assert (before.frontier(), before.status, before.in_doubt) == (
                after.frontier(),
                after.status,
                after.in_doubt,
            )
            assert entry.step not in before.armed
            assert Progress(run.plan.graph, run.log).armed[entry.step] == entry


@given(run=runs(), moment=st.integers(0), unknown=st.booleans())
@laws
def test_a_wait_is_never_in_doubt_and_never_undone(run: Run, moment: int, unknown: bool) -> None:
    cut = moment % (len(run.log) + 1)
    everything = None if unknown else tuple(run.plan.graph.named)
    lost = Entry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=everything)
    stop = Entry(step="cancel", action=Action.OPERATOR, status=EntryStatus.COMPLETED, verdict=Verdict.ABORT)
    now = Progress(run.plan.graph, [*run.log[:cut], lost, stop], past_failures=run.plan.past_failures)

    waits = {node.name for node in run.plan.graph.nodes if node.waits}
    assert not waits & now.in_doubt
    assert not waits & {move.node.name for move in now.frontier().ready}
    assert not waits & set(run.completed(COMPENSATE))


@given(plan=plans(), seed=st.integers(0, 2**32), steps=st.integers(0, 12), data=st.data())
@laws
def test_two_orders_of_independent_events_give_the_same_frontier(
    plan: Plan, seed: int, steps: int, data: st.DataObject
) -> None:
    """Ends of nodes that do not depend on each other, in the order that they came and in any other legal one."""
    chance, log = random.Random(seed), list[Entry]()
    for _ in range(steps):
        ready = frontier(plan.graph, log).ready
        if not ready:
            break
        name = chance.choice(ready).node.name
        if name in plan.graph.next_alternate and chance.random() < 0.5:
            log.append(Entry(step=name, action=ACT, status=EntryStatus.FAILED, verdict=Verdict.FALLBACK))
        else:
            log.append(Entry(step=name, action=ACT, status=EntryStatus.COMPLETED))
    shuffled = _legal_order(plan.graph, data.draw(st.permutations(log)))

    assert _same(frontier(plan.graph, log), frontier(plan.graph, shuffled))
    stop = Entry(step="stop", action=Action.OPERATOR, status=EntryStatus.COMPLETED, verdict=Verdict.ABORT)
    assert _same(frontier(plan.graph, [*log, stop]), frontier(plan.graph, [*shuffled, stop]))


def _legal_order(graph: Graph, entries: Iterable[Entry]) -> list[Entry]:
    """The entries as near to this order as the graph allows."""
    left, ordered = list(entries), list[Entry]()
    while left:
        ready = {move.node.name for move in frontier(graph, ordered).ready}
        following = next(entry for entry in left if entry.step in ready)
        left.remove(following)
        ordered.append(following)
    return ordered


def _same(one: Frontier, other: Frontier) -> bool:
    return (set(one.ready), set(one.awaiting), one.end) == (set(other.ready), set(other.awaiting), other.end)


@given(run=runs(), at=st.integers(0))
@laws
def test_log_of_a_saga_with_another_step_does_not_fit(run: Run, at: int) -> None:
    acts = [entry.step for entry in run.log if entry.action is ACT]
    assume(acts)
    renamed = acts[at % len(acts)]

    def changed(name: str) -> str:
        return "other" if name == renamed else name

    nodes = tuple(
        replace(
            node,
            name=changed(node.name),
            after=tuple(map(changed, node.after)),
            fallbacks=tuple(replace(fallback, name=changed(fallback.name)) for fallback in node.fallbacks),
        )
        for node in run.plan.graph.nodes
    )

    with pytest.raises(LogDoesNotFit, match=repr(renamed)):
        frontier(Graph("trip", 1, nodes), run.log)


@given(run=runs(chains=True), swap=st.integers(0))
@laws
def test_log_of_a_saga_in_another_order_does_not_fit(run: Run, swap: int) -> None:
    done = [run.plan.owner(name) for name in run.completed(ACT)]
    assume(len(done) >= 2)
    at = swap % (len(done) - 1)
    order = list(run.plan.graph.nodes)
    order[at], order[at + 1] = order[at + 1], order[at]

    with pytest.raises(LogDoesNotFit):
        frontier(Graph.chain("trip", 1, order), run.log)


@given(run=runs(falls_back=True), at=st.integers(0))
@laws
def test_log_of_a_saga_that_fell_back_does_not_fit_without_the_fallback(run: Run, at: int) -> None:
    fell_back = [e.step for e in run.log if e.verdict is Verdict.FALLBACK]
    assume(fell_back)
    owner = run.plan.owner(fell_back[at % len(fell_back)])
    nodes = tuple(replace(node, fallbacks=()) if node.name == owner else node for node in run.plan.graph.nodes)

    with pytest.raises(LogDoesNotFit):
        frontier(Graph("trip", 1, nodes), run.log)
