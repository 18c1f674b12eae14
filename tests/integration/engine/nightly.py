"""A schedule, and a scan of it as one process: `python -m tests.integration.engine.nightly DATABASE_URL [CRASH]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sagas import Call, PostgresSagaStorage, Saga, SagaEngine, Schedule, Step
from sagas.storage.records import Claim

#: An exit code of nothing else.
CRASHED: Final = 77


@dataclass
class Books:
    """What is closed."""

    day: str


class Close(Step[Books]):
    """Closes them."""

    def act(self, context: Books, call: Call) -> None:
        """Do nothing."""


class CloseBooks(Saga[Books]):
    """Closes the books of a day."""

    steps = [Close]


nightly = Schedule(
    CloseBooks,
    "0 3 * * *",
    context=lambda tick: Books(day=f"{tick:%Y-%m-%d}"),
    timezone="Europe/Berlin",
    catch_up="all",
    name="nightly",
)


class NoBroker:
    """Sends nothing."""

    def send(self, claims: Sequence[Claim]) -> int:
        """Lose the messages."""
        return len(claims)


class CrashesBeforeNoting(PostgresSagaStorage):
    """Ends the process, as the kernel would, between the start of a saga and the note of its tick."""

    def note_tick(self, name: str, tick: datetime) -> None:
        """Crash."""
        os._exit(CRASHED)


def engine(storage: PostgresSagaStorage) -> SagaEngine:
    """Return an engine with the schedule."""
    made = SagaEngine(storage, dispatcher=NoBroker())
    made.registry.add_schedule(nightly)
    return made


def main(url: str, crash: bool) -> None:
    """Scan when a line comes on stdin, and print how many sagas the schedule started."""
    scanner = engine(CrashesBeforeNoting(url) if crash else PostgresSagaStorage(url))
    scanner.storage.check_schema()
    print("ready", flush=True)
    sys.stdin.readline()
    print(len(scanner.scan().scheduled), datetime.now().astimezone().isoformat(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "CRASH" in sys.argv[2:])
