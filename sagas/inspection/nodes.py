"""How each node of a saga's graph stands, from its graph, its log and its row alone; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sagas.graph import Graph, Node
from sagas.progress import Action, EntryStatus, Frontier, Progress, Verdict
from sagas.storage.records import LogEntry, SagaRecord, SagaState
from sagas.storage.rules import expired


class NodeState(StrEnum):
    """How a node stands. FAILED: its last attempt failed, and another may follow. IN_DOUBT: it may have taken effect.

    UNDO_FAILED: its last compensation failed, and another follows. NEXT, UNDO_NEXT: it is done, or compensated, once
    the saga goes on.
    """

    NOT_BEGUN = "not begun"
    NEXT = "next"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    IN_DOUBT = "in doubt"
    DONE = "done"
    SKIPPED = "skipped"
    UNDO_NEXT = "undone next"
    UNDOING = "being undone"
    UNDO_FAILED = "undo failed"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node, or one of its fallbacks, as it stands.

    Attributes:
        fallback_of: the node whose fallback it is; None for the node itself.
        layer: how many nodes come before it on the longest way; nodes of one layer may run at once.
        attempts: how often its action has ended, and its compensation.
        began_at, ended_at: when its wait began, and when its last action or compensation ended.
        until: when its wait ends by itself; None for a wait without an end.
        error: what its last attempt failed with.
    """

    node: Node
    fallback_of: str | None
    layer: int
    state: NodeState
    attempts: int
    undo_attempts: int
    began_at: datetime | None
    ended_at: datetime | None
    until: datetime | None
    error: str | None


@dataclass(slots=True)
class _Seen:
    """What the log says of one node."""

    act: LogEntry | None = None
    undo: LogEntry | None = None
    armed: LogEntry | None = None
    attempts: dict[Action, int] = field(default_factory=dict)


#: The state of a node whose action, or whose compensation, last ended so.
_ACTED: Final = {
    EntryStatus.COMPLETED: NodeState.DONE,
    EntryStatus.FAILED: NodeState.FAILED,
    EntryStatus.SKIPPED: NodeState.SKIPPED,
}
_UNDID: Final = {
    EntryStatus.COMPLETED: NodeState.UNDONE,
    EntryStatus.FAILED: NodeState.UNDO_FAILED,
    EntryStatus.SKIPPED: NodeState.SKIPPED,
}


def node_views(graph: Graph, record: SagaRecord, now: datetime) -> list[NodeView]:
    """Return how each node stands, in the graph's order, and after each node its fallbacks.

    Args:
        graph: the graph that the saga was started with.
        record: the saga with its log.
        now: the database's time.

    Raises:
        LogDoesNotFit: this graph cannot have written the log.
    """
    progress = Progress(graph, record.log)
    frontier = progress.frontier()
    held = record.state is SagaState.RUNNING and not expired(record, now)
    seen = _read(graph, record)
    layers: dict[str, int] = {}
    views = []
    for node in graph.nodes:
        layers[node.name] = 1 + max((layers[name] for name in node.after), default=-1)
        for alternate in graph.alternates[node.name]:
            known = seen[alternate.name]
            last = known.undo or known.act
            state = _state(alternate, known, progress, frontier, record, held=held)
            views.append(
                NodeView(
                    node=alternate,
                    fallback_of=None if alternate is node else node.name,
                    layer=layers[node.name],
                    state=state,
                    attempts=known.attempts.get(Action.ACT, 0),
                    undo_attempts=known.attempts.get(Action.COMPENSATE, 0),
                    began_at=known.armed.created_at if known.armed else None,
                    ended_at=last.created_at if last else None,
                    until=_until(known) if state is NodeState.WAITING else None,
                    error=f"{last.error_type}: {last.message}" if last and last.status is EntryStatus.FAILED else None,
                )
            )
    return views


def _read(graph: Graph, record: SagaRecord) -> dict[str, _Seen]:
    seen = {alternate.name: _Seen() for node in graph.nodes for alternate in graph.alternates[node.name]}
    for entry in record.log:
        known = seen.get(entry.step)
        if known is None or entry.action not in (Action.ACT, Action.COMPENSATE):
            continue
        if entry.status is EntryStatus.ARMED:
            known.armed = entry
        elif is_abort_of_operator(entry):
            continue  # it names the step that would have been next, which did not run
        elif entry.status in _ACTED:
            known.attempts[entry.action] = known.attempts.get(entry.action, 0) + 1
            if entry.action is Action.ACT:
                known.act = entry
            else:
                known.undo = entry
    return seen


def _state(
    node: Node, known: _Seen, progress: Progress, frontier: Frontier, record: SagaRecord, *, held: bool
) -> NodeState:
    if known.undo is not None and known.undo.status is not EntryStatus.FAILED:
        return _UNDID[known.undo.status]
    if node.name in {move.node.name for move in frontier.awaiting} and known.armed is not None:
        return NodeState.WAITING
    move = next((move for move in (*frontier.ready, *frontier.awaiting) if move.node.name == node.name), None)
    if move is not None and not record.status.finished:
        backward = move.action is Action.COMPENSATE
        begun = record.in_flight is None or node.name in record.in_flight
        if held and begun:
            return NodeState.UNDOING if backward else NodeState.RUNNING
        if backward:
            return NodeState.UNDO_FAILED if known.undo is not None else NodeState.UNDO_NEXT
        if node.name in progress.in_doubt:
            return NodeState.IN_DOUBT
        return NodeState.FAILED if known.act is not None else NodeState.NEXT
    if known.undo is not None:
        return NodeState.UNDO_FAILED
    if node.name in progress.in_doubt:
        return NodeState.IN_DOUBT
    return _ACTED[known.act.status] if known.act is not None else NodeState.NOT_BEGUN


def is_abort_of_operator(entry: LogEntry) -> bool:
    """Whether an operator aborted the saga with this row: it names a step that did not run."""
    return entry.actor is not None and entry.verdict is Verdict.ABORT


def _until(known: _Seen) -> datetime | None:
    armed = known.armed
    if armed is None or armed.seconds is None or armed.created_at is None:
        return None
    return armed.created_at + timedelta(seconds=armed.seconds)
