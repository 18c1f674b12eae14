"""Fallbacks on PostgreSQL: what is stored, what another worker goes on with, and what operators do."""

from __future__ import annotations

from typing import Any

import pytest

from sagas import OutcomeUnknown, PostgresSagaStorage, RetryPolicy
from sagas.admin import Operator
from sagas.errors import ActionRefused
from sagas.graph import Graph
from sagas.progress import Verdict
from tests.samples import FakeDispatcher, QuickEngine, Stage, Trip

FULL = ConnectionError("fully booked")
LATER = RetryPolicy(max_attempts=5, first_delay=60)


@pytest.fixture
def engine(emptied_storage: PostgresSagaStorage) -> QuickEngine:
    return QuickEngine(emptied_storage, dispatcher=FakeDispatcher())


def waiting(engine: QuickEngine, stage: Stage) -> Any:
    """A saga whose train is in doubt, and whose bus is tried again later."""
    bus = stage.step("bus", [FULL], retry=LATER)
    saga = stage.saga("hotel", stage.step("train", [OutcomeUnknown("no answer")], fallback=bus), "dinner")
    assert engine.run(saga, Trip()).outcome == "waiting"
    return engine.stored()


def test_a_saga_that_fell_back_is_stored_and_brought_to_its_end_by_another_worker(
    engine: QuickEngine, stage: Stage
) -> None:
    stored = waiting(engine, stage)
    graph = Graph.parse(engine.storage.load_definition(stored.definition).graph)
    assert [fallback.name for fallback in graph.nodes[1].fallbacks] == ["bus"]
    assert [(e.step, e.verdict, e.in_doubt) for e in stored.log[1:]] == [
        ("train", Verdict.FALLBACK, True),
        ("bus", Verdict.RETRY, False),
    ]
    again = Stage()
    made = again.saga(
        "hotel", again.step("train", fallback=again.step("coach", aliases=["bus"])), again.step("dinner", [FULL])
    )

    report = QuickEngine(engine.storage, sagas=[made]).recover(stored.id, by_hand=True)

    assert report.outcome == "compensated"
    assert again.seen == ["act bus", "act dinner", "compensate bus", "compensate train", "compensate hotel"]


def test_an_operator_skips_a_fallback_by_its_own_name(engine: QuickEngine, stage: Stage) -> None:
    stored = waiting(engine, stage)
    operator = Operator(engine, actor="ann@pc")

    with pytest.raises(ActionRefused, match="does 'bus' \\(act\\) next, not 'train'"):
        operator.skip(stored.id, "train", reason="it is paid")
    operator.skip(stored.id, "bus", reason="a friend drives")

    assert engine.recover(stored.id, by_hand=True).outcome == "completed"
    assert stage.seen == ["act hotel", "act train", "act bus", "act dinner"]


def test_an_operator_aborts_a_saga_that_fell_back(engine: QuickEngine, stage: Stage) -> None:
    stored = waiting(engine, stage)

    Operator(engine, actor="ann@pc").compensate(stored.id, reason="unwanted")

    assert engine.recover(stored.id, by_hand=True).outcome == "compensated"
    assert stage.seen[3:] == ["compensate train", "compensate hotel"]
