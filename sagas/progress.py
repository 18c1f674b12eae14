"""Computes what a saga does next from its graph and its log alone: no I/O, no clock, no randomness.

The log holds what *ended*. A node's state is a fold over its events. The log also gives the direction: once a row says
that the saga aborted, no action begins forward, and the saga only goes backward (strict backward recovery).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sagas import compensation
from sagas.errors import LogDoesNotFit
from sagas.graph import Graph, Node


class SagaStatus(StrEnum):
    """A saga's business status. It is stored and shown by the same word."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        """Whether the saga has ended for good."""
        return self in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)


#: Statuses of sagas that recovery acquires: they have begun and are not finished.
RECOVERABLE = (SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.FAILED)


class Action(StrEnum):
    """What a row of the log is about: an action of a step, an operator action, or how a holder ended."""

    ACT = "act"
    COMPENSATE = "compensate"
    OPERATOR = "operator"
    HOLDER = "holder"


class EntryStatus(StrEnum):
    """How an action or a holder ended.

    SKIPPED: an operator settled the step, so code neither acts nor compensates it from then on. LOST: a lease expired
    or was reclaimed. DECLINED: a holder's code did not fit. ARMED: a wait or a sleep has begun. STARTED: only logs that
    an older layout wrote have it.
    """

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOST = "lost"
    DECLINED = "declined"
    ARMED = "armed"
    STARTED = "started"


class Verdict(StrEnum):
    """What was decided when an action failed. The log keeps the verdict, so that later code cannot decide differently.

    FALLBACK: the step goes on with its fallback. ABORT: the saga unwinds. SET_ASIDE: the attempts at a compensation are
    spent; other steps are compensated before it is tried again. FAIL_ATTEMPT: this attempt at the saga fails, and
    another follows.
    """

    RETRY = "retry"
    FALLBACK = "fall back"
    ABORT = "abort"
    SET_ASIDE = "set aside"
    FAIL_ATTEMPT = "fail the attempt"

    @classmethod
    def _missing_(cls, value: object) -> Verdict | None:
        # Logs that version 0.1.0 wrote have other words.
        return {"turn back": cls.ABORT, "give up": cls.FAIL_ATTEMPT}.get(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the log, as far as progress depends on it.

    Attributes:
        step: the name of the node or of its fallback, or the command of an operator.
        in_doubt: whether this attempt may have taken effect although it failed.
        in_flight: the steps that a holder that was lost or failed may have begun; None for any that could begin.
        schedules: whether a newer version wrote the row and only code that understands the row can continue the saga.
        seconds: how long a wait lasts that began with this row; None for a wait without an end.
    """

    step: str
    action: Action
    status: EntryStatus
    attempt: int = 1
    verdict: Verdict | None = None
    in_doubt: bool = False
    in_flight: tuple[str, ...] | None = None
    schedules: bool = False
    seconds: float | None = None

    @property
    def known(self) -> bool:
        """Whether this version knows rows of this kind. Rows of other kinds stay in the log and are ignored."""
        return isinstance(self.action, Action) and isinstance(self.status, EntryStatus)


@dataclass(frozen=True, slots=True)
class Move:
    """One attempt at an action of a node or of its fallback; `attempt` is 1 for the first in the log."""

    node: Node
    action: Action
    attempt: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """What can be done now.

    Attributes:
        ready: the moves that may begin, in any order or at once.
        awaiting: the nodes that wait for a signal or for a time, and that nothing else holds up.
        end: how the saga ends, if nothing is left to do.
    """

    ready: tuple[Move, ...] = ()
    awaiting: tuple[Move, ...] = ()
    end: SagaStatus | None = None


def aborted(log: Iterable[Entry]) -> bool:
    """Whether the saga has begun to compensate. Such a saga never runs forward again."""
    return any(entry.verdict is Verdict.ABORT or entry.action is Action.COMPENSATE for entry in log)


def frontier(graph: Graph, log: Iterable[Entry], *, past_failures: bool = False) -> Frontier:
    """Return what a saga of this graph can do after this log.

    Args:
        past_failures: whether earlier nodes are compensated while a later one's compensation fails.

    Raises:
        LogDoesNotFit: this graph cannot have written the log.
    """
    return Progress(graph, log, past_failures=past_failures).frontier()


class Progress:
    """The state of a saga: its log, folded over its graph. `add` folds in one more event.

    Args:
        graph: the graph that the saga was started with.
        log: what has ended so far.
        past_failures: whether earlier nodes are compensated while a later one's compensation fails.

    Raises:
        LogDoesNotFit: this graph cannot have written the log.
    """

    def __init__(self, graph: Graph, log: Iterable[Entry] = (), *, past_failures: bool = False) -> None:
        self.graph = graph
        self.past_failures = past_failures
        self.aborted = False
        self._done: set[str] = set()  # the nodes and fallbacks that have acted
        self._succeeded: set[str] = set()  # the nodes of which one alternate has acted
        # The nodes that may act, kept up to date: to look through a long graph after each step takes its square.
        # The value is the alternate whose turn it is: the node itself, or a fallback.
        self._open: dict[str, Node] = {node.name: node for node in graph.nodes if not node.after}
        self._past_pivot = False
        self._doubtful: set[str] = set()
        self._settled: set[str] = set()  # compensated, or settled by an operator
        self._attempts: Counter[tuple[str, Action]] = Counter()
        self._in_a_row: Counter[tuple[str, Action]] = Counter()
        self._set_aside: set[str] = set()
        #: The rows with which waits began, by the name of their node.
        self.armed: dict[str, Entry] = {}
        for entry in log:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Add one event.

        Raises:
            LogDoesNotFit: a saga of this graph cannot have this event.
        """
        if not entry.known:
            if entry.schedules:
                raise LogDoesNotFit(
                    f"the log of this saga has a row of the kind {entry.action} {entry.status}, which a newer version "
                    "wrote: run that version of celery-sagas."
                )
            return
        if entry.action is Action.HOLDER:
            self._holder_lost(entry)
        elif entry.action is Action.OPERATOR:
            if entry.in_doubt:  # version 0.1.0 wrote such an abort without the step that may have begun
                self._doubt(node.name for node in self._forward())
        elif entry.status is EntryStatus.ARMED:
            self._node_of(entry)
            self.armed[entry.step] = entry
        elif entry.status is not EntryStatus.STARTED:
            self._step_ended(entry)
        self.aborted = self.aborted or entry.verdict is Verdict.ABORT or entry.action is Action.COMPENSATE

    def _step_ended(self, entry: Entry) -> None:
        node = self._node_of(entry)
        if entry.action is Action.ACT:
            self._require_turn(node)
        if entry.status is EntryStatus.FAILED:
            self._step_failed(node, entry)
            return
        if entry.action is Action.ACT:
            if entry.step in self._done:
                raise LogDoesNotFit(
                    f"the log of this saga completed {entry.step!r} twice, which is not the order of "
                    f"{self.graph.saga}: run the code that has this order."
                )
            if not self._succeeded.issuperset(node.after):
                early = ", ".join(name for name in node.after if name not in self._succeeded)
                raise LogDoesNotFit(
                    f"the log of this saga completed {entry.step!r} before {early}, which is not the order of "
                    f"{self.graph.saga}: run the code that has this order."
                )
            self._act_done(node)
        else:
            self._settled.add(entry.step)
        if entry.status is EntryStatus.SKIPPED:
            self._settled.add(entry.step)

    def _node_of(self, entry: Entry) -> Node:
        node = self.graph.named.get(entry.step)
        if node is None:
            raise LogDoesNotFit(
                f"the log of this saga has the step {entry.step!r}, which {self.graph.saga} does not have "
                f"(it has {', '.join(self.graph.named)}): run the code that has this step, or bring the step back "
                "under that name."
            )
        return node

    def _step_failed(self, node: Node, entry: Entry) -> None:
        key = (entry.step, entry.action)
        self._attempts[key] += 1
        self._in_a_row[key] += 1
        if entry.action is Action.ACT and entry.in_doubt and node.doubtful:
            self._doubtful.add(entry.step)
        if entry.verdict is Verdict.FALLBACK:
            self._fall_back(node)
        elif entry.verdict is Verdict.SET_ASIDE:
            self._in_a_row[key] = 0
            self._set_aside.add(entry.step)
        elif entry.verdict is Verdict.FAIL_ATTEMPT:
            self._set_aside.clear()
            for other in self._in_a_row:
                if other[1] is entry.action:
                    self._in_a_row[other] = 0

    def _act_done(self, node: Node) -> None:
        owner = self.graph.owners[node.name]
        self._done.add(node.name)
        self._succeeded.add(owner.name)
        self._past_pivot = self._past_pivot or node.pivot
        del self._open[owner.name]
        for name in self.graph.successors[owner.name]:
            following = self.graph.named[name]
            if self._succeeded.issuperset(following.after):
                self._open[name] = following

    def _require_turn(self, node: Node) -> None:
        """Make sure that a node with fallbacks, or a fallback, acts in its turn."""
        owner = self.graph.owners[node.name]
        if owner.fallbacks and self._open.get(owner.name) != node:
            raise LogDoesNotFit(
                f"the log of this saga has an act of {node.name!r} out of its turn, which is not the order of "
                f"{self.graph.saga}: run the code that has this order of steps and fallbacks."
            )

    def _fall_back(self, node: Node) -> None:
        """Give the turn to the fallback after this node or fallback."""
        following = self.graph.next_alternate.get(node.name)
        if following is None:
            raise LogDoesNotFit(
                f"the log of this saga fell back from {node.name!r}, which has no fallback in {self.graph.saga}: run "
                "the code that this saga was started with."
            )
        self._open[self.graph.owners[node.name].name] = following

    def _holder_lost(self, entry: Entry) -> None:
        if entry.status is EntryStatus.DECLINED:
            return
        if entry.in_flight is not None:
            # A step in flight that is done was being compensated. It is not in doubt: it is compensated again.
            self._doubt(name for name in entry.in_flight if name not in self._done)
        elif not self.aborted:
            self._doubt(node.name for node in self._forward())

    def _doubt(self, names: Iterable[str]) -> None:
        # The graph of other code may lack a node that was in flight.
        known = self.graph.named
        self._doubtful.update(name for name in names if name not in known or known[name].doubtful)

    # -- what follows -----------------------------------------------------------------------------------------

    def frontier(self) -> Frontier:
        """Return what can be done now."""
        if self.aborted:
            ready = self.compensations()
            return Frontier(ready) if ready else Frontier(end=SagaStatus.COMPENSATED)
        if len(self._done) == len(self.graph.nodes):
            return Frontier(end=SagaStatus.COMPLETED)
        moves = [self.move(node, Action.ACT) for node in self._forward()]
        return Frontier(
            ready=tuple(move for move in moves if not move.node.waits),
            awaiting=tuple(move for move in moves if move.node.waits),
        )

    def compensations(self) -> tuple[Move, ...]:
        """Return the compensations that may begin if the saga has aborted."""
        owed = self._owed()
        if self.past_failures and owed:
            # One at a time: each is tried once before any is tried again.
            tried, key = self._in_a_row, Action.COMPENSATE
            free = [min(owed, key=lambda node: (node.name in self._set_aside, tried[node.name, key]))]
        else:
            free = compensation.free(self.graph, owed)
        return tuple(self.move(node, Action.COMPENSATE) for node in free)

    def move(self, node: Node, action: Action) -> Move:
        """Return the next attempt at an action of a node."""
        return Move(node, action, self._attempts[node.name, action] + 1)

    @property
    def status(self) -> SagaStatus:
        """The status of the saga while it is not finished."""
        return SagaStatus.COMPENSATING if self.aborted else SagaStatus.RUNNING

    @property
    def past_pivot(self) -> bool:
        """Whether the pivot is done, so that the saga may only go forward."""
        return self._past_pivot

    @property
    def in_doubt(self) -> frozenset[str]:
        """The nodes that may have taken effect although the log has no row of it."""
        return frozenset(self._doubtful - self._done - self._settled)

    def failures_in_a_row(self, move: Move) -> int:
        """Return how often this action has failed since its attempts were last spent, as its policy counts them."""
        return self._in_a_row[move.node.name, move.action]

    def judge_failure(self, move: Move, *, retryable: bool, max_attempts: int) -> Verdict:
        """Return what follows from the failure of this move.

        An act that fails for good gives its turn to its fallback. Without a fallback, the saga aborts. But a node after
        the pivot is never compensated, and a compensation is never undone. When the attempts at one of them are spent,
        this attempt at the saga fails, and another follows later.

        Args:
            retryable: whether the node's policy retries after an error of this kind.
            max_attempts: how many attempts the policy allows in all.
        """
        if self.aborted and move.action is Action.ACT:
            return Verdict.ABORT  # the action was in flight when another branch aborted the saga
        if retryable and self.failures_in_a_row(move) + 1 < max_attempts:
            return Verdict.RETRY
        if move.action is Action.COMPENSATE:
            others = [n for n in self._owed() if n.name != move.node.name and n.name not in self._set_aside]
            return Verdict.SET_ASIDE if self.past_failures and others else Verdict.FAIL_ATTEMPT
        if move.node.name in self.graph.next_alternate:
            return Verdict.FALLBACK
        return Verdict.FAIL_ATTEMPT if self.past_pivot else Verdict.ABORT

    def _forward(self) -> list[Node]:
        """Return the nodes that may act: they are not done, and all nodes that they depend on are.

        For a node that fell back, its fallback is returned.
        """
        if len(self._open) < 2:
            return list(self._open.values())
        return sorted(self._open.values(), key=lambda node: self.graph.places[node.name])

    def _owed(self) -> list[Node]:
        return compensation.owed(self.graph, begun=self._done | self._doubtful, settled=self._settled)
