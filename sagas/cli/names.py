"""Names of sagas as an operator types them: known or not, and which was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

import typer

from sagas.cli.code import known_sagas
from sagas.errors import QuestionTooLong, SagaError
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage.operations import Operations
from sagas.text import printable

_SHOWN: Final = 10


def stored_name(name: str) -> str:
    """Return the name under which these sagas are stored, which is another for one that was renamed."""
    try:
        stored = _code().get(name).stored_name()
    except SagaError:
        return name  # sagas are paused, too, where their code cannot be imported
    if stored != name:
        typer.echo(f"{printable(name)} was renamed: its sagas are stored as {printable(stored)}.", err=True)
    return stored


def warn_if_unknown(name: str, operations: Operations) -> bool:
    """Return whether a saga has this name, in the code or in the database; if none has, warn and tell which names are.

    Finished sagas without an idempotency key do not count, as no index has their names.
    """
    try:
        names = set(operations.names())
    except QuestionTooLong:
        return True  # nobody knows
    try:
        for saga in _code():
            names |= {saga.name, saga.stored_name(), *saga.aliases}
    except SagaError as error:
        typer.echo(f"warning: only stored names can be compared ({printable(error)})", err=True)
    if name in names:
        return True
    typer.echo(
        f"warning: no saga is named {printable(name)!r} here, in the code or in the database. "
        f"{nearest_of(name, names, 'Names are')}",
        err=True,
    )
    return False


def nearest_of(name: str, names: Iterable[str], introduction: str) -> str:
    """Return a sentence with the names, the most similar one first."""
    found = sorted(names, key=lambda known: (-SequenceMatcher(None, name, known).ratio(), known))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{introduction}: {', '.join(map(printable, found[:_SHOWN])) or 'none'}{more}."


def _code() -> Registry:
    return known_sagas(Settings.from_environment())
