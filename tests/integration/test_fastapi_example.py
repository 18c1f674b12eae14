"""The FastAPI example, as a user runs it: behind a real server, with a real worker, PostgreSQL and broker."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import Signals
from uuid import uuid4

import httpx
import pytest

from sagas import PostgresSagaStorage, SagaStatus
from sagas.settings import PREFIX
from sagas.storage.saga_filter import SagaFilter
from sagas.testing.processes import launch, wait_until
from tests.forking import start_celery

pytest.importorskip("fastapi")


@pytest.fixture
def shop(repository: Path, tmp_path: Path, database_url: str, broker_url: str) -> Iterator[httpx.Client]:
    """A client of the running shop."""
    example = repository / "examples" / "fastapi_shop"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment = {
        **plain,
        "PYTHONPATH": f"{example}{os.pathsep}{repository}",
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "orders",
    }
    log = tmp_path / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0"]
    server = launch(command, Signals.SIGKILL, log=log, cwd=tmp_path, env=environment)
    try:
        listening = wait_until(
            lambda: server.poll() is not None or re.search(r"running on (http://\S+)", log.read_text()),
            what="the server's start",
        )
        assert isinstance(listening, re.Match), log.read_text()[-3000:]
        environment["SHOP_SERVICES_URL"] = f"{listening[1]}/services"
        worker = start_celery(
            ["worker", "-c", "1", "-l", "INFO"],
            environment=environment,
            log=tmp_path / "worker.log",
            directory=tmp_path,
        )
        with worker, httpx.Client(base_url=listening[1], timeout=30) as client:
            yield client
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(30)


def order(shop: httpx.Client, item: str) -> dict[str, object]:
    """Order an item, and return what the shop tells of the order once its saga has ended."""
    placed = shop.post("/orders", json={"item": item, "cents": 4200})
    assert placed.status_code == 202, placed.text

    def ended() -> dict[str, object] | None:
        told: dict[str, object] = shop.get(f"/orders/{placed.json()['id']}").raise_for_status().json()
        return told if SagaStatus(str(told["status"])).finished else None

    return wait_until(ended, what="the saga's end")


def test_order_is_carried_out_by_a_worker_and_its_progress_is_read(
    shop: httpx.Client, storage: PostgresSagaStorage
) -> None:
    assert order(shop, "tea") == {
        "item": "tea",
        "status": "COMPLETED",
        "progress": ["charge-card: act completed", "send-parcel: act completed"],
    }
    assert shop.get("/services/payments").json() == 4200

    assert order(shop, "piano") == {
        "item": "piano",
        "status": "COMPENSATED",
        "progress": ["charge-card: act completed", "send-parcel: act failed", "charge-card: compensate completed"],
    }
    assert shop.get("/services/payments").json() == 4200

    assert shop.get(f"/orders/{uuid4()}").status_code == 404
    # An order that the database refuses takes its saga with it.
    assert shop.post("/orders", json={"item": "tea", "cents": 10**12}).status_code == 500
    assert len(storage.find(SagaFilter(name="place-order"))) == 2
