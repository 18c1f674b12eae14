"""How each node stands, and what an abort would undo, from the log alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from sagas.graph import Fallback, Graph, Node
from sagas.inspection.nodes import node_views
from sagas.inspection.undoing import preview_undo
from sagas.progress import Action, EntryStatus, Verdict
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import LogEntry, NewSaga, SagaRecord, SagaState, completed, failed

NOW: Final = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
SAGA_ID: Final = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HELD: Final = NewSaga(id=SAGA_ID, name="order", context="{}").as_record(
    now=NOW, lease=LeaseRequest(owner="w/1", seconds=60), due=NOW + timedelta(seconds=60)
)
FREE: Final = replace(HELD, state=SagaState.READY, lease_owner=None, available_at=NOW)
GRAPH: Final = Graph.chain(
    "order",
    1,
    [
        Node(name="a", undoable=True),
        Node(name="b", undoable=True, fallbacks=(Fallback(name="b2", undoable=True),)),
        Node(name="w", kind="wait"),
        Node(name="c"),
    ],
)
ACT, UNDO = Action.ACT, Action.COMPENSATE
A, B, W = (completed(step, ACT) for step in "abw")
ARMED: Final = LogEntry(step="w", action=ACT, status=EntryStatus.ARMED, seconds=60.0, created_at=NOW)
ABORT: Final = failed("c", ACT, Verdict.ABORT)
FELL_BACK: Final = failed("b", ACT, Verdict.FALLBACK)
LOST: Final = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=("a",))
BY_ANN: Final = replace(failed("a", ACT, Verdict.ABORT), actor="ann", reason="why", error_type="Aborted")


@pytest.mark.parametrize(
    ("record", "log", "states"),
    [
        (FREE, (), "next, not begun, not begun, not begun, not begun"),
        (HELD, (), "running, not begun, not begun, not begun, not begun"),
        (replace(HELD, in_flight=()), (A,), "done, next, not begun, not begun, not begun"),
        (replace(HELD, in_flight=("b",)), (A,), "done, running, not begun, not begun, not begun"),
        (replace(HELD, available_at=NOW), (A,), "done, next, not begun, not begun, not begun"),
        (FREE, (A, failed("b", ACT, Verdict.RETRY)), "done, failed, not begun, not begun, not begun"),
        (FREE, (LOST,), "in doubt, not begun, not begun, not begun, not begun"),
        (FREE, (A, FELL_BACK), "done, failed, next, not begun, not begun"),
        (FREE, (A, FELL_BACK, completed("b2", ACT)), "done, failed, done, next, not begun"),
        (FREE, (A, B, ARMED), "done, done, not begun, waiting, not begun"),
        (FREE, (A, B, ARMED, W), "done, done, not begun, done, next"),
        (FREE, (A, B, W, ABORT), "done, undone next, not begun, done, failed"),
        (HELD, (A, B, W, ABORT), "done, being undone, not begun, done, failed"),
        (FREE, (A, B, W, ABORT, completed("b", UNDO)), "undone next, undone, not begun, done, failed"),
        (FREE, (A, B, W, ABORT, failed("b", UNDO, Verdict.RETRY)), "done, undo failed, not begun, done, failed"),
        (FREE, (A, FELL_BACK, completed("b2", ACT), W, ABORT), "done, failed, undone next, done, failed"),
        (FREE, (replace(A, status=EntryStatus.SKIPPED),), "skipped, next, not begun, not begun, not begun"),
        (FREE, (BY_ANN,), "not begun, not begun, not begun, not begun, not begun"),
    ],
)
def test_each_node_stands_as_the_log_says(record: SagaRecord, log: tuple[LogEntry, ...], states: str) -> None:
    views = node_views(GRAPH, replace(record, log=log), NOW)

    assert ", ".join(view.state for view in views) == states
    assert [view.node.name for view in views] == ["a", "b", "b2", "w", "c"]
    assert [view.fallback_of for view in views] == [None, None, "b", None, None]


def test_attempts_times_and_errors_are_told() -> None:
    broken = replace(failed("a", ACT, Verdict.RETRY), error_type="OSError", message="gone", created_at=NOW)
    again = replace(broken, attempt=2)

    first, *_ = node_views(GRAPH, replace(FREE, log=(broken, again)), NOW)
    *_, wait, _ = node_views(GRAPH, replace(FREE, log=(A, B, ARMED)), NOW)

    assert (first.attempts, first.ended_at, first.error) == (2, NOW, "OSError: gone")
    assert (wait.began_at, wait.until) == (NOW, NOW + timedelta(seconds=60))


def test_nodes_that_may_run_at_once_are_in_one_layer() -> None:
    nodes = (
        Node(name="a"),
        Node(name="b", after=("a",)),
        Node(name="c", after=("a",)),
        Node(name="d", after=("b", "c")),
    )

    views = node_views(Graph("order", 1, nodes), FREE, NOW)

    assert [view.layer for view in views] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("record", "log", "undone", "kept", "running"),
    [
        (FREE, (), [], (), ()),
        (HELD, (), [], (), ("a",)),
        (FREE, (A, B, W), ["b", "a"], (), ()),
        (HELD, (A, B, W), ["b", "a"], (), ("c",)),
        (FREE, (A, B, W, completed("c", ACT)), ["b", "a"], ("c",), ()),
        (FREE, (LOST,), ["a?"], (), ()),
        (FREE, (A, FELL_BACK, completed("b2", ACT)), ["b2", "a"], (), ()),
        (FREE, (A, replace(FELL_BACK, in_doubt=True), completed("b2", ACT)), ["b2", "b?", "a"], (), ()),
        (FREE, (A, B, W, ABORT, completed("b", UNDO)), ["a"], (), ()),
        (FREE, (replace(A, status=EntryStatus.SKIPPED), B), ["b"], (), ()),
    ],
)
def test_an_abort_undoes_what_is_done_or_in_doubt_the_last_first(
    record: SagaRecord, log: tuple[LogEntry, ...], undone: list[str], kept: tuple[str, ...], running: tuple[str, ...]
) -> None:
    preview = preview_undo(GRAPH, replace(record, log=log))

    assert [f"{undo.step}{'?' if undo.in_doubt else ''}" for undo in preview.undone] == undone
    assert (preview.kept, preview.running) == (kept, running)
    for undo in preview.undone:
        assert undo.idempotency_key == f"{SAGA_ID}:{undo.step}:compensate"
        assert undo.act_idempotency_key == f"{SAGA_ID}:{undo.step}:act"


def test_a_saga_past_its_pivot_is_told_to_be() -> None:
    graph = Graph.chain("order", 1, [Node(name="a", undoable=True), Node(name="b", pivot=True), Node(name="c")])

    assert preview_undo(graph, replace(FREE, log=(A, B))).past_pivot
    assert not preview_undo(graph, replace(FREE, log=(A,))).past_pivot
