"""The `sagas` command: what an operator does from a shell."""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper

# Under another name: `sagas.cli.app` stays the module.
from sagas.cli.app import app as commands

__all__ = ["main"]


def main() -> None:
    """Run the command that this process's arguments give, and exit with its code."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A customer's name must not end a listing because the terminal is set to ASCII.
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.addFilter(_SaidOnce())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])
    commands(prog_name="sagas")


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
