"""Asking before something cannot be undone."""

from __future__ import annotations

import sys

import typer


def confirm(question: str) -> None:
    """Ask on stderr, as stdout is for results, and go on only if the answer is yes.

    Raises:
        typer.Abort: it is not, or there is nobody to answer.
    """
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        typer.echo(err=True)
        raise typer.Abort
