"""Sagas for tests with real workers: their steps leave marks in a folder, and can be held at a gate."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from sagas import Call, RetryPolicy, Saga, Step


@dataclass
class Job:
    """What a test wants of one saga.

    Attributes:
        folder: where steps leave their marks; "" for none.
        gate: name of the step that waits until the file `open` is there.
        fail: name of the step that fails for good.
        flaky: seconds until the second step is tried again, once; 0 for no failure.
        kill: name of the step that kills its process.
    """

    folder: str = ""
    gate: str = ""
    fail: str = ""
    flaky: float = 0.0
    kill: str = ""


def mark(job: Job, call: Call, what: str) -> None:
    """Leave a mark that an action was performed: a file per attempt, named by its idempotency key."""
    if job.folder:
        name = f"{call.step_name}.{what}.{time.time_ns()}.{os.getpid()}"
        (Path(job.folder) / name).write_text(call.idempotency_key)


def marks(folder: Path, step: str, what: str = "act") -> list[str]:
    """Return the idempotency keys of the attempts at an action."""
    return [path.read_text() for path in sorted(folder.glob(f"{step}.{what}.*"))]


class Marking(Step[Job]):
    """A step that leaves marks."""

    def act(self, context: Job, call: Call) -> None:
        mark(context, call, "act")
        if context.kill == call.step_name:
            os.kill(os.getpid(), 9)
        if context.gate == call.step_name:
            deadline = time.monotonic() + 60
            while not (Path(context.folder) / "open").exists():
                assert time.monotonic() < deadline, "the test never opened the gate"
                time.sleep(0.02)
        if context.fail == call.step_name:
            raise ValueError("this order fails on purpose")
        if context.flaky and call.step_name == "second" and call.attempt == 1:
            raise ConnectionError("not today")

    def compensate(self, context: Job, call: Call) -> None:
        mark(context, call, "compensate")


class First(Marking):
    pass


class Second(Marking):
    retry = RetryPolicy(max_attempts=2, first_delay=6.0, max_delay=6.0, jitter=0.0, retry_on=(ConnectionError,))


class Third(Marking):
    async def act(self, context: Job, call: Call) -> None:  # type: ignore[override]
        super().act(context, call)


class ThreeSteps(Saga[Job]):
    steps = [First, Second, Third]
