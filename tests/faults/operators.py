"""Operators of real processes: the `sagas` command, run at random moments and sometimes killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from uuid import UUID

from sagas.errors import ActionRefused, StorageUnavailable
from sagas.testing.processes import wait_until
from tests.faults.background import in_background
from tests.faults.check import ALL_STEPS as STEPS
from tests.faults.cluster import Cluster, OurSystem
from tests.faults.shop import FaultyOrder, Order

NAME = FaultyOrder.stored_name()
#: A command starts in about a second, so killed commands have done nothing, a part, or all of their work.
_KILLED_WITHIN_SECONDS = (0.3, 2.0)
_COMMAND_SECONDS = 90


class Operators:
    """Issues commands, one at a time.

    Args:
        cluster: of our system.
        random: chooses the command and the saga, and whether the command is killed.
        start: starts a saga.
        started: the sagas started so far.
    """

    def __init__(
        self, cluster: Cluster, random: Random, *, start: Callable[[Order], UUID], started: dict[UUID, Order]
    ) -> None:
        assert isinstance(cluster.system, OurSystem)
        self._cluster, self._system = cluster, cluster.system
        self._random = random
        self._start, self._started = start, started
        self._jammed: dict[UUID, str] = {}
        self._commands: dict[str, Callable[[], None]] = {
            "pause": self._pause,
            "compensate": lambda: self._about_one("compensate"),
            "recover": lambda: self._about_one("recover"),
            "retry": lambda: self._type("retry", "--dead", "--yes"),
            "skip": lambda: self._settle("skip"),
            "resolve": lambda: self._settle("resolve"),
        }
        #: Command → how often it succeeded, was refused (or failed while the database was away), and was killed.
        self.typed: dict[str, Counter[str]] = defaultdict(Counter)

    @contextmanager
    def going_on(self, gap_seconds: float, *, once: bool) -> Iterator[None]:
        """Issue every command once while the block runs, and, if asked for, more commands until the block ends.

        Afterwards all names are resumed, and sagas that need an operator are settled.
        """

        def go_on(ended: threading.Event) -> None:
            left = list(self._commands)
            self._random.shuffle(left)
            # While all names are paused, no saga is taken over, so pause only once.
            others = [command for command in self._commands if command != "pause"]
            while left or not (once or ended.is_set()):
                self._commands[left.pop() if left else self._random.choice(others)]()
                ended.wait(self._random.uniform(0, gap_seconds))

        with in_background(go_on):
            yield
        self._finish()

    # -- commands -------------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        self._type("pause", NAME, "--reason", "a fault", "--yes")
        time.sleep(self._random.uniform(0.5, 3))
        # Scans finish a command that was killed half-way. A command that did nothing is issued again.
        while not self._type("resume", NAME, "--yes") and self._paused():
            pass

    def _about_one(self, command: str) -> None:
        for saga_id in self._random.sample(unfinished := self._unfinished(), min(1, len(unfinished))):
            options = ["--wait", "5"] if command == "compensate" else []
            self._type(command, str(saga_id), "--reason", "a fault", "--yes", *options)

    def _settle(self, command: str) -> None:
        """Skip a step that cannot be undone, or end its saga, before or after the saga is dead."""
        place = self._random.randrange(len(STEPS) - 1)
        step = STEPS[place]
        saga_id = self._start(Order(failing={step: "jammed", STEPS[place + 1]: "clean"}))
        self._jammed[saga_id] = step
        with suppress(TimeoutError):
            wait_until(lambda: self._is_stuck(saga_id), timeout_seconds=20)
        arguments = {"skip": [step], "resolve": ["--as", "compensated"]}[command]
        self._type(command, str(saga_id), *arguments, "--reason", "a fault", "--wait", "5", "--yes")

    def _type(self, command: str, *arguments: str) -> bool:
        """Run a command, or begin to; return whether it succeeded."""
        process = subprocess.Popen(
            [sys.executable, "-m", "sagas.cli", command, *arguments],
            env=os.environ | self._cluster.environment(self._cluster.database_url),
            cwd=self._cluster.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killed = self._random.random() < 0.3
        try:
            told, _ = process.communicate(timeout=self._random.uniform(*_KILLED_WITHIN_SECONDS) if killed else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.typed[command]["killed"] += 1
            return False
        # A command must end with a message under every fault.
        assert "Traceback" not in told, f"sagas {command} {' '.join(arguments)}:\n{told}"
        self.typed[command]["done" if process.returncode == 0 else "refused"] += 1
        return process.returncode == 0

    # -- details --------------------------------------------------------------------------------------------------

    def _unfinished(self) -> list[UUID]:
        """Return the sagas that any operator may act on: not the poison, and not those that wait to be settled."""
        started = dict(self._started)
        special = {id_ for id_, order in started.items() if {"poison", "jammed"} & set(order.failing.values())}
        with suppress(StorageUnavailable):
            return [id_ for id_ in self._system.unfinished_ids() if id_ in started and id_ not in special]
        return []

    def _paused(self) -> bool:
        while True:
            with suppress(StorageUnavailable):
                return any(pause.name == NAME for pause in self._system.storage.pauses())
            time.sleep(0.2)

    def _is_stuck(self, saga_id: UUID) -> bool:
        with suppress(StorageUnavailable):
            return self._system.storage.load(saga_id).status.value == "FAILED"
        return False

    def _finish(self) -> None:
        """Resume all names and settle sagas that are still stuck, in this process; retry until this succeeds."""
        wait_until(self._resumed, timeout_seconds=_COMMAND_SECONDS, what="the end of the pause")
        for saga_id, step in self._jammed.items():
            wait_until(
                lambda saga_id=saga_id, step=step: self._settled(saga_id, step),
                timeout_seconds=_COMMAND_SECONDS,
                what=f"the settling of {saga_id}",
            )

    def _resumed(self) -> bool:
        with suppress(StorageUnavailable):
            self._system.storage.resume(NAME)
            return True
        return False

    def _settled(self, saga_id: UUID, step: str) -> bool:
        with suppress(StorageUnavailable, ActionRefused):
            record = self._system.storage.load(saga_id)
            if record.status.finished or any(entry.status == "skipped" for entry in record.log):
                return True
            self._system.operator("the last").skip(saga_id, step, reason="the end")
            return True
        return False
