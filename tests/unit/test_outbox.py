"""`call.enqueue`: what it accepts, with which checkpoints it is written, and who sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, group

from sagas import Call, MemorySagaStorage, RetryPolicy
from sagas.celery.dispatch import CeleryDispatcher
from sagas.errors import StorageUnavailable
from sagas.outbox import OutboxTask
from sagas.storage.leases import LeaseRequest
from sagas.storage.transitions import outbox_of
from tests.samples import Clock, FakeDispatcher, FlakyStorage, QuickEngine, Stage, Trip

APP = Celery("shop", broker="memory://", set_as_current=False)
CALL = Call(saga_id=UUID(int=7), step_name="hotel", attempt=1, idempotency_key="7:hotel:act")


@APP.task(name="shop.mail", shared=False)
def mail(*args: Any, **kwargs: Any) -> None: ...


def enqueued(task: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    call = Call(saga_id=UUID(int=7), step_name="hotel", attempt=1, idempotency_key="7:hotel:act")
    call.enqueue(task, *args, **kwargs)
    (one,) = call.enqueued
    return {"task": one.task, **json.loads(one.arguments)}


@pytest.mark.parametrize("task", ["shop.mail", mail, mail.s(), mail.s().set(queue="mail")])
def test_task_is_named_by_itself_its_name_or_its_signature(task: Any) -> None:
    found = enqueued(task, 1, ["é", None], to={"name": "ann"})

    options = found.pop("options")
    assert found == {"task": "shop.mail", "args": [1, ["é", None]], "kwargs": {"to": {"name": "ann"}}}
    assert options.keys() - {"queue"} == {"task_id"}


def test_arguments_of_a_signature_come_first() -> None:
    assert enqueued(mail.s(1, a=1, b=1), 2, b=2)["args"] == [1, 2]
    assert enqueued(mail.s(1, a=1, b=1), 2, b=2)["kwargs"] == {"a": 1, "b": 2}
    assert enqueued(mail.si(1), 2, b=2)["args"] == [1]


def test_id_of_a_task_is_the_same_in_each_attempt_and_differs_between_tasks() -> None:
    first = [enqueued("a")["options"]["task_id"] for _ in range(2)]
    call = Call(saga_id=UUID(int=7), step_name="hotel", attempt=2, idempotency_key="7:hotel:act")
    call.enqueue("a")
    call.enqueue("a")
    second = [json.loads(each.arguments)["options"]["task_id"] for each in call.enqueued]

    assert first[0] == first[1] == second[0] != second[1]
    assert enqueued(mail.s().set(task_id="mine"))["options"]["task_id"] == "mine"


@pytest.mark.parametrize(
    "wrong", [datetime.now(UTC), UUID(int=1), {1: 2}, float("nan"), object(), b"x", "nul\0", {"a": [{1}]}]
)
def test_argument_that_json_has_not_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot store the arguments of the task shop\.mail as JSON"):
        enqueued("shop.mail", wrong)


@pytest.mark.parametrize("wrong", [7, None, print, chain(mail.s(), mail.s()), group(mail.s()), {}])
def test_what_is_no_task_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"call\.enqueue\(\) got"):
        enqueued(wrong)


@pytest.mark.parametrize("name", ["", "n" * 256, "nul\0"])
def test_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="got the task name"):
        enqueued(name)


# -- with which checkpoints -----------------------------------------------------------------------------------------


class Recording(FlakyStorage):
    """A storage that records which tasks each transition has."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.written: list[tuple[str, list[str]]] = []

    def apply(self, lease: Any, transition: Any) -> Any:
        self.written.append((type(transition).__name__, [each.task for each in outbox_of(transition)]))
        return super().apply(lease, transition)


def asks(*names: str, error: Exception | None = None) -> Any:
    def ask(context: Trip, call: Call) -> None:
        for name in names:
            call.enqueue(name)
        if error is not None:
            raise error

    return ask


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def engine(storage: Recording, dispatcher: FakeDispatcher) -> QuickEngine:
    return QuickEngine(storage, dispatcher=dispatcher)


@pytest.mark.parametrize("run_async", [False, True])
def test_tasks_are_written_with_the_checkpoint_of_their_action_and_sent_after_it(
    stage: Stage, engine: QuickEngine, storage: Recording, dispatcher: FakeDispatcher, run_async: bool
) -> None:
    hotel = stage.step("hotel", [asks("a", "b")], [asks("undone")])
    car = stage.step("car", [asks("failed", error=ValueError("no"))])
    saga = stage.saga(hotel, car)

    report = asyncio.run(engine.run_async(saga, Trip())) if run_async else engine.run(saga, Trip())

    assert report.outcome == "compensated"
    assert storage.written == [("Progressed", ["a", "b"]), ("Progressed", []), ("Ended", ["undone"])]
    assert [task.task for task in dispatcher.tasks] == ["a", "b", "undone"]
    assert storage.claim_outbox(older_than_seconds=0, limit=10) == []


def test_tasks_are_written_with_a_saga_that_is_put_down(stage: Stage, engine: QuickEngine, storage: Recording) -> None:
    hotel = stage.step("hotel", [], [ValueError("once")], retry=RetryPolicy(first_delay=60))
    car = stage.step("car", [], [asks("undone")], retry=RetryPolicy(first_delay=60))
    engine.run(stage.saga(hotel, car, stage.step("boat", [ValueError("no")])), Trip())

    assert ("Progressed", ["undone"]) in storage.written
    assert {kind for kind, tasks in storage.written} <= {"Progressed", "Suspended"}


def test_task_whose_checkpoint_was_not_written_is_not_sent(
    stage: Stage, engine: QuickEngine, storage: Recording, dispatcher: FakeDispatcher
) -> None:
    def lose(context: Trip, call: Call) -> None:
        call.enqueue("a")
        storage._clock.forward(31)  # type: ignore[attr-defined]
        storage.acquire(call.saga_id, LeaseRequest(owner="another", seconds=30), max_recovery_attempts=3)

    assert engine.run(stage.saga(stage.step("hotel", [lose])), Trip()).outcome == "lost"
    assert dispatcher.tasks == []
    storage._clock.forward(60)  # type: ignore[attr-defined]
    assert storage.claim_outbox(older_than_seconds=0, limit=10) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_task_of_a_checkpoint_whose_answer_was_lost_is_sent_by_its_worker_or_a_scan(
    stage: Stage, engine: QuickEngine, storage: Recording, dispatcher: FakeDispatcher, when: str
) -> None:
    def cut(context: Trip, call: Call) -> None:
        call.enqueue("a")
        storage.failures.append(("apply", when))

    engine.run(stage.saga(stage.step("hotel", [cut])), Trip())
    storage._clock.forward(10)  # type: ignore[attr-defined]
    engine.scan()

    assert [task.task for task in dispatcher.tasks] == ["a"]


def test_task_that_the_broker_did_not_take_is_sent_by_a_later_scan(
    stage: Stage, engine: QuickEngine, storage: Recording, dispatcher: FakeDispatcher
) -> None:
    dispatcher.capacity = 0
    engine.run(stage.saga(stage.step("hotel", [asks("a", "b")])), Trip())
    assert dispatcher.tasks == []
    dispatcher.capacity = None

    assert engine.scan().tasks == 0  # its worker may be about to send it
    storage._clock.forward(10)  # type: ignore[attr-defined]
    report = engine.scan()

    assert (report.tasks, report.as_json()["tasks"]) == (2, 2)
    assert [task.task for task in dispatcher.tasks] == ["a", "b"]
    assert engine.scan().tasks == 0


@pytest.mark.parametrize("error", [StorageUnavailable("away"), RuntimeError("broken")])
def test_sending_that_fails_does_not_fail_the_saga(stage: Stage, storage: Recording, error: Exception) -> None:
    class Failing(FakeDispatcher):
        def enqueue(self, tasks: Sequence[OutboxTask]) -> list[int]:
            raise error

    engine = QuickEngine(storage, dispatcher=Failing())

    assert engine.run(stage.saga(stage.step("hotel", [asks("a")])), Trip()).outcome == "completed"


@pytest.mark.parametrize("dispatcher", [None, type("Old", (), {"send": lambda self, claims: len(claims)})()])
def test_without_a_dispatcher_that_can_send_tasks_they_wait(stage: Stage, dispatcher: Any) -> None:
    storage = Recording()
    engine = QuickEngine(storage, dispatcher=dispatcher)

    engine.run(stage.saga(stage.step("hotel", [asks("a")])), Trip())

    storage._clock.forward(10)  # type: ignore[attr-defined]
    assert [task.task for task in storage.claim_outbox(older_than_seconds=5, limit=10)] == ["a"]


def test_many_tasks_are_sent_by_one_scan(stage: Stage, engine: QuickEngine, dispatcher: FakeDispatcher) -> None:
    dispatcher.capacity = 0
    engine.run(stage.saga(stage.step("hotel", [asks(*("a" for _ in range(50)))])), Trip())
    dispatcher.capacity = None
    engine.storage._clock.forward(10)  # type: ignore[attr-defined]

    assert engine.scan().tasks == 50


# -- by Celery ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop() -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "shop"

    @app.task(name="shop.mail", queue="letters", shared=False)
    def letter(*args: Any) -> None: ...

    return app


def outbox_task(task: Any, *args: Any, number: int = 1, **kwargs: Any) -> OutboxTask:
    call = Call(saga_id=UUID(int=7), step_name="hotel", attempt=1, idempotency_key=f"7:hotel:act:{number}")
    call.enqueue(task, *args, **kwargs)
    return OutboxTask(number, call.saga_id, call.enqueued[0].task, call.enqueued[0].arguments)


def received(app: Celery, queue: str) -> list[tuple[str, list[Any]]]:
    """Return the tasks in a queue of the broker in memory, and empty it."""
    found = []
    with app.connection_for_read() as connection:
        simple = connection.SimpleQueue(queue)
        while simple.qsize():
            message = simple.get(block=False)
            assert message.content_type == "application/json"
            found.append((message.headers["task"], message.payload[0]))
            message.ack()
        simple.close()
    return found


def test_task_is_sent_by_name_by_its_own_options_or_by_those_of_its_signature(shop: Celery) -> None:
    tasks = [
        outbox_task("other.task", 1, number=1),
        outbox_task("shop.mail", 2, number=2),
        outbox_task({"task": "shop.mail", "options": {"queue": "chosen"}}, 3, number=3),
    ]

    assert CeleryDispatcher(shop).enqueue(tasks) == [1, 2, 3]
    assert received(shop, "shop") == [("other.task", [1])]
    assert received(shop, "letters") == [("shop.mail", [2])]
    assert received(shop, "chosen") == [("shop.mail", [3])]


def test_task_that_can_never_be_sent_stops_no_other(shop: Celery) -> None:
    wrong = outbox_task({"task": "other.task", "options": {"countdown": "soon"}}, number=1)

    assert CeleryDispatcher(shop).enqueue([wrong, outbox_task("other.task", 2, number=2)]) == [2]
    assert received(shop, "shop") == [("other.task", [2])]


def test_tasks_run_at_once_where_an_application_runs_all_tasks_eagerly(shop: Celery) -> None:
    ran: list[Any] = []
    shop.conf.task_always_eager = True

    @shop.task(name="shop.count", shared=False)
    def count(number: int) -> None:
        ran.append(number)

    assert CeleryDispatcher(shop).enqueue([outbox_task("shop.count", 5)]) == [1]
    assert ran == [5]


def test_broker_that_is_away_takes_no_task() -> None:
    app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)

    assert CeleryDispatcher(app).enqueue([outbox_task("shop.mail")]) == []


def test_step_that_asks_for_what_cannot_be_stored_fails(stage: Stage) -> None:
    def ask(context: Trip, call: Call) -> None:
        call.enqueue("a", datetime.now(UTC))

    engine = QuickEngine(MemorySagaStorage())
    assert engine.run(stage.saga(stage.step("hotel", [ask])), Trip()).outcome == "compensated"
