"""How many messages a worker takes from the broker, as `inspect stats` and the broker tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery

from sagas import SagaEngine, SagaStatus
from sagas.progress import Action
from sagas.testing.processes import CeleryProcess, wait_until
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps, marks


def messages_taken(app: Celery) -> int:
    """How many messages the first worker takes at most before it acknowledges any."""
    answers = app.control.inspect(destination=["w1@test"], timeout=10).stats()
    return int(answers["w1@test"]["prefetch_count"]) if answers else 0


@pytest.mark.slow(5)
def test_worker_takes_a_message_ahead_for_each_child_only_while_sagas_are_quick(
    celery: Start, engine: SagaEngine, app: Celery
) -> None:
    celery("worker", "-c", "2")
    wait_until(lambda: messages_taken(app) == 2, what="a message for each child")

    def taken_while_busy() -> int:
        engine.start_many(ThreeSteps, [Job()] * 100)
        return messages_taken(app)

    wait_until(lambda: taken_while_busy() == 4, what="two messages ahead")
    wait_until(lambda: messages_taken(app) == 2, what="none ahead any more")


def test_behind_a_long_step_messages_wait_in_the_broker_for_another_worker(
    celery: Start, engine: SagaEngine, tmp_path: Path
) -> None:
    celery("worker", "-c", "1")
    slow = engine.start(ThreeSteps, Job(str(tmp_path), gate="second"))
    wait_until(lambda: marks(tmp_path, "second"), what="the second step")

    quick = engine.start_many(ThreeSteps, [Job()] * 3)
    celery("worker", "-c", "1")

    # No scan runs here that would send again what the first worker had taken.
    assert {wait_finished(engine, saga_id).status for saga_id in quick} == {SagaStatus.COMPLETED}
    (tmp_path / "open").touch()
    assert wait_finished(engine, slow).status is SagaStatus.COMPLETED


@pytest.mark.slow(25)
@pytest.mark.parametrize("end", [CeleryProcess.stop, CeleryProcess.kill])
def test_what_a_worker_had_taken_ahead_when_it_ended_is_brought_on_by_another(
    end: Callable[[CeleryProcess], object], celery: Start, engine: SagaEngine, app: Celery
) -> None:
    ending = celery("worker", "-c", "2")
    started: list[UUID] = []

    def taken_while_busy() -> int:
        started.extend(engine.start_many(ThreeSteps, [Job()] * 200))
        return messages_taken(app)

    wait_until(lambda: taken_while_busy() == 4, what="two messages ahead")
    end(ending)
    celery("worker")
    celery("beat")

    for saga_id in started:
        record = wait_finished(engine, saga_id)
        assert record.status is SagaStatus.COMPLETED
        ended = [entry.step for entry in record.log if entry.action is not Action.HOLDER]
        assert ended == ["first", "second", "third"]
        assert record.recovery_attempts == 0
