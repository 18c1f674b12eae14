"""What `sagas start` does: start a saga for each line of a file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import typer

from sagas.cli.lines import BadLine, GoodLine
from sagas.cli.words import one_line
from sagas.definition import AnySaga
from sagas.engine import SagaEngine
from sagas.settings import Settings
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.base import NewSaga

_BATCH_LINES: Final = 500
#: So that memory stays small however large the contexts are.
_BATCH_BYTES: Final = 16 * 1024 * 1024


def start_lines(settings: Settings, engine: SagaEngine, saga: AnySaga, lines: Iterable[GoodLine | BadLine]) -> bool:
    """Start a saga for each good line, tell of each bad one and how many there were; return whether all were good.

    Raises:
        StorageUnavailable: the database does not answer; what had been started until then is told all the same.
        SchemaBehind: the database lacks what this version needs.
    """
    return _Starting(settings, engine, saga).run(lines)


class _Starting:
    """One run over a file, and what came of its lines so far."""

    def __init__(self, settings: Settings, engine: SagaEngine, saga: AnySaga) -> None:
        self.saga = saga
        self.engine = engine
        self.engine.storage = self.storage = _CountingStorage(settings.database_url)
        self.good = 0
        self.bad = 0
        self.end = "; stopped before anything was started"

    def run(self, lines: Iterable[GoodLine | BadLine]) -> bool:
        try:
            for batch in _batches(self._good(lines)):
                self._start(batch)
            self.end = ""
        finally:
            known = self.good - self.storage.created
            typer.echo(f"started {self.storage.created}, known already {known}, bad {self.bad}{self.end}.")
        return not self.bad

    def _good(self, lines: Iterable[GoodLine | BadLine]) -> Iterator[GoodLine]:
        for line in lines:
            if isinstance(line, GoodLine):
                yield line
            else:
                self.bad += 1
                typer.echo(f"line {line.number}: {one_line(line.reason)}", err=True)

    def _start(self, batch: Sequence[GoodLine]) -> None:
        first, last = batch[0].number, batch[-1].number
        self.end = f"; stopped: whether lines {first} to {last} were started is unknown"
        keys = [line.key for line in batch if line.key is not None]
        self.engine.start_many(self.saga, [line.context for line in batch], idempotency_keys=keys or None)
        self.good += len(batch)
        self.end = f"; stopped after line {last}"


class _CountingStorage(SqlAlchemySagaStorage):
    """Counts the sagas it stores, because `start_many` does not tell the new ids from those known already."""

    created = 0

    def create_sagas(
        self, sagas: Sequence[NewSaga], *, owner: str | None, for_seconds: float = 0.0, connection: Any = None
    ) -> list[tuple[UUID, bool]]:
        created = super().create_sagas(sagas, owner=owner, for_seconds=for_seconds, connection=connection)
        self.created += sum(is_new for _, is_new in created)
        return created


def _batches(lines: Iterable[GoodLine]) -> Iterator[list[GoodLine]]:
    batch: list[GoodLine] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += line.size
        if len(batch) == _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
