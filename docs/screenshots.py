"""Take the pictures in docs/screenshots from a real Flower: `make screenshots`. It needs Chromium.

It runs PostgreSQL, a broker, a worker with beat, and Flower behind a password, all on loopback, and some sagas: most
go well, one turns back, one dies and is recovered by hand through Flower, and somebody mistypes an id.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from docs.browser import Browser, find
from docs.shop import BANK_AWAY, PlaceOrder
from sagas import PostgresSagaStorage, SagaStatus
from sagas.storage.records import SagaRecord
from sagas.storage.saga_filter import SagaFilter
from sagas.testing.processes import CeleryProcess, wait_until
from sagas.testing.servers import BrokerServer, PostgresServer

PICTURES = Path(__file__).parent / "screenshots"
MAX_BYTES = 150_000
#: For this run only.
PASSWORD = ("admin", secrets.token_hex(12))
#: As docker-compose.yml has them.
COLUMNS = "name,args,result,state,received,uuid"


def main() -> None:
    """Take every picture again."""
    find()  # before anything else is started
    with tempfile.TemporaryDirectory(prefix="sagas-screenshots-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        with PostgresServer(home / "postgres") as database, BrokerServer(home / "broker") as broker:
            environment = {
                "SAGAS_DATABASE_URL": database.url,
                "SAGAS_BROKER_URL": broker.url,
                "SAGAS_MODULES": "docs.shop",
                "SAGAS_MAX_RECOVERY_ATTEMPTS": "1",
                "PYTHONPATH": str(PICTURES.parents[1]),
                BANK_AWAY: str(home / "bank-away"),
            }
            _sagas(environment, "migrate")
            storage = PostgresSagaStorage(database.url)
            worker = ["worker", "--beat", "-c", "2", "-n", "worker@shop", "-l", "INFO"]
            # Flower first: it shows what it saw itself.
            with (
                flower(environment, home) as client,
                CeleryProcess(worker, environment=environment, log=home / "worker.log", directory=home) as process,
            ):
                process.wait_for_log(" ready.")
                ids = _shop(environment, storage, client, home)
                asyncio.run(_take(client, home, ids))
                process.kill()
            storage.close()


def _shop(
    environment: dict[str, str], storage: PostgresSagaStorage, client: httpx.Client, home: Path
) -> dict[str, str]:
    """Do a day's business; return the ids of the tasks that are looked at."""
    _start(environment, home, ("o-1001", "lamp", 2990), ("o-1002", "desk", 9900), ("o-1003", "unicorn", 4900))
    _wait_for(storage, lambda saga: saga.status.finished, 3)
    bank_away = Path(environment[BANK_AWAY])
    bank_away.touch()
    _start(environment, home, ("o-1004", "unicorn", 2500))
    (dead,) = _wait_for(storage, lambda saga: saga.dead, 1)
    bank_away.unlink()
    recovered = _recover(client, str(dead.id))
    assert recovered["result"]["status"] == SagaStatus.COMPENSATED, recovered
    refused = _recover(client, "o-1004")
    assert refused["state"] == "FAILURE", refused
    ids = {"recovered": recovered["task-id"], "refused": refused["task-id"]}

    def seen() -> bool:
        tasks = client.get("/api/tasks").json()
        return all(tasks.get(task, {}).get("state") in ("SUCCESS", "FAILURE") for task in ids.values())

    wait_until(seen, what="Flower's seeing both tasks end")
    return ids


async def _take(client: httpx.Client, home: Path, ids: dict[str, str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    url = str(client.base_url).rstrip("/")
    user = ":".join(PASSWORD)
    ready = "document.querySelector('#tasks-table tbody').innerText.includes('FAILURE')"
    async with Browser(home / "chromium", user=user) as browser:
        page = PICTURES / "tasks.png"
        await browser.picture(f"{url}/tasks", page, of=".tasks-page", when=ready, width=1780, height=640, scale=0.7)
        for (name, task), height in zip(ids.items(), (690, 730), strict=True):
            page, card = PICTURES / f"{name}.png", ".task-details-card"
            ended = f"/SUCCESS|FAILURE/.test(document.querySelector({card!r}).innerText)"
            await browser.picture(
                f"{url}/task/{task}", page, of=card, when=ended, width=1240, height=height, scale=0.85
            )
    for picture in PICTURES.glob("*.png"):
        print(picture.name, picture.stat().st_size)
        if picture.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{picture} has more than {MAX_BYTES} bytes: make it show less.")


@contextmanager
def flower(environment: dict[str, str], home: Path) -> Iterator[httpx.Client]:
    """Run Flower behind the password, on a free port of loopback; yield a client that knows it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["flower", "--address=127.0.0.1", f"--port={port}"]
    settings = environment | {"FLOWER_BASIC_AUTH": ":".join(PASSWORD), "FLOWER_TASKS_COLUMNS": COLUMNS}
    with (
        CeleryProcess(command, environment=settings, log=home / "flower.log", directory=home) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=PASSWORD, timeout=60) as client,
    ):
        process.wait_for_log("Connected to ")
        wait_until(lambda: client.get("/healthcheck").status_code == 200, what="Flower")
        yield client


def _recover(client: httpx.Client, saga_id: str) -> dict[str, Any]:
    answer = client.post("/api/task/apply/sagas.recover_saga", json={"args": [saga_id]})
    return dict(answer.raise_for_status().json())


def _start(environment: dict[str, str], home: Path, *orders: tuple[str, str, int]) -> None:
    lines = home / "orders.jsonl"
    lines.write_text("".join(json.dumps({"item": item, "cents": cents}) + "\n" for _, item, cents in orders))
    _sagas(environment, "start", PlaceOrder.name, "--from", str(lines))


def _sagas(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sagas.cli", *arguments], env={**os.environ, **environment}, check=True)


def _wait_for(storage: PostgresSagaStorage, condition: Callable[[SagaRecord], bool], number: int) -> list[SagaRecord]:
    def those() -> list[SagaRecord]:
        found = [saga for saga in storage.find(SagaFilter()) if condition(saga)]
        return found if len(found) == number else []

    return wait_until(those, what="the end of the sagas")


if __name__ == "__main__":
    main()
