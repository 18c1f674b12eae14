"""What `sagas start` does: start a saga for each line of a file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import typer

from sagas.cli.lines import BadLine, GoodLine
from sagas.cli.words import one_line
from sagas.definition import AnySaga
from sagas.engine import SagaEngine

_BATCH_LINES: Final = 500
#: So that memory stays small however large the contexts are.
_BATCH_BYTES: Final = 16 * 1024 * 1024


def start_lines(engine: SagaEngine, saga: AnySaga, lines: Iterable[GoodLine | BadLine]) -> bool:
    """Start a saga for each good line, tell of each bad one and how many there were; return whether all were good.

    Raises:
        StorageUnavailable: the database does not answer; what had been started until then is told all the same.
        SchemaBehind: the database lacks what this version needs.
    """
    return _Starting(engine, saga).run(lines)


class _Starting:
    """One run over a file, and what came of its lines so far."""

    def __init__(self, engine: SagaEngine, saga: AnySaga) -> None:
        self.saga = saga
        self.engine = engine
        self.new = 0
        self.known = 0
        self.bad = 0
        self.end = "; stopped before anything was started"

    def run(self, lines: Iterable[GoodLine | BadLine]) -> bool:
        try:
            for batch in _batches(self._good(lines)):
                self._start(batch)
            self.end = ""
        finally:
            typer.echo(f"started {self.new}, known already {self.known}, bad {self.bad}{self.end}.")
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
        contexts = [line.context for line in batch]
        started = self.engine.start_or_find_many(self.saga, contexts, idempotency_keys=keys or None)
        self.new += sum(is_new for _, is_new in started)
        self.known += sum(not is_new for _, is_new in started)
        self.end = f"; stopped after line {last}"


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
