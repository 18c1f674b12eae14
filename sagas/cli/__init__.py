"""The `sagas` command: what an operator does from a shell."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from io import TextIOWrapper

# Under another name: `sagas.cli.app` stays the module.
from sagas.cli.app import app as commands

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, name: str = "sagas") -> None:
    """Run a command, and exit with its code.

    Args:
        arguments: what follows the command's name; default: this process's.
        name: how the command is called.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A customer's name must not end a listing because the terminal is set to ASCII.
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.addFilter(_SaidOnce())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])
    commands(arguments, prog_name=name)


class _SaidOnce(logging.Filter):
    """Drops what was said before in the same words: with the broker down, every batch would say so again."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in self._said:
            return False
        self._said.add(message)
        return True
