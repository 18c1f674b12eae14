"""Before something is changed: the question, and who acts and why, for the log."""

from __future__ import annotations

import getpass
import socket
import sys
from typing import Annotated

import typer

from sagas.cli.errors import CommandFailed
from sagas.storage.records import SagaRecord
from sagas.text import printable

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[
    str,
    # `--because` is the name that it had in version 0.1.0.
    typer.Option("--reason", "--because", metavar="TEXT", help="Why; kept in the saga's log with your name."),
]


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


def confirm_for(saga: SagaRecord, what: str, yes: bool) -> None:
    """Ask whether to do this with one saga, as it stands. It raises what `confirm` does."""
    confirm(f"{printable(saga.name)} {saga.id} is {saga.status}: {what}?", yes)


def operator() -> str:
    """Return who acts: the user and host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a container's user without a name
    return printable(f"{user}@{socket.gethostname()}")
