"""The wheel: built, installed in a new environment outside the checkout, and running sagas there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage
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


#: Files that users have beside their sagas, and that Celery, or an older release of ours, would look for.
USERS_FILES = {
    "tasks.py": "from celery import Celery\napp = Celery('theirs', broker='redis://127.0.0.1:1/0')\n",
    "celeryconfig.py": "broker_url = 'redis://127.0.0.1:1/0'\nbeat_schedule = {}\n",
    "celeryapp.py": "raise SystemExit('this is not for sagas')\n",
}
#: What Celery reads from the environment, set against the sagas' own application.
CELERYS_VARIABLES = {
    "CELERY_BROKER_URL": "redis://:s3cr3t@127.0.0.1:1/0",
    "CELERY_BROKER_READ_URL": "redis://:s3cr3t@127.0.0.1:1/0",
    "CELERY_BROKER_WRITE_URL": "redis://:s3cr3t@127.0.0.1:1/0",
    "CELERY_RESULT_BACKEND": "redis://:s3cr3t@127.0.0.1:1/0",
    "CELERY_CONFIG_MODULE": "celeryconfig",
    "CELERY_LOADER": "default",
    "CELERY_APP": "tasks",
    "CELERY_CUSTOM_WORKER_POOL": "no.such:Pool",
    "BROKER_URL": "redis://:s3cr3t@127.0.0.1:1/0",
    "RESULT_BACKEND": "redis://:s3cr3t@127.0.0.1:1/0",
}


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
    venv.create(home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(home)})
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_wheel_holds_one_package_with_its_migrations_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith("celery_sagas-")
    assert {"sagas/py.typed", "sagas/celery/__init__.py"} <= names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sagas"}
    assert "sagas/storage/migrations/env.py" in names
    assert len([name for name in names if name.startswith("sagas/storage/migrations/versions/0")]) >= 2


def test_sdist_holds_the_package_and_what_is_said_of_it(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(repository)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2].partition("/")[0] for name in archive.getnames()}
    # docs/pypi.py makes the description for package indexes while the package is built.
    files = {"sagas", "docs", "README.md", "CHANGELOG.md", "LICENSE"}
    assert held - {"", ".gitignore", "PKG-INFO", "pyproject.toml"} == files


def test_the_description_for_package_indexes_is_the_readme_without_links_into_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        description = opened.read(metadata).decode()

    assert "Description-Content-Type: text/markdown" in description
    assert "## One saga" in description
    assert re.findall(r"\]\((?!https://)[^)]*\)", description) == []


@pytest.mark.slow(18)
def test_installed_wheel_runs_sagas_outside_the_checkout(
    new_environment: Path, empty_database_url: str, broker_url: str, tmp_path: Path
) -> None:
    for name, text in {**USERS_FILES, "greetings.py": USER_MODULE}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "names.jsonl").write_text('{"name": "Ada"}\n')
    environment = {
        "SAGAS_DATABASE_URL": empty_database_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "greetings",
        "SAGAS_SCAN_INTERVAL_SECONDS": "0.5",
        **CELERYS_VARIABLES,
    }

    def sagas(*arguments: str) -> str:
        command = [str(new_environment.parent / "sagas"), *arguments]
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [new_environment, "-c", "import sagas, tasks, celeryconfig; print(sagas.__file__, tasks.app.main)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    path, tasks = where.stdout.split()
    assert path.startswith(str(new_environment.parent.parent))
    assert tasks == "theirs"

    sagas("migrate")
    logs = tmp_path / "worker.log", tmp_path / "beat.log"
    options = {"environment": environment, "directory": tmp_path, "python": str(new_environment)}
    with (
        CeleryProcess(["worker", "-c", "1", "-l", "INFO"], log=logs[0], **options) as worker,
        CeleryProcess(["beat", "-l", "INFO"], log=logs[1], **options) as beat,
    ):
        worker.wait_for_log(" ready.")
        sagas("start", "greet", "--from", "names.jsonl")
        worker.wait_for_log("Task sagas.scan[")
        beat.wait_for_log("Sending due task sagas.scan")
        storage = PostgresSagaStorage(empty_database_url)
        listed = sagas("list", "--json")
        saga_id = UUID(listed.split('"id": "')[1][:36])
        record = wait_until(
            lambda: storage.load(saga_id) if storage.load(saga_id).status.finished else None, what="the end"
        )
        storage.close()
    assert '"said":"hello Ada"' in record.context
    ignored = "CELERY_BROKER_URL, CELERY_BROKER_READ_URL, CELERY_BROKER_WRITE_URL, CELERY_RESULT_BACKEND"
    for log in logs:
        text = log.read_text()
        assert (
            text.count(f"ignored: {ignored}, CELERY_CONFIG_MODULE, CELERY_LOADER. The application of sagas reads ") == 1
        )
        assert "s3cr3t" not in text
