"""Measure the bytes of write-ahead log for each checkpoint of a large context, compared with the context's size."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.database import Database
from benchmarks.rows import Row
from sagas import Call, Saga, SagaEngine, Step

BYTES = 1_000_000
STEPS = 20


@dataclass
class Document:
    """A megabyte that does not compress, and a counter that each step changes."""

    text: str
    changes: int = 0


class Change(Step[Document]):
    """Changes the context a little, so that it is written again."""

    def act(self, context: Document, call: Call) -> None:
        context.changes += 1


class Look(Step[Document]):
    """Changes nothing."""

    def act(self, context: Document, call: Call) -> None:
        return


def _steps(base: type[Step[Document]]) -> list[type[Step[Document]]]:
    return [type(f"{base.__name__}{number}", (base,), {}) for number in range(STEPS)]


class Changing(Saga[Document]):
    steps = _steps(Change)


class Looking(Saga[Document]):
    steps = _steps(Look)


def measure(database: Callable[[str], Database]) -> list[Row]:
    """Return the row of checkpoints with a changed context of 1 MB; its details have those without a change."""
    target = database("contexts")
    target.migrate()
    letters = random.Random(1)
    text = "".join(letters.choices(string.ascii_letters + string.digits, k=BYTES))
    storage = target.storage()
    engine = SagaEngine(storage, sagas=[Changing, Looking])
    written = {saga.name: _written(target, engine, saga, Document(text)) for saga in (Changing, Looking)}
    storage.close()
    return [
        Row(
            name="1 MB contexts: written per checkpoint",
            unit="bytes",
            measured=written[Changing.name],
            against="the context's size",
            limit=BYTES,
            ratio=written[Changing.name] / BYTES,
            goal=1.2,
            at_most=True,
            details={"bytes when a step changes nothing": written[Looking.name], "checkpoints": STEPS},
        )
    ]


def _written(target: Database, engine: SagaEngine, saga: Any, context: Document) -> float:
    """Return the bytes of write-ahead log for each checkpoint, without the context that the saga's start writes."""
    with target.connect() as connection:

        def position() -> int:
            row = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
            return int(row[0]) if row else 0

        connection.execute("CHECKPOINT")
        before = position()
        report = engine.run(saga, context)
        if report.outcome != "completed":
            raise RuntimeError(f"{saga.name} is {report.outcome}: {report.message}")
        return (position() - before - BYTES) / STEPS
