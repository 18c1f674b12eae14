"""An application that had tasks, queues, routes, limits and a beat of its own keeps them, and its sagas are safe."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus, Settings, api
from sagas.celery.dispatch import CeleryDispatcher
from sagas.testing.processes import CeleryProcess, wait_until
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps, marks
from tests.integration.celery.shop import HARD_LIMIT_SECONDS, QUEUES, make, noted

EVERYTHING = f"{QUEUES},sagas.scan,sagas.run,sagas.recover"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "events"
    folder.mkdir()
    return folder


@pytest.fixture
def shop_broker(broker_url: str) -> str:
    """Another database of the broker than the one that SAGAS_BROKER_URL names."""
    if broker_url.startswith("amqp"):
        return broker_url
    import redis

    url = broker_url.removesuffix("/0") + "/5"
    redis.Redis.from_url(url).flushdb()
    return url


@pytest.fixture
def shop_environment(environment: dict[str, str], shop_broker: str, folder: Path) -> dict[str, str]:
    environment |= {"SHOP_BROKER": shop_broker, "SHOP_FOLDER": str(folder)}
    return environment


@pytest.fixture
def shop(shop_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The shop's application, as its web processes have it."""
    monkeypatch.setattr(api, "_defaults", {})
    app = make(shop_environment["SHOP_BROKER"], set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def engine(shop_environment: dict[str, str], shop: Celery) -> Iterator[SagaEngine]:
    storage = PostgresSagaStorage(shop_environment["SAGAS_DATABASE_URL"])
    settings = Settings.from_environment(shop_environment)
    yield SagaEngine(storage, dispatcher=CeleryDispatcher(shop), settings=settings, sagas=[ThreeSteps])
    storage.close()


def result(shop: Celery, task: str, *args: Any) -> Any:
    return shop.send_task(task, args).get(timeout=60)


def the_shops_tasks_work(shop: Celery) -> None:
    assert result(shop, "tests.integration.celery.shop.tasks.mail", "Ada") == "to Ada"
    assert result(shop, "tests.integration.celery.shop.tasks.report") == "written"
    assert (
        result(shop, "tests.integration.celery.shop.celery.who")
        == "tests.integration.celery.shop.celery.who in tests.integration.celery.shop.celery.who"
    )


def start_worker(celery: Start, pool: str, *options: str, queues: str = EVERYTHING, **variables: str) -> CeleryProcess:
    return celery(
        "worker", "-P", pool, "-c2", "-Q", queues, *options, application="tests.integration.celery.shop", **variables
    )


@pytest.mark.slow(35)
def test_prefork_keeps_what_the_shop_has_and_runs_sagas(
    celery: Start, shop: Celery, engine: SagaEngine, folder: Path
) -> None:
    worker = start_worker(celery, "prefork", "-B")
    the_shops_tasks_work(shop)
    assert result(shop, "tests.integration.celery.shop.celery.unsteady") == 1

    held = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    wait_until(lambda: marks(folder, "second"), what="the second step")
    begun = engine.storage.load(held)
    slow = shop.send_task("tests.integration.celery.shop.tasks.sleepy", (60,))
    others = engine.start_many(ThreeSteps, [Job(str(folder))] * 5)
    unsent = SagaEngine(engine.storage, settings=engine.settings).start(ThreeSteps, Job(str(folder)))
    # The limits of the shop end its own task; a saga that began before is still in its step.
    with pytest.raises((SoftTimeLimitExceeded, TimeLimitExceeded)):
        slow.get(timeout=60)
    ticks = noted(folder, "tick") + 2 * HARD_LIMIT_SECONDS  # two a second, so for as long as the limit once more
    wait_until(lambda: noted(folder, "tick") > ticks, what="the shop's own beat entry")
    unharmed = engine.storage.load(held)
    assert (unharmed.version, unharmed.lease_owner) == (begun.version, begun.lease_owner)
    assert unharmed.log == begun.log

    # The child of a saga is killed: neither early acknowledgement nor requeueing, as the shop's tasks have it.
    os.kill(int(str(begun.lease_owner).rpartition("/")[2].partition(".")[0]), signal.SIGKILL)
    wait_until(lambda: engine.storage.load(held).version > begun.version, what="the takeover")
    (folder / "open").touch()
    for saga_id in [held, *others, unsent]:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert set(marks(folder, "second")) == {f"{saga_id}:second:act" for saga_id in [held, *others, unsent]}

    once = ("setup_logging", "celeryd_init", "worker_init", "beat_init", "prerun-mail", "postrun-mail")
    assert {event: noted(folder, event) for event in once} == dict.fromkeys(once, 1)
    assert noted(folder, "prerun-run_saga") >= 6
    assert "shop's own: " in worker.log.read_text()


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_other_pools_keep_what_the_shop_has_and_run_sagas(
    pool: str,
    celery: Start,
    shop: Celery,
    engine: SagaEngine,
    folder: Path,
) -> None:
    if pool == "gevent":
        pytest.importorskip("gevent")
    start_worker(celery, pool, SHOP_SETTINGS='{"task_protocol": 1}')
    good = engine.start_many(ThreeSteps, [Job(str(folder))] * 5)
    bad = engine.start(ThreeSteps, Job(str(folder), fail="third"))
    the_shops_tasks_work(shop)
    for saga_id in good:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert wait_finished(engine, bad).status is SagaStatus.COMPENSATED
    assert noted(folder, "postrun-mail") == 1


def test_worker_without_queues_of_sagas_knows_nothing_of_them(
    celery: Start, shop: Celery, engine: SagaEngine, server_url: sa.URL, environment: dict[str, str], folder: Path
) -> None:
    # The settings of sagas are broken, so whoever reads them fails. Its beat cannot send scans, and is none of sagas.
    start_worker(celery, "prefork", queues=QUEUES, SAGAS_LEASE_SECONDS="nonsense")
    waiting = engine.start(ThreeSteps, Job(str(folder)))
    the_shops_tasks_work(shop)
    assert CeleryDispatcher(shop).length("sagas.run") == 1
    assert engine.storage.load(waiting).status is SagaStatus.PENDING
    engine.storage.close()
    assert sessions(server_url, environment["SAGAS_DATABASE_URL"]) == 0


def sessions(server_url: sa.URL, database_url: str) -> int:
    """Return how many sessions there are in a database."""
    server = sa.create_engine(server_url)
    with server.connect() as connection:
        count = connection.scalar(
            sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name"),
            {"name": sa.make_url(database_url).database},
        )
    server.dispose()
    return int(count or 0)
