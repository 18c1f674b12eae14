"""The user's saga classes: loaded for a command, and their names as an operator types them.

Commands that only read work without them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from typing import Annotated, Final

import typer

from sagas import api
from sagas.cli.errors import complain
from sagas.errors import ConfigurationError, QueryTimeout, SagaError
from sagas.registry import Registry
from sagas.text import printable

_SHOWN: Final = 10


def known_sagas() -> Registry:
    """Return the sagas of SAGAS_MODULES; what their modules print goes to stderr, as stdout is the command's.

    Raises:
        SagaError: a module cannot be used.
    """
    registry = Registry()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            registry.load(api.settings().modules)
        except SystemExit as error:
            raise ConfigurationError(
                f"SAGAS_MODULES names a module that ends the process when it is imported (exit code {error.code}): "
                "name modules that only define things."
            ) from error
    return registry


def complete_name(incomplete: str) -> list[str]:
    """Return the saga names that begin so; none, silently, if the code cannot be loaded."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # noqa: PTH123
            registry = known_sagas()
    except SagaError:
        return []
    finally:
        logging.disable(disabled)
    return sorted({saga.stored_name() for saga in registry if saga.stored_name().startswith(incomplete)})


#: The name of a saga in the code, completed in a shell.
KnownName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=complete_name, help="The saga's name, as its class in SAGAS_MODULES has it."
    ),
]


def stored_name(name: str) -> str:
    """Return the name under which these sagas are stored, which is another for one that was renamed."""
    try:
        stored = known_sagas().get(name).stored_name()
    except SagaError:
        return name  # sagas are paused, too, where their code cannot be imported
    if stored != name:
        typer.echo(f"{printable(name)} was renamed: its sagas are stored as {printable(stored)}.", err=True)
    return stored


def check_name(name: str, names_in_database: Callable[[], Iterable[str]]) -> None:
    """Warn if no saga has this name, in the code or in the database; the command then fails.

    Finished sagas without an idempotency key do not count, as no index has their names.
    """
    try:
        names = set(names_in_database())
    except QueryTimeout:
        return
    try:
        for saga in known_sagas():
            names |= {saga.name, saga.stored_name(), *saga.aliases}
    except SagaError as error:
        typer.echo(f"warning: only stored names can be compared ({printable(error)})", err=True)
    if name not in names:
        complain(
            f"no saga is named {printable(name)!r} here, in the code or in the database. "
            f"{nearest_of(name, names, 'Names are')}",
            "warning",
        )


def nearest_of(name: str, names: Iterable[str], introduction: str) -> str:
    """Return a sentence with the names, the most similar one first."""
    found = sorted(names, key=lambda known: (-SequenceMatcher(None, name, known).ratio(), known))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{introduction}: {', '.join(map(printable, found[:_SHOWN])) or 'none'}{more}."
