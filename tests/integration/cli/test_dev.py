"""`sagas dev`, with real servers, a real worker, and code that changes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from sagas.testing.processes import launch, wait_until

_CODE = """
from dataclasses import dataclass
from sagas import Saga, Step

@dataclass
class Order:
    number: str

class Pay(Step[Order]):
    def act(self, order, call):
        print("WORD", order.number, flush=True)

class PlaceOrder(Saga[Order]):
    steps = [Pay]
"""
_START = "import sys, shop, sagas; print(sagas.start(shop.PlaceOrder, shop.Order(sys.argv[1])))"


class _Project:
    """A directory with a program, as a user has it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output.txt"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SAGAS_")},
            # A project is in no temporary directory, whose permissions the servers may change.
            "TMPDIR": "/var/tmp",
            "PYTHONPATH": os.pathsep.join((str(directory), str(Path(__file__).parents[3]))),
        }

    def write(self, code: str) -> None:
        (self.directory / "shop.py").write_text(code)

    @contextmanager
    def dev(self) -> Iterator[subprocess.Popen[bytes]]:
        process = launch(
            [sys.executable, "-m", "sagas.cli", "dev", "shop"],
            signal.SIGKILL,
            log=self.output,
            cwd=self.directory,
            env=self.environment,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0

    def start(self, number: str) -> None:
        command = f'. .sagas/env && exec "{sys.executable}" -c "{_START}" {number}'
        subprocess.run(["sh", "-c", command], cwd=self.directory, env=self.environment, check=True, timeout=60)

    def says(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.output.read_text(errors="replace").count(text) >= times, what=f"{text!r} in the output")

    def console(self) -> str:
        """Return the address that was printed for the console."""
        self.says("The console is at ")
        found = re.search(r"The console is at (\S+)", self.output.read_text(errors="replace"))
        assert found is not None
        wait_until(lambda: _answers(found[1]), what="the console")
        return found[1]

    def command(self, *arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "sagas.cli", *arguments],
            cwd=self.directory,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 1
        return run.stderr.strip().splitlines()[-1]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def project() -> Iterator[_Project]:
    # The server's user must be able to pass through, which pytest's own directories do not allow.
    with tempfile.TemporaryDirectory(prefix="sagas-dev-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield _Project(Path(directory))


@pytest.mark.slow(33)
def test_it_runs_everything_and_goes_on_from_its_data(project: _Project) -> None:
    project.write(_CODE.replace("WORD", "paid"))
    with project.dev():
        project.says("ready.")
        project.start("a")
        project.says("paid a")
        assert "place-order" in httpx.get(project.console()).text
        assert "another `sagas dev` runs in" in project.command("dev", "shop")

        project.write("this is no Python")
        project.says("saving the file starts the worker")
        project.write(_CODE.replace("WORD", "charged"))
        project.says("ready.", times=2)
        project.start("b")
        project.says("charged b")
    env = (project.directory / ".sagas/env").read_text()
    assert _processes_in(project.directory) == []

    with project.dev():
        project.says("already at")
        project.says("ready.", times=3)
    assert (project.directory / ".sagas/env").read_text() == env
    assert _processes_in(project.directory) == []


def test_it_wants_to_know_the_modules(project: _Project) -> None:
    assert project.command("dev") == "error: no module is named: write sagas dev MODULE, or set SAGAS_MODULES."


def _processes_in(directory: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if (process.info["cwd"] or "").startswith(str(directory)):
            found.append(" ".join(process.info["cmdline"] or ()))
    return found
