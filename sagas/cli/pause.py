"""`sagas pause` and `sagas resume`: hold back every saga of a name, and let them go on."""

from __future__ import annotations

from typing import Annotated

import typer

from sagas.cli.database import inspector, storage
from sagas.cli.errors import CommandFailed
from sagas.cli.loading import check_name, nearest_of, stored_name
from sagas.cli.prompts import Reason, Yes, confirm, operator
from sagas.text import printable


def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The sagas' name, as `sagas list` shows it.")],
    reason: Reason,
    yes: Yes = False,
) -> None:
    """Pause all sagas of a name: workers neither start, continue nor recover them until it is resumed.

    Running sagas stop after the step they are at. Sagas that are started meanwhile are stored and run later.
    """
    name = stored_name(name)
    shown = printable(name)
    check_name(name, inspector().names)
    confirm(f"pause every saga named {shown!r}?", yes)
    paused = storage().pause(name, actor=operator(), reason=reason)
    typer.echo(f"{shown} is paused; {paused} that were due are paused. `sagas resume {shown}` ends it.")


def resume(name: Annotated[str, typer.Argument(metavar="NAME")], yes: Yes = False) -> None:
    """Let sagas of a paused name go on."""
    name = stored_name(name)
    shown = printable(name)
    paused = [pause.name for pause in storage().pauses()]
    if name not in paused:
        raise CommandFailed(f"{shown!r} is not paused. {nearest_of(name, paused, 'Paused are')}")
    confirm(f"resume every saga named {shown!r}?", yes)
    typer.echo(f"{shown} is resumed; {storage().resume(name)} that were paused are due.")
