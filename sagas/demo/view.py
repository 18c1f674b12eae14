"""What the demo shows while the sagas run: a live table on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from sagas import SagaStatus
from sagas.demo.watching import Kill, Snapshot, rows
from sagas.storage.contract import ISagaStorage

_ROWS: Final = 12
#: How often a line is printed where no table can be shown.
_LINE_SECONDS: Final = 2.0
_STYLES: Final = {
    SagaStatus.PENDING: "dim",
    SagaStatus.RUNNING: "cyan",
    SagaStatus.COMPENSATING: "yellow",
    SagaStatus.COMPLETED: "green",
    SagaStatus.COMPENSATED: "magenta",
    SagaStatus.FAILED: "red",
}


class View(Protocol):
    """Shows how the sagas stand."""

    def show(self, snapshot: Snapshot, kill: Kill | None) -> None:
        """Show this moment; `kill` is the worker that was killed, if one was."""


@contextmanager
def view(console: Console, storage: ISagaStorage) -> Iterator[View]:
    """The view that fits where the console's text goes."""
    # Asked of the file: FORCE_COLOR makes rich believe in a terminal where there is none.
    if not (console.is_interactive and console.file.isatty()):
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _LiveTable(live, storage)


class _LiveTable:
    """The sagas in progress and those that ended last, in place."""

    def __init__(self, live: Live, storage: ISagaStorage) -> None:
        self._live = live
        self._storage = storage

    def show(self, snapshot: Snapshot, kill: Kill | None) -> None:
        # As wide as they ever get, so that nothing jumps.
        table = Table("order", Column("status", width=12), Column("step", width=18), Column("worker", width=17))
        table.add_column("takeovers")
        for row in rows(snapshot, self._storage, limit=_ROWS):
            killed = kill is not None and row.worker == kill.worker and not row.status.finished
            table.add_row(
                row.order,
                Text(row.status, _STYLES[row.status]),
                row.step,
                Text(f"{row.worker} (killed)", "bold red") if killed else row.worker,
                Text(str(row.takeovers), "bold") if row.takeovers else "",
            )
        self._live.update(Group(table, _counts(snapshot)), refresh=True)


class _Lines:
    """The counts, every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, snapshot: Snapshot, kill: Kill | None) -> None:
        now = time.monotonic() - self._began
        if now >= self._next or snapshot.finished == len(snapshot.records):
            self._next = now + _LINE_SECONDS
            self._console.print(f"{now:5.1f} s  ", _counts(snapshot), sep="", soft_wrap=True)


def _counts(snapshot: Snapshot) -> Text:
    counts = snapshot.counts
    parts = [Text(f"{counts.get(status, 0)} {status.lower()}", style) for status, style in _STYLES.items()]
    return Text("   ").join(part for part, status in zip(parts, _STYLES, strict=True) if counts.get(status))
