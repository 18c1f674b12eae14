"""`manage.py sagas ...` is `sagas ...` with Django's settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections


class Command(BaseCommand):
    """Runs the command line of sagas."""

    help = "Show and settle sagas, and examine the installation: `manage.py sagas --help`."
    requires_system_checks: Sequence[str] = []  # the doctor itself finds what is wrong

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command that a shell gives, and exit with its code."""
        self._run(_without_djangos(argv[2:]), f"{argv[0]} {argv[1]}")

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print the help of the whole command."""
        self._run(["--help"], f"{prog_name} {subcommand}")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Accept all arguments of `call_command`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the command that `call_command` gives.

        Raises:
            CommandError: the command failed.
        """
        try:
            self._run(options["arguments"], "sagas")
        except SystemExit as end:
            if end.code not in (None, 0):
                raise CommandError(
                    "the command failed; the reason is on stderr",
                    returncode=end.code if isinstance(end.code, int) else 1,
                ) from None

    def _run(self, arguments: Sequence[str], name: str) -> None:
        from sagas.cli import main

        try:
            main(arguments, name=name)
        finally:
            connections.close_all()


def _without_djangos(arguments: Sequence[str]) -> list[str]:
    """Leave out the options that manage.py itself has read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    return parser.parse_known_args(list(arguments))[1]
