"""How a command fails: one sentence on stderr and an exit code, never a traceback for an error that was foreseen."""

from __future__ import annotations

from contextvars import ContextVar
from itertools import pairwise
from typing import Any, Final

import psycopg
import typer
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from sagas.cli.database import closed_afterwards
from sagas.errors import SagaError
from sagas.registry import namesakes
from sagas.storage.postgres.dsn import reason
from sagas.text import one_line, printable

_failed: Final[ContextVar[bool]] = ContextVar("failed")


class CommandFailed(SagaError):
    """A command cannot do what it was asked; the message is what the operator reads."""


def complain(sentence: object, severity: str = "error") -> None:
    """Print a sentence on stderr, on one line. The command goes on, and ends with exit code 1."""
    typer.echo(f"{severity}: {one_line(str(sentence))}", err=True)
    fail()


def fail() -> None:
    """Let the command end with exit code 1."""
    _failed.set(True)


class SentenceGroup(TyperGroup):
    """Runs the commands below it, and turns the errors they raise into sentences and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, argument in pairwise(["", *args]):
            # Names of files may be any bytes.
            if not _is_text(argument) and before != "--from" and not argument.startswith("--from="):
                raise typer.BadParameter(f"{printable(argument)} is not text in UTF-8: type it anew.", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for file in namesakes():
            typer.echo(
                f"warning: {one_line(str(file))} has the name of this library, and one of the two hides the other: "
                "rename it.",
                err=True,
            )
        _failed.set(False)
        try:
            with closed_afterwards():
                super().invoke(ctx)
        except SagaError as error:
            complain(error)
        except (DBAPIError, psycopg.Error) as error:
            complain(f"the database refused what the command asked of it: {reason(error)}.")
        if _failed.get():
            raise typer.Exit(1)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
