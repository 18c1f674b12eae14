"""What a saga does next, from its graph and its log alone: no I/O, no clock, no randomness.

The log holds what *ended*. A node's state is a fold over its events. The direction is read from the log too: once a
row says that the saga aborted, nothing new begins, and it only goes backward (strict backward recovery).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sagas.errors import LogDoesNotFit
from sagas.graph import Graph, Node


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
    """What a row of the log is about: the two things a step can do, an operator's doing, or a holder's fate."""

    ACT = "act"
    COMPENSATE = "compensate"
    OPERATOR = "operator"
    HOLDER = "holder"


class EntryStatus(StrEnum):
    """How it ended.

    SKIPPED: an operator saw to the step, so code neither acts nor compensates it from then on. LOST: a lease ended
    without its holder. DECLINED: a holder's code did not fit. STARTED appears only in logs that an older layout wrote.
    """

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOST = "lost"
    DECLINED = "declined"
    STARTED = "started"


class Verdict(StrEnum):
    """What was decided when an action failed; kept in the log, so that no later code decides it otherwise.

    ABORT: the saga unwinds. SET_ASIDE: the attempts at a compensation are spent; other steps are compensated before it
    is tried again. FAIL_ATTEMPT: this attempt at the saga fails, and another follows.
    """

    RETRY = "retry"
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
        step: the node's name, or the command of an operator.
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
class Move:
    """Do this action of this node; `attempt` is 1 for the first that the log knows of."""

    node: Node
    action: Action
    attempt: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """What can be done now.

    Attributes:
        ready: the moves that may begin, in any order or at once.
        end: how the saga ends, if nothing is left to do.
    """

    ready: tuple[Move, ...] = ()
    end: SagaStatus | None = None


def aborted(log: Iterable[Entry]) -> bool:
    """Whether the saga has begun to compensate, and so never runs forward again."""
    return any(entry.verdict is Verdict.ABORT or entry.action is Action.COMPENSATE for entry in log)


def frontier(graph: Graph, log: Iterable[Entry], *, past_failures: bool = False) -> Frontier:
    """Return what a saga of this graph can do after this log.

    Args:
        past_failures: whether earlier nodes are compensated while a later one's compensation fails.

    Raises:
        LogDoesNotFit: the log tells of what this graph cannot have done.
    """
    return Progress(graph, log, past_failures=past_failures).frontier()


class Progress:
    """A log, folded over a graph; it grows by one event at a time.

    Args:
        graph: what the saga was started with.
        log: what has ended so far.
        past_failures: whether earlier nodes are compensated while a later one's compensation fails.

    Raises:
        LogDoesNotFit: the log tells of what this graph cannot have done.
    """

    def __init__(self, graph: Graph, log: Iterable[Entry] = (), *, past_failures: bool = False) -> None:
        self.graph = graph
        self.past_failures = past_failures
        self.aborted = False
        self._done: set[str] = set()
        # The nodes that may act, kept up to date: to look through a long graph after each step takes its square.
        self._open: dict[str, Node] = {node.name: node for node in graph.nodes if not node.after}
        self._past_pivot = False
        self._doubtful: set[str] = set()
        self._settled: set[str] = set()  # undone, or an operator saw to them
        self._attempts: Counter[tuple[str, Action]] = Counter()
        self._in_a_row: Counter[tuple[str, Action]] = Counter()
        self._set_aside: set[str] = set()
        for entry in log:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Add one event.

        Raises:
            LogDoesNotFit: this graph cannot have done it.
        """
        if not entry.known:
            if entry.schedules:
                raise LogDoesNotFit(
                    f"the log of this saga has a row of the kind {entry.action} {entry.status}, which a newer version "
                    "wrote: run that version."
                )
            return
        if entry.action is Action.HOLDER:
            self._holder_lost(entry)
        elif entry.action is Action.OPERATOR:
            if entry.in_doubt:  # version 0.1.0 aborted so: which step may have begun, it did not know
                self._doubtful.update(node.name for node in self._forward())
        elif entry.status is not EntryStatus.STARTED:
            self._step_ended(entry)
        self.aborted = self.aborted or entry.verdict is Verdict.ABORT or entry.action is Action.COMPENSATE

    def _step_ended(self, entry: Entry) -> None:
        node = self.graph.named.get(entry.step)
        if node is None:
            raise LogDoesNotFit(
                f"the log of this saga tells of step {entry.step!r}, which {self.graph.saga} does not have "
                f"(it has {', '.join(self.graph.named)}): run the code that has it, or bring the step back under "
                "that name."
            )
        key = (entry.step, entry.action)
        if entry.status is EntryStatus.FAILED:
            self._attempts[key] += 1
            self._in_a_row[key] += 1
            if entry.action is Action.ACT and entry.in_doubt:
                self._doubtful.add(entry.step)
            if entry.verdict is Verdict.SET_ASIDE:
                self._in_a_row[key] = 0
                self._set_aside.add(entry.step)
            elif entry.verdict is Verdict.FAIL_ATTEMPT:
                self._set_aside.clear()
                for other in self._in_a_row:
                    if other[1] is entry.action:
                        self._in_a_row[other] = 0
            return
        if entry.action is Action.ACT:
            if entry.step in self._done:
                raise LogDoesNotFit(
                    f"the log of this saga completed {entry.step!r} twice, which is not the order of "
                    f"{self.graph.saga}: run the code that has this order."
                )
            if not self._done.issuperset(node.after):
                early = ", ".join(name for name in node.after if name not in self._done)
                raise LogDoesNotFit(
                    f"the log of this saga completed {entry.step!r} before {early}, which is not the order of "
                    f"{self.graph.saga}: run the code that has this order."
                )
            self._act_done(node)
        else:
            self._settled.add(entry.step)
        if entry.status is EntryStatus.SKIPPED:
            self._settled.add(entry.step)

    def _act_done(self, node: Node) -> None:
        self._done.add(node.name)
        self._past_pivot = self._past_pivot or node.pivot
        del self._open[node.name]
        for name in self.graph.successors[node.name]:
            following = self.graph.named[name]
            if self._done.issuperset(following.after):
                self._open[name] = following

    def _holder_lost(self, entry: Entry) -> None:
        if entry.status is EntryStatus.DECLINED:
            return
        if entry.in_flight is not None:
            # What is done already was being compensated, which is not in doubt: it is simply done again.
            self._doubtful.update(name for name in entry.in_flight if name not in self._done)
        elif not self.aborted:
            self._doubtful.update(node.name for node in self._forward())

    # -- what follows -----------------------------------------------------------------------------------------

    def frontier(self) -> Frontier:
        """Return what can be done now."""
        if self.aborted:
            owed = self._owed()
            if not owed:
                return Frontier(end=SagaStatus.COMPENSATED)
            return Frontier(tuple(self.move(node, Action.COMPENSATE) for node in self._backward(owed)))
        if len(self._done) == len(self.graph.nodes):
            return Frontier(end=SagaStatus.COMPLETED)
        return Frontier(tuple(self.move(node, Action.ACT) for node in self._forward()))

    def move(self, node: Node, action: Action) -> Move:
        """Return the next attempt at an action of a node."""
        return Move(node, action, self._attempts[node.name, action] + 1)

    @property
    def status(self) -> SagaStatus:
        """The status of a saga that is here, and goes on."""
        return SagaStatus.COMPENSATING if self.aborted else SagaStatus.RUNNING

    @property
    def past_pivot(self) -> bool:
        """Whether the saga may only go forward: its point of no return is done."""
        return self._past_pivot

    @property
    def in_doubt(self) -> frozenset[str]:
        """The nodes that may have taken effect although no row says so."""
        return frozenset(self._doubtful - self._done - self._settled)

    def failures_in_a_row(self, move: Move) -> int:
        """How often this action has failed since its attempts were last spent: what counts against its policy."""
        return self._in_a_row[move.node.name, move.action]

    def judge_failure(self, move: Move, *, retryable: bool, max_attempts: int) -> Verdict:
        """Return what follows from the failure of this move.

        A node after the pivot is never compensated, and a compensation cannot be: when their attempts are spent, this
        attempt at the saga fails, to be made again later.

        Args:
            retryable: whether the node's policy wants another attempt after an error of this kind.
            max_attempts: how many it wants in all.
        """
        if self.aborted and move.action is Action.ACT:
            return Verdict.ABORT  # it was in flight when another branch aborted the saga
        if retryable and self.failures_in_a_row(move) + 1 < max_attempts:
            return Verdict.RETRY
        if move.action is Action.COMPENSATE:
            others = [n for n in self._owed() if n.name != move.node.name and n.name not in self._set_aside]
            return Verdict.SET_ASIDE if self.past_failures and others else Verdict.FAIL_ATTEMPT
        return Verdict.FAIL_ATTEMPT if self.past_pivot else Verdict.ABORT

    def _forward(self) -> list[Node]:
        """The nodes that may act: all that they depend on is done, and they are not."""
        if len(self._open) < 2:
            return list(self._open.values())
        return sorted(self._open.values(), key=lambda node: self.graph.places[node.name])

    def _owed(self) -> list[Node]:
        """The nodes that are still to be compensated, the last first."""
        return [
            node
            for node in reversed(self.graph.nodes)
            if node.undoable
            and node.name not in self._settled
            and (node.name in self._done or node.name in self._doubtful)
        ]

    def _backward(self, owed: list[Node]) -> list[Node]:
        """Those of them that may be compensated now: all that depends on them is undone or never began."""
        if self.past_failures:
            # One at a time: each is tried once before any is tried again.
            tried = self._in_a_row
            key = Action.COMPENSATE
            return [min(owed, key=lambda node: (node.name in self._set_aside, tried[node.name, key]))]
        blocked: set[str] = set()
        ready = []
        owes = {node.name for node in owed}
        for node in reversed(self.graph.nodes):
            later = self.graph.successors[node.name]
            if any(name in blocked or name in owes for name in later):
                blocked.add(node.name)
            elif node.name in owes:
                ready.append(node)
        return ready
