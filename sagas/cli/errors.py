"""How a command fails: one sentence on stderr and an exit code, never a traceback for what we foresaw."""

from __future__ import annotations

from typing import Any

import psycopg
import typer
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from sagas.cli.words import one_line
from sagas.errors import SagaError
from sagas.storage.connecting import reason


class CommandFailed(SagaError):
    """A command cannot do what it was asked; the message is what the operator reads."""


def complain(sentence: object) -> None:
    """Print an error on stderr, on one line."""
    typer.echo(f"error: {one_line(str(sentence))}", err=True)


class SentenceGroup(TyperGroup):
    """Runs the commands below it, and turns the errors they raise into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SagaError as error:
            complain(error)
        except (DBAPIError, psycopg.Error) as error:
            complain(f"the database refused what the command asked of it: {reason(error)}.")
        raise typer.Exit(1)
