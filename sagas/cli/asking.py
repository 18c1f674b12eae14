"""Asking before something is changed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sagas.cli.errors import CommandFailed

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(question: str, yes: bool) -> None:
    """Ask on stderr, as stdout is for results, unless the answer was given with the command.

    Raises:
        CommandFailed: the answer is no, or nobody is there to give one.
    """
    if yes:
        return
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    # Not by input(), which writes to stdout.
    try:
        answer = sys.stdin.readline()
    except UnicodeDecodeError:
        answer = "\n"
    if not answer.endswith("\n"):
        typer.echo(err=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandFailed("not confirmed, so nothing was changed: answer y, or give --yes.")
