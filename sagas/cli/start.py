"""`sagas start`: start a saga for each line of a file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Final

import typer

from sagas import api
from sagas.cli.durations import parse_start
from sagas.cli.errors import complain
from sagas.cli.jsonl import BadLine, GoodLine, read_lines
from sagas.cli.loading import KnownName

_BATCH_LINES: Final = 500
#: So that memory stays small however large the contexts are.
_BATCH_BYTES: Final = 16 * 1024 * 1024


def start(
    name: KnownName,
    source: Annotated[
        typer.FileBinaryRead,
        typer.Option("--from", metavar="FILE", help="A JSON context on each line; - for standard input."),
    ],
    key: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field of each line that is its idempotency key."),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_start,
            metavar="TIME",
            help="When they are to begin: a time with its zone, as 2026-11-26T14:30Z, or 'in 2h'.  [default: at once]",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="A tag for each of them; may be repeated."),
    ] = None,
) -> None:
    """Start a saga for each line of a file.

    Bad lines are reported with their numbers, and the others start. With --key, the same file again
    starts nothing twice.
    """
    tags = dict(map(parse_tag, tag or ()))
    engine = api.new_engine()
    saga = engine.registry.get(name)
    new = known = bad = 0
    end = "; stopped before anything was started"

    def good_lines() -> Iterator[GoodLine]:
        nonlocal bad
        for line in read_lines(source, saga, key):
            if isinstance(line, BadLine):
                bad += 1
                complain(line.reason, f"line {line.number}")
            else:
                yield line

    try:
        for batch in _batches(good_lines()):
            first, last = batch[0].number, batch[-1].number
            end = f"; stopped: whether lines {first} to {last} were started is unknown"
            keys = [line.key for line in batch if line.key is not None]
            contexts = [line.context for line in batch]
            started = engine.start_or_find_many(saga, contexts, idempotency_keys=keys or None, at=at, tags=tags)
            new += sum(is_new for _, is_new in started)
            known += sum(not is_new for _, is_new in started)
            end = f"; stopped after line {last}"
        end = ""
    finally:
        typer.echo(f"started {new}, known already {known}, bad {bad}{end}.")


def parse_tag(written: str) -> tuple[str, str]:
    """Return a tag and its value.

    Raises:
        typer.BadParameter: it is not written as TAG=VALUE.
    """
    tag, equals, value = written.partition("=")
    if not (tag and equals):
        raise typer.BadParameter(
            f"{written!r} is no tag with its value: write them as customer=c-7.", param_hint="'--tag'"
        )
    return tag, value


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
