"""`sagas prune`: delete old finished sagas, batch by batch."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagas import pruning
from sagas.cli.database import inspector, storage
from sagas.cli.durations import parse_age
from sagas.cli.prompts import Yes, confirm
from sagas.cli.render import count_of
from sagas.cli.serialize import AsJson, print_json
from sagas.duration import duration

_COLUMNS: Final = (TextColumn("pruning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def prune(
    older_than: Annotated[
        float, typer.Option(parser=parse_age, metavar="AGE", help="How long ago they ended at least; as 12h, 90d.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete finished sagas, and their logs, that ended long ago."""
    found = inspector().prunable(older_than)
    what = f"{count_of(found, 'saga')} that ended more than {duration(older_than)} ago"
    if not dry_run:
        confirm(f"delete {what}, for good?", yes or not found)
        _delete(older_than, found, as_json)
    elif as_json:
        print_json({"found": found, "deleted": 0, "whole": False})
    else:
        typer.echo(f"{what}; a dry run deletes none.")


def _delete(older_than_seconds: float, found: int, as_json: bool) -> None:
    """Delete them with a progress bar on a terminal, and print how many were deleted, also when it is stopped."""
    deleted, whole = 0, False
    screen = Console(stderr=True)
    try:
        with Progress(*_COLUMNS, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            task = progress.add_task("", total=found)
            for batch in pruning.prune(storage(), older_than_seconds=older_than_seconds):
                deleted += batch
                progress.update(task, completed=deleted, total=max(found, deleted))
        whole = True
    finally:
        if as_json:
            print_json({"found": found, "deleted": deleted, "whole": whole})
        else:
            typer.echo(f"pruned {deleted}{'' if whole else '; stopped, the rest is for the next time'}.")
