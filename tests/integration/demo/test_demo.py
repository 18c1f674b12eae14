"""The demo as its users see it: a process that ends well, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from sagas.testing.processes import wait_until

#: Far more than anything here takes, so that a slow machine does not fail.
DEADLINE_SECONDS = 110
#: Settings for other programs, which must not reach the demo.
NOT_FOR_THE_DEMO = {"SAGAS_LEASE_SECONDS": "long", "CELERY_CONFIG_MODULE": "none.such", "PGSSLMODE": "require"}


class Demo:
    """A demo that runs, with a directory for temporary files of its own."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.output = temporary.with_suffix(".out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sagas.demo"],
                env={**os.environ, "TMPDIR": str(temporary), **NOT_FOR_THE_DEMO},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.seen: set[psutil.Process] = set()

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until the demo printed this, and remember every process seen meanwhile."""

        def printed() -> bool:
            self.look()
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            return text in self.text

        wait_until(printed, timeout_seconds=DEADLINE_SECONDS, what=text)

    def wait_for_end(self) -> int:
        def ended() -> bool:
            self.look()
            return self.process.poll() is not None

        wait_until(ended, timeout_seconds=DEADLINE_SECONDS, what="the demo's end")
        return self.process.returncode

    def look(self) -> None:
        """Remember every process whose ancestor the demo is."""
        with suppress(psutil.NoSuchProcess):
            self.seen.update(psutil.Process(self.process.pid).children(recursive=True))

    def running(self) -> list[psutil.Process]:
        """Every process of the demo that still runs, seen before or known by its temporary directory; not itself."""
        found = []
        for process in {*self.seen, *psutil.process_iter()}:
            with suppress(psutil.Error):
                ours = process in self.seen or str(self.temporary) in process.environ().get("TMPDIR", "")
                if (
                    ours
                    and process.pid != self.process.pid
                    and process.is_running()
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def names(self) -> set[str]:
        """What the processes seen were started as, in a word each."""
        words = ("postgres", "valkey-server", "guard.py", "worker-1@demo", "worker-2@demo", "beat")
        found = set()
        for process in self.running():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                found |= {word for word in words if word in line}
        return found

    def assert_nothing_is_left(self) -> None:
        def left() -> list[object]:
            with suppress(FileNotFoundError):  # a directory may go while it is walked
                return [*self.running(), *self.temporary.rglob("*")]
            return [self.temporary]

        with suppress(TimeoutError):
            wait_until(lambda: not left(), timeout_seconds=30)
        assert left() == []


@pytest.fixture
def demo() -> Iterator[Demo]:
    # Not below tmp_path, through which the user that runs PostgreSQL for root may not pass.
    with tempfile.TemporaryDirectory(prefix="sagas-test-") as directory:
        temporary = Path(directory) / "temporary"
        temporary.mkdir()
        Path(directory).chmod(0o711)
        temporary.chmod(0o711)
        demo = Demo(temporary)
        try:
            yield demo
        finally:
            demo.look()
            for process in demo.running():
                with suppress(psutil.Error):
                    process.kill()
            if demo.process.poll() is None:
                demo.process.kill()
            demo.process.wait()


def test_every_order_ends_as_it_must_although_a_worker_is_killed(demo: Demo) -> None:
    assert demo.wait_for_end() == 0, demo.text
    text = demo.text
    assert "SIGKILL to worker-2, which held orders" in text
    assert "worker-1 took over order" in text
    assert "60 of 60 as expected: 51 completed, 9 compensated" in text
    assert "balances: 214 effects, each once; 10 undone" in text
    assert "takeovers" not in text, "the table is for terminals"
    demo.assert_nothing_is_left()


def test_interrupted_midway_it_leaves_nothing(demo: Demo) -> None:
    demo.wait_for("running")
    assert demo.names() == {"postgres", "valkey-server", "guard.py", "worker-1@demo", "worker-2@demo", "beat"}
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait_for_end() == 128 + signal.SIGINT
    assert "interrupted by SIGINT; it left no process and no file behind" in demo.text
    demo.assert_nothing_is_left()


def test_terminated_while_it_starts_it_leaves_nothing(demo: Demo) -> None:
    wait_until(lambda: list(demo.temporary.glob("sagas-demo-*/postgres")), timeout_seconds=DEADLINE_SECONDS)
    demo.look()
    demo.process.terminate()
    assert demo.wait_for_end() == 128 + signal.SIGTERM
    demo.assert_nothing_is_left()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the servers of a killed process")
def test_killed_itself_it_leaves_nothing(demo: Demo) -> None:
    demo.wait_for("starting beat")
    wait_until(lambda: demo.look() or "worker-2@demo" in demo.names(), timeout_seconds=DEADLINE_SECONDS)
    demo.process.kill()
    demo.process.wait()
    demo.assert_nothing_is_left()
