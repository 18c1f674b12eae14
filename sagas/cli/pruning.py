"""What `sagas prune` does: delete old finished sagas, batch by batch, and tell how many whatever stops it."""

from __future__ import annotations

import json
from typing import Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagas.cli.words import error_console
from sagas.pruning import prune
from sagas.storage.contract import ISagaStorage

_COLUMNS: Final = (TextColumn("pruning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def prune_sagas(storage: ISagaStorage, *, older_than_seconds: float, found: int, as_json: bool) -> None:
    """Delete finished sagas that ended longer ago than this, with a progress bar on a terminal.

    Args:
        storage: where they are.
        older_than_seconds: the age.
        found: how many there were, for the bar.
        as_json: print the result for a program.
    """
    deleted, whole = 0, False
    screen = error_console()
    try:
        with Progress(*_COLUMNS, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            task = progress.add_task("", total=found)
            for batch in prune(storage, older_than_seconds=older_than_seconds):
                deleted += batch
                progress.update(task, completed=deleted, total=max(found, deleted))
        whole = True
    finally:
        if as_json:
            typer.echo(json.dumps({"found": found, "deleted": deleted, "whole": whole}, indent=2))
        else:
            typer.echo(f"pruned {deleted}{'' if whole else '; stopped, the rest is for the next time'}.")
