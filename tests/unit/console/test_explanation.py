"""Why a saga does not run, in one sentence, and what would make it run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from sagas import Settings
from sagas.console.explanation import explain
from sagas.graph import Graph, Node
from sagas.inspection.models import LastScan, SagaDetails
from sagas.inspection.nodes import node_views
from sagas.progress import Action, EntryStatus, SagaStatus
from sagas.storage.records import LogEntry, NewSaga, Pause, SagaState, completed

NOW: Final = datetime(2026, 11, 22, 19, 38, 5, tzinfo=UTC)
PAST, SOON = NOW - timedelta(minutes=5), NOW + timedelta(minutes=5)
RECORD: Final = replace(
    NewSaga(id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"), name="order", context="{}").as_record(now=PAST),
    status=SagaStatus.RUNNING,
    version=1,
    available_at=PAST,
)
SCANNED: Final = LastScan(host="beat-1", at=NOW - timedelta(seconds=4))
PAUSE: Final = Pause(name="order", actor="bob", reason="inventory", since=PAST)
GRAPH: Final = Graph.chain(
    "order", 1, [Node(name="a"), Node(name="courier", kind="wait"), Node(name="cool", kind="sleep")]
)
DONE: Final = completed("a", Action.ACT)
ARMED: Final = LogEntry(step="courier", action=Action.ACT, status=EntryStatus.ARMED, seconds=300.0, created_at=NOW)
SLEEPING: Final = (DONE, completed("courier", Action.ACT), replace(ARMED, step="cool"))


def explained(scan: LastScan | None = SCANNED, pause: Pause | None = None, **stored: Any) -> tuple[str, str, bool]:
    record = replace(RECORD, **stored)
    details = SagaDetails(now=NOW, record=record, pause=pause)
    found = explain(details, node_views(GRAPH, record, NOW), Settings(), scan)
    return found.why, found.cure, found.wrong


@pytest.mark.parametrize(
    ("stored", "why", "cure", "wrong"),
    [
        ({"state": SagaState.FINISHED, "status": SagaStatus.COMPLETED}, "has ended as COMPLETED", "", False),
        ({"state": SagaState.DEAD, "status": SagaStatus.FAILED}, "It is dead", "then revive it", True),
        ({"state": SagaState.PAUSED, "pause": PAUSE}, "are paused, by bob since", "Resume order", False),
        ({"state": SagaState.PAUSED}, "was paused with its name", "The next scan makes it ready", False),
        ({"state": SagaState.PAUSED, "scan": None}, "was paused with its name", "none has ever run", True),
        ({"state": SagaState.QUEUED, "available_at": SOON}, "in the queue for 5 min", "A free worker takes it", False),
        ({"state": SagaState.QUEUED}, "in the queue", "A scan sends the message again", True),
        ({"state": SagaState.RUNNING, "lease_owner": "w/1", "available_at": SOON}, "It is running a on w/1", "", False),
        ({"state": SagaState.RUNNING, "lease_owner": "w/1"}, "w/1 was killed, froze", "sends it to another", False),
        ({"state": SagaState.RUNNING, "lease_owner": "w/1", "scan": None}, "w/1 was killed", "start beat", True),
        ({"state": SagaState.WAITING, "log": (DONE, ARMED), "available_at": SOON}, "the signal courier", "Send", False),
        ({"state": SagaState.WAITING, "log": (DONE, ARMED), "available_at": None}, "has not come.", "Send", False),
        ({"state": SagaState.WAITING, "log": SLEEPING, "available_at": SOON}, "It sleeps in cool until", "", False),
        ({"last_error": "declined: no step b"}, "their code does not fit: no step b", "Deploy the code", True),
        ({}, "has been due since", "The next scan sends it", False),
        ({"scan": LastScan(host="b", at=PAST)}, "has been due since", "see to beat and the workers", True),
        ({"pause": PAUSE}, "are paused, by bob", "Resume order", False),
        ({"version": 0, "available_at": SOON}, "started to begin at", "", False),
        ({"recovery_attempts": 2, "available_at": SOON}, "Attempt 2 at it failed, so it backs off", "retry it", True),
        ({"suspect": True, "available_at": SOON, "recovery_attempts": 1}, "It then runs alone", "", True),
    ],
)
def test_the_reason_and_the_cure_are_told(stored: dict[str, Any], why: str, cure: str, wrong: bool) -> None:
    found = explained(**stored)

    assert why in found[0]
    assert cure in found[1]
    assert found[2] is wrong
    assert all("`" not in text for text in found[:2])
