"""The actions: what they ask, what they write, and what becomes of those that come too late."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus
from sagas.ids import new_saga_id
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga, SagaState
from tests.integration.console.conftest import OPERATOR, Browser, Started, fields
from tests.integration.console.shop import Order, PlaceOrder, PrintBill, Restock


def actions(page: str) -> list[str]:
    """Return the ends of the paths of the actions that a saga's page offers."""
    return re.findall(r'class="button" href="/sagas/[0-9a-f-]{36}/(\w+)"', page)


def test_a_dead_saga_is_revived(
    ann: Browser, started: Started, engine: SagaEngine, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started("stuck")
    assert actions(ann.get(f"/sagas/{saga_id}").text) == ["retry", "skip", "resolve"]

    page = ann.send(f"/sagas/{saga_id}/retry", reason="the shelf was mended")

    assert "It is due now" in page.text
    saga = emptied_storage.load(saga_id)
    assert (saga.state, saga.recovery_attempts) == (SagaState.READY, 0)
    assert (saga.log[-1].actor, saga.log[-1].reason) == ("ann", "the shelf was mended")
    assert "operator: retry, by ann: the shelf was mended" in page.text


def test_the_preview_of_undoing_is_what_is_then_undone(
    ann: Browser, started: Started, engine: SagaEngine, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started()
    preview = ann.get(f"/sagas/{saga_id}/compensate").text
    keys = re.findall(r"<small>with the key <code>([^<]*)</code>", preview)

    ann.send(f"/sagas/{saga_id}/compensate", reason="the customer left")
    assert emptied_storage.load(saga_id).status is SagaStatus.COMPENSATING
    report = engine.recover(saga_id)

    assert report.status is SagaStatus.COMPENSATED
    undone = [
        f"{saga_id}:{entry.step}:compensate"
        for entry in emptied_storage.load(saga_id).log
        if entry.action == "compensate"
    ]
    assert keys == undone == [f"{saga_id}:charge:compensate", f"{saga_id}:reserve:compensate"]


def test_a_step_that_may_have_begun_is_in_the_preview_in_doubt(
    ann: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started("unpaid")
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, details) "
            "VALUES (%s, 'holder', 'holder', 'lost', '{\"in_flight\": [\"charge\"]}')",
            [saga_id],
        )

    preview = ann.get(f"/sagas/{saga_id}/cancel").text

    assert re.search(r"<strong>charge</strong> <span[^>]*>in doubt</span>", preview)
    assert 'class="badge n-in-doubt"' in ann.get(f"/sagas/{saga_id}").text


def test_a_saga_past_its_pivot_can_be_neither_cancelled_nor_compensated(ann: Browser, started: Started) -> None:
    saga_id = started(saga=PrintBill)

    offered = actions(ann.get(f"/sagas/{saga_id}").text)

    assert "cancel" not in offered
    assert "compensate" not in offered
    assert "not in a state in which this can be done" in ann.get(f"/sagas/{saga_id}/cancel").text


def test_a_waiting_saga_is_cancelled(ann: Browser, started: Started, engine: SagaEngine) -> None:
    saga_id = started()

    assert "request to cancel is sent" in ann.send(f"/sagas/{saga_id}/cancel", reason="out of stock").text
    report = engine.recover(saga_id)

    assert report.status is SagaStatus.COMPENSATED
    assert "cancelled by ann; the saga aborts: out of stock" in ann.get(f"/sagas/{saga_id}").text


def test_a_signal_is_sent_once_however_often_its_form_is(
    ann: Browser, started: Started, engine: SagaEngine, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started()
    data = {
        **fields(ann.get(f"/sagas/{saga_id}/signal").text),
        "wait": "courier-accepts",
        "payload": '{"courier": "kim"}',
        "reason": "called by phone",
    }

    first = ann.client.post(f"/sagas/{saga_id}/signal", data=data)
    second = ann.client.post(f"/sagas/{saga_id}/signal", data=data)

    assert "The signal is sent." in first.text
    assert "it counts once" in second.text
    (signal,) = emptied_storage.signals(saga_id)
    assert (signal.actor, signal.payload) == ("ann", '{"courier": "kim"}')
    engine.recover(saga_id)
    assert "It sleeps in cool-down" in ann.get(f"/sagas/{saga_id}").text


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"payload": "{oops"}, "is no JSON"),
        ({"wait": "nobody"}, "Choose the wait"),
        ({"reason": "  "}, "Give a reason"),
        ({"reason": "x" * 1001}, "at most 1000"),
        ({"reason": "a\0b"}, "NUL"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_is_shown_again(
    ann: Browser, started: Started, changed: dict[str, str], problem: str, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started()
    given = {"wait": "courier-accepts", "payload": '{"courier": "kim"}', "reason": "why", **changed}

    answer = ann.send(f"/sagas/{saga_id}/signal", **given)

    assert answer.status_code == 400
    assert problem in answer.text
    assert emptied_storage.signals(saga_id) == []


def test_the_next_step_is_skipped(ann: Browser, started: Started, emptied_storage: PostgresSagaStorage) -> None:
    saga_id = started(saga=PrintBill)

    page = ann.send(f"/sagas/{saga_id}/skip", step="stick", reason="printed by hand")

    assert "The step counts as done" in page.text
    assert 'class="badge n-skipped"' in page.text
    # Its end is left to a worker, whose code may know more than this process.
    assert emptied_storage.load(saga_id).status is SagaStatus.RUNNING


def test_a_worker_ends_a_saga_whose_last_step_was_skipped(ann: Browser, started: Started, engine: SagaEngine) -> None:
    dead, stuck = started(saga=PrintBill), started("stuck")
    ann.send(f"/sagas/{dead}/skip", step="stick", reason="printed by hand")
    ann.send(f"/sagas/{stuck}/skip", step="reserve", reason="put back by hand")

    assert engine.recover(dead).status is SagaStatus.COMPLETED
    assert engine.recover(stuck).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("status", ["COMPLETED", "COMPENSATED"])
def test_a_saga_is_resolved_by_hand(
    ann: Browser, started: Started, status: str, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started("stuck")

    page = ann.send(f"/sagas/{saga_id}/resolve", reason="settled on the phone", **{"as": status})

    assert f"It has ended as {status}" in page.text
    assert actions(page.text) == []
    assert emptied_storage.load(saga_id).status == status
    assert "Choose how" in ann.send(f"/sagas/{started()}/resolve", reason="x", **{"as": "RUNNING"}).text


def test_a_name_is_paused_and_resumed(ann: Browser, engine: SagaEngine, emptied_storage: PostgresSagaStorage) -> None:
    saga_id = engine.start(Restock, Order())

    page = ann.send("/pauses/pause", name="restock", reason="the shelf is being moved")

    assert "the shelf is being moved" in page.text
    assert "All sagas named restock are paused, by ann" in ann.get(f"/sagas/{saga_id}").text
    (pause,) = emptied_storage.pauses()
    assert (pause.actor, pause.reason) == ("ann", "the shelf is being moved")
    assert "No name is paused" in ann.send("/pauses/resume?name=restock", reason="it is done").text
    late = ann.client.post("/pauses/resume", data={"token": ann.token("/"), "name": "restock", "reason": "it is done"})
    assert late.status_code == 409
    assert "somebody else has resumed it" in late.text


def test_an_action_on_a_saga_that_has_changed_since_is_refused(
    ann: Browser, bob: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started()
    seen = ann.get(f"/sagas/{saga_id}/compensate").text
    bob.send(f"/sagas/{saga_id}/resolve", reason="settled", **{"as": "COMPLETED"})

    answer = ann.client.post(f"/sagas/{saga_id}/compensate", data={**fields(seen), "reason": "undo"})

    assert answer.status_code == 409
    assert emptied_storage.load(saga_id).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("action", ["retry", "compensate", "skip", "resolve", "cancel"])
def test_each_action_refuses_a_saga_that_went_on_meanwhile(
    ann: Browser, started: Started, engine: SagaEngine, action: str, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started("unpaid")
    seen = fields(ann.get(f"/sagas/{saga_id}/{action}").text)
    engine.recover(saga_id, by_hand=True)
    before = emptied_storage.load(saga_id)

    data = {**seen, "reason": "why", "step": "charge", "as": "COMPLETED"}
    answer = ann.client.post(f"/sagas/{saga_id}/{action}", data=data)

    assert answer.status_code == 409
    assert "has changed since you looked" in answer.text
    assert emptied_storage.load(saga_id) == before
    assert emptied_storage.signals(saga_id) == []


def test_of_two_operators_at_once_one_acts_and_the_other_is_told(
    ann: Browser, bob: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    for _ in range(5):
        saga_id = started()
        compensate, skip = f"/sagas/{saga_id}/compensate", f"/sagas/{saga_id}/skip"
        undoing = {"reason": "undo", **fields(ann.get(compensate).text)}
        skipping = {"reason": "skip", "step": "courier-accepts", **fields(bob.get(skip).text)}
        with ThreadPoolExecutor(2) as hands:
            sent = [
                hands.submit(ann.client.post, compensate, data=undoing),
                hands.submit(bob.client.post, skip, data=skipping),
            ]

        assert sorted(each.result().status_code for each in sent) == [200, 409]
        assert len([entry for entry in emptied_storage.load(saga_id).log if entry.actor]) == 1


@pytest.fixture
def held(emptied_storage: PostgresSagaStorage, engine: SagaEngine) -> UUID:
    """A saga that another worker holds, which does not give it back."""
    saga = NewSaga(
        id=new_saga_id(),
        name="place-order",
        context='{"item": "tea"}',
        definition=engine.definitions.register(PlaceOrder.graph),
    )
    emptied_storage.create_sagas([saga], lease=LeaseRequest(owner="worker-9/1", seconds=600))
    return saga.id


@pytest.mark.parametrize("action", ["retry", "compensate", "skip", "resolve"])
def test_a_worker_that_keeps_its_saga_is_named(
    ann: Browser, held: UUID, action: str, emptied_storage: PostgresSagaStorage
) -> None:
    assert "It is running" in ann.get(f"/sagas/{held}").text

    answer = ann.send(f"/sagas/{held}/{action}", reason="why", step="reserve", **{"as": "COMPLETED"})

    assert answer.status_code == 409
    assert "worker-9/1 holds the saga" in answer.text
    assert "`" not in answer.text.partition("<main")[2]
    assert emptied_storage.load(held).lease_owner == "worker-9/1"


def test_many_sagas_are_retried_after_their_count_was_confirmed(
    ann: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    dead = [started("stuck") for _ in range(3)]
    waiting = started()
    page = ann.get("/bulk", params={"state": "dead", "action": "retry"}).text
    assert "Retry 3 sagas" in page

    answer = ann.send("/bulk?state=dead&action=retry", reason="the bank is back")

    assert "3 done" in answer.text
    for saga_id in dead:
        saga = emptied_storage.load(saga_id)
        assert (saga.state, saga.log[-1].actor) == (SagaState.READY, "ann")
    assert emptied_storage.load(waiting).state is SagaState.WAITING


def test_a_bulk_action_on_other_sagas_than_those_that_were_counted_is_refused(
    ann: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    first = started("stuck")
    data = {**fields(ann.get("/bulk?state=dead&action=retry").text), "reason": "why"}
    started("stuck")

    answer = ann.client.post("/bulk?state=dead", data=data)

    assert answer.status_code == 409
    assert "finds other sagas than those that you have seen: 2 now" in answer.text
    assert emptied_storage.load(first).state is SagaState.DEAD


def test_a_bulk_action_says_which_sagas_refused(ann: Browser, started: Started, held: UUID) -> None:
    started()

    answer = ann.send("/bulk?name=place-order&action=compensate", reason="why")

    assert "1 done, 1 refused" in answer.text
    assert "worker-9/1 holds the saga" in answer.text
    assert str(held) in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/bulk?action=retry",
        "/bulk?action=drop&state=dead",
        "/bulk?state=nonsense&action=retry",
        "/bulk?state=finished&action=retry",
    ],
)
def test_a_bulk_action_needs_a_filter_and_a_known_action(ann: Browser, path: str) -> None:
    assert ann.get(path).status_code == 400


def test_actions_are_logged_with_the_name_of_the_person(
    ann: Browser, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    saga_id = started("stuck")

    ann.send(f"/sagas/{saga_id}/retry", reason="mended\nINFO root: forged")
    ann.send("/pauses/pause", name="restock", reason="moving")

    logged = [record.getMessage() for record in caplog.records if record.name.startswith("sagas.console")]
    assert any(
        re.match(rf"console: ann \(operator, from 127\.0\.0\.1\): retry saga {saga_id}", line) for line in logged
    )
    assert any("ann (operator, from 127.0.0.1): pause all sagas named restock: moving" in line for line in logged)
    assert not any("\n" in line for line in logged)


def test_a_wrong_password_is_logged_without_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    Browser(url).log_in("eve", "a-wrong-password")

    assert "wrong password" in caplog.text
    assert "a-wrong-password" not in caplog.text
    assert OPERATOR not in caplog.text
