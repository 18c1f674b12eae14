"""A web application on an event loop: its commits send sagas, and no broker ever stops the loop."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest
from celery import Celery
from kombu.utils.url import parse_url

from sagas import SagaEngine
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.names import RUN_QUEUE
from sagas.storage.records import SagaState
from sagas.testing.processes import wait_until
from tests.faults.network import Forwarding
from tests.integration.celery.samples import Job, ThreeSteps

#: Publishing on a connection that drops packets takes 30 seconds; a busy machine may hold up a loop for some.
TOO_LONG_SECONDS = 8.0


async def longest_pause(stop: asyncio.Event) -> float:
    """Return for how long the loop ran nothing, at most, until it is told to stop."""
    longest, last = 0.0, time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def test_commits_of_async_sessions_go_on_while_the_broker_drops_packets(
    engine: SagaEngine, app: Celery, broker_url: str, database_url: str
) -> None:
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    link = Forwarding(parse_url(broker_url)["port"])
    direct = CeleryDispatcher(app)
    through_link = Celery("web", set_as_current=False)
    through_link.config_from_object("celeryconfig")
    through_link.conf.broker_url = f"redis://{link.host}:{link.port}/0"
    engine.dispatcher = CeleryDispatcher(through_link)

    async def main() -> tuple[list[UUID], float]:
        database = create_async_engine(database_url)
        stop = asyncio.Event()
        ids = []
        async with AsyncSession(database) as session:
            ids.append(await engine.start_async(ThreeSteps, Job(), connection=session))
            await session.commit()
            # Now its connection to the broker is open.
            await asyncio.to_thread(wait_until, lambda: direct.length(RUN_QUEUE) == 1, what="a message")
            link.cut()
            watching = asyncio.create_task(longest_pause(stop))
            for _ in range(3):
                ids.append(await engine.start_async(ThreeSteps, Job(), connection=session))
                await session.commit()
        stop.set()
        await database.dispose()
        return ids, await watching

    try:
        ids, pause = asyncio.run(main())
        assert direct.length(RUN_QUEUE) == 1
        assert pause < TOO_LONG_SECONDS
        assert {engine.storage.load(saga_id).state for saga_id in ids} == {SagaState.QUEUED}
        link.heal()
        wait_until(lambda: direct.length(RUN_QUEUE) == len(ids), what="the messages that were held up")
    finally:
        link.heal()
        link.close()
        through_link.close()
