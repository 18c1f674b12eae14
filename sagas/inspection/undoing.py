"""Says what an abort of a saga would undo, before anybody aborts it; pure."""

from __future__ import annotations

from dataclasses import dataclass

from sagas.graph import Graph
from sagas.progress import Action, EntryStatus, Progress, Verdict
from sagas.storage.records import LogEntry, SagaRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """A compensation that would run.

    Attributes:
        step: whose.
        in_doubt: whether the step may have taken effect although its action did not complete.
        idempotency_key: what the compensation passes to the outside service.
        act_idempotency_key: what the action has passed.
    """

    step: str
    in_doubt: bool
    idempotency_key: str
    act_idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoPreview:
    """What an abort would do now.

    Attributes:
        undone: the compensations that would run, in this order.
        kept: the steps that are done and have no compensation.
        running: the steps that a worker may be running at this moment: if they succeed, they are undone first.
        past_pivot: whether the saga can only go forward, so that it cannot be aborted.
        aborted: whether it unwinds already.
    """

    undone: tuple[Undo, ...]
    kept: tuple[str, ...]
    running: tuple[str, ...]
    past_pivot: bool
    aborted: bool


def preview_undo(graph: Graph, record: SagaRecord) -> UndoPreview:
    """Return what an abort would do now, or what is still to be undone of a saga that unwinds already.

    Args:
        graph: the graph that the saga was started with. A compensation that newer code has added is not in it.
        record: the saga with its log.

    Raises:
        LogDoesNotFit: this graph cannot have written the log.
    """
    progress = Progress(graph, record.log)
    in_doubt, past_pivot, aborted = progress.in_doubt, progress.past_pivot, progress.aborted
    forward = [] if aborted else [move.node.name for move in progress.frontier().ready]
    if not aborted:
        progress.add(LogEntry(step="abort", action=Action.OPERATOR, status=EntryStatus.FAILED, verdict=Verdict.ABORT))
    undone: list[Undo] = []
    while ready := progress.frontier().ready:
        for move in ready:
            name = move.node.name
            key = f"{record.id}:{name}:{Action.COMPENSATE}"
            undone.append(
                Undo(
                    step=name,
                    in_doubt=name in in_doubt,
                    idempotency_key=key,
                    act_idempotency_key=f"{record.id}:{name}:{Action.ACT}",
                )
            )
            progress.add(LogEntry(step=name, action=Action.COMPENSATE, status=EntryStatus.COMPLETED))
    done = {
        entry.step
        for entry in record.log
        if entry.action is Action.ACT and entry.status in (EntryStatus.COMPLETED, EntryStatus.SKIPPED)
    }
    undoes = {undo.step for undo in undone}
    acted = [each for node in graph.nodes for each in graph.alternates[node.name] if each.name in done]
    kept = [each.name for each in acted if not each.undoable and not each.waits]
    running = [name for name in forward if name not in undoes and record.lease_owner is not None]
    return UndoPreview(
        undone=tuple(undone),
        kept=tuple(kept),
        running=tuple(running),
        past_pivot=past_pivot,
        aborted=aborted,
    )
