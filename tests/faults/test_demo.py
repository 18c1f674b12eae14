"""Test the demo as a process: it succeeds, and leaves no process behind in any case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from sagas.testing.processes import wait_until
from tests.faults.check import Finding, Findings
from tests.faults.demo import judge

#: Far longer than any wait here, so that the tests pass on a slow machine.
DEADLINE_SECONDS = 150
#: Settings for other programs, which must not reach the demo.
NOT_FOR_THE_DEMO = {"SAGAS_LEASE_SECONDS": "long", "CELERY_CONFIG_MODULE": "none.such", "PGSSLMODE": "require"}


class Demo:
    """A running demo, with its own directory for temporary files."""

    def __init__(self, temporary: Path, repository: Path) -> None:
        self.temporary = temporary
        self.output = temporary.with_suffix(".out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.demo"],
                env={**os.environ, "TMPDIR": str(temporary), **NOT_FOR_THE_DEMO},
                cwd=repository,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until the demo printed this."""

        def printed() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            return text in self.text

        wait_until(printed, timeout_seconds=DEADLINE_SECONDS, what=text)

    def running(self) -> list[psutil.Process]:
        """Return the demo's servers, workers and beats, which all work below its temporary directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cwd().startswith(str(self.temporary)) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def assert_nothing_is_left(self) -> None:
        with suppress(TimeoutError):
            wait_until(lambda: not self.running(), timeout_seconds=30)
        assert self.running() == []
        assert list(self.temporary.iterdir()) == []


@pytest.fixture
def demo(repository: Path) -> Iterator[Demo]:
    # Do not use tmp_path: the user that runs PostgreSQL for root may not pass through it.
    with tempfile.TemporaryDirectory(prefix="sagas-test-") as directory:
        temporary = Path(directory).resolve() / "temporary"
        temporary.mkdir()
        Path(directory).chmod(0o711)
        temporary.chmod(0o711)
        demo = Demo(temporary, repository)
        try:
            yield demo
        finally:
            if demo.process.poll() is None:
                demo.process.kill()
            demo.process.wait()
            for process in demo.running():
                with suppress(psutil.Error):
                    process.kill()


@pytest.mark.slow(25)
def test_every_effect_takes_place_once_although_workers_are_killed(demo: Demo) -> None:
    assert demo.process.wait(DEADLINE_SECONDS) == 0, demo.text
    assert demo.text.count("SIGKILL of a worker; orders that it held") == 2
    assert "SIGKILL of a pool child; orders that it held" in demo.text
    assert "24 completed" in demo.text
    assert "16 compensated" in demo.text
    assert "every effect took place exactly once" in demo.text
    demo.assert_nothing_is_left()


@pytest.mark.slow(10)
def test_interrupted_midway_it_leaves_nothing(demo: Demo) -> None:
    demo.wait_for("running")
    assert len(demo.running()) > 10  # PostgreSQL and its helpers, Valkey, two beats, two workers with two children each
    demo.process.send_signal(signal.SIGINT)
    demo.process.send_signal(signal.SIGINT)  # a second signal changes nothing
    assert demo.process.wait(DEADLINE_SECONDS) == 128 + signal.SIGINT
    assert "interrupted by SIGINT. None of its processes is left" in demo.text
    demo.assert_nothing_is_left()


def test_terminated_while_it_starts_it_leaves_nothing(demo: Demo) -> None:
    wait_until(demo.running, timeout_seconds=DEADLINE_SECONDS, what="the first server")
    demo.process.terminate()
    assert demo.process.wait(DEADLINE_SECONDS) == 128 + signal.SIGTERM
    demo.assert_nothing_is_left()


@pytest.mark.parametrize("kind", ["lost", "doubled", "stuck", "wrong"])
def test_anything_that_does_not_add_up_fails_the_demo(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding(uuid4(), "Charge had its effect 2 times")
    assert judge(Findings(**{kind: [finding]}), [2.0]) == 1
    assert str(finding) in capsys.readouterr().out


def test_a_demo_without_a_takeover_fails() -> None:
    assert judge(Findings(), [2.0]) == 0
    assert judge(Findings(), []) == 1
