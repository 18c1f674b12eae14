"""A schedule with real workers and two beats: each tick's saga is started once, and runs to its end."""

from __future__ import annotations

from datetime import timedelta

from sagas import SagaStatus
from sagas.engine import SagaEngine
from sagas.storage.saga_filter import SagaFilter
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start
from tests.integration.engine.nightly import nightly


def test_missed_ticks_are_caught_up_by_workers_with_two_beats(celery: Start, engine: SagaEngine) -> None:
    now = engine.storage.schedule_ticks(["nightly"]).now
    missed = nightly.cron.newest(5, after=now - timedelta(days=9), until=now)
    set_back = "UPDATE saga_schedules SET last_tick = %s"
    with engine.storage.connections.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(set_back, (missed[0] - timedelta(hours=1),))
    modules = {"SAGAS_MODULES": "tests.integration.engine.nightly"}

    for _ in range(2):
        celery("worker", "-c", "1", **modules)
        celery("beat", **modules)
    wait_until(
        lambda: len(engine.storage.find(SagaFilter(statuses=[SagaStatus.COMPLETED]))) == len(missed),
        timeout_seconds=60,
        what="the sagas of the schedule",
    )

    keys = [saga.idempotency_key for saga in engine.storage.find(SagaFilter())]
    assert sorted(map(str, keys)) == [nightly.key_at(tick) for tick in missed]
