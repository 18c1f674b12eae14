"""The application by itself, as `uvicorn sagas.callbacks:app` runs it; and what the doctor says of its settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from signal import Signals

import httpx
import pytest

from sagas import PostgresSagaStorage
from sagas.settings import PREFIX
from sagas.testing.processes import launch, wait_until
from tests.integration.callbacks.conftest import SECRET, Shop

COMMAND = [sys.executable, "-m", "uvicorn", "sagas.callbacks:app", "--host", "127.0.0.1", "--port", "0"]


@pytest.fixture
def environment(emptied_url: str, repository: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {
        **plain,
        "PYTHONPATH": str(repository),
        "SAGAS_DATABASE_URL": emptied_url,
        "SAGAS_BROKER_URL": "redis://127.0.0.1:1/0",
        "SAGAS_CALLBACK_SECRET": SECRET,
        "SAGAS_CALLBACK_URL": "https://shop.example/callbacks",
        "SAGAS_MODULES": "tests.integration.callbacks.conftest",
    }


def test_it_runs_by_itself_and_answers_while_the_broker_is_away(
    environment: dict[str, str], emptied_storage: PostgresSagaStorage, tmp_path: Path
) -> None:
    log = tmp_path / "uvicorn.log"
    server = launch(COMMAND, Signals.SIGKILL, log=log, cwd=tmp_path, env=environment)
    try:
        wait_until(lambda: server.poll() is not None or "running on http" in log.read_text(), what="the server's start")
        address = log.read_text().partition("running on ")[2].split()[0]
        shop = Shop(emptied_storage, address)
        saga_id = shop.waiting()

        answer = httpx.post(shop.link(saga_id), timeout=60)

        assert answer.status_code == 200
        assert len(shop.signals(saga_id)) == 1
    finally:
        server.terminate()
        server.wait(30)
    assert SECRET not in log.read_text()


def test_it_does_not_start_without_a_secret(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["SAGAS_CALLBACK_SECRET"]

    ran = subprocess.run(
        COMMAND, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode != 0
    assert "callback links need a secret, and SAGAS_CALLBACK_SECRET is not set: set it to a random text" in ran.stderr


@pytest.mark.parametrize("secret", [SECRET, "too-short-for-a-secret"])
def test_the_doctor_shows_no_secret(environment: dict[str, str], tmp_path: Path, secret: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "sagas.cli", "doctor", "--json"],
        env={**environment, "SAGAS_CALLBACK_SECRET": secret},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert '"settings"' in ran.stdout
    assert secret not in ran.stdout + ran.stderr
    assert ("settings-unusable" in ran.stdout) == (secret != SECRET)
