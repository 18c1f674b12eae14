"""The wheel: built, installed in a new environment outside the checkout, and running sagas there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from uuid import UUID

import pytest

from sagas import SqlAlchemySagaStorage
from sagas.testing.processes import CeleryProcess, wait_until

USER_MODULE = """
from dataclasses import dataclass
from sagas import Call, Saga, Step

@dataclass
class Greeting:
    name: str
    said: str = ""

class SayHello(Step[Greeting]):
    def act(self, context: Greeting, call: Call) -> None:
        context.said = f"hello {context.name}"

class Greet(Saga[Greeting]):
    steps = [SayHello]
"""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(repository)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def new_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; its dependencies are those of the suite's own environment, not the checkout."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(home)})
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_wheel_holds_the_packages_the_settings_the_migrations_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith("celery_sagas-")
    assert {"sagas/py.typed", "tasks/py.typed", "tasks/celeryconfig.py"} <= names
    assert "sagas/storage/migrations/env.py" in names
    assert len([name for name in names if name.startswith("sagas/storage/migrations/versions/0")]) >= 2
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples", "celeryconfig"))]


def test_the_description_for_package_indexes_is_the_readme_without_links_into_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        description = opened.read(metadata).decode()

    assert "Description-Content-Type: text/markdown" in description
    assert "## A saga in 30 lines" in description
    assert "](https://docs.dbos.dev)" in description
    assert re.findall(r"\]\((?!https://)[^)]*\)", description) == []


def test_installed_wheel_runs_sagas_outside_the_checkout(
    new_environment: Path, empty_database_url: str, broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "greetings.py").write_text(USER_MODULE)
    (tmp_path / "names.jsonl").write_text('{"name": "Ada"}\n')
    environment = {
        "SAGAS_DATABASE_URL": empty_database_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "greetings",
        "PYTHONPATH": str(tmp_path),
    }

    def sagas(*arguments: str) -> str:
        command = [str(new_environment.parent / "sagas"), *arguments]
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [new_environment, "-c", "import sagas, tasks; print(sagas.__file__, tasks.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(new_environment.parent.parent)) for path in where.stdout.split())

    sagas("migrate")
    log = tmp_path / "worker.log"
    options = {"environment": environment, "log": log, "directory": tmp_path, "python": str(new_environment)}
    with CeleryProcess(["worker", "-c", "1", "-l", "INFO"], **options) as worker:
        worker.wait_for_log(" ready.")
        sagas("start", "greet", "--from", "names.jsonl")
        storage = SqlAlchemySagaStorage(empty_database_url)
        listed = sagas("list", "--json")
        saga_id = UUID(listed.split('"id": "')[1][:36])
        record = wait_until(
            lambda: storage.load(saga_id) if storage.load(saga_id).status.finished else None, what="the end"
        )
        storage.close()
    assert '"said": "hello Ada"' in record.context
