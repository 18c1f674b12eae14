"""The `sagas` command: its commands, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from sagas.cli.dev import dev
from sagas.cli.doctor import doctor
from sagas.cli.errors import SentenceGroup
from sagas.cli.graph import graph
from sagas.cli.list import list_sagas
from sagas.cli.metrics import metrics
from sagas.cli.migrate import migrate
from sagas.cli.operate import compensate, recover, resolve, retry, skip
from sagas.cli.pause import pause, resume
from sagas.cli.prune import prune
from sagas.cli.scan import scan
from sagas.cli.schedules import schedules
from sagas.cli.show import show
from sagas.cli.signal import cancel, signal
from sagas.cli.start import start
from sagas.cli.stats import stats
from sagas.cli.wait import wait
from sagas.cli.workers import workers

app = typer.Typer(
    cls=SentenceGroup,
    no_args_is_help=True,
    # Boxes would fold what a reader wants to copy.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Sagas that survive their worker. The database is the one that SAGAS_DATABASE_URL names.",
    epilog="\b\nExit codes:\n"
    "  0    done\n"
    "  1    something was not done; a sentence on stderr says what, why, and what helps\n"
    "  2    the command was typed wrong\n"
    "  130  stopped by Ctrl-C\n"
    "\nResults are on stdout, everything else is on stderr. Reading commands take --json, and need neither broker nor "
    "worker.",
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"sagas {version('celery-sagas')}")
    except PackageNotFoundError:
        typer.echo("sagas, run from its source without being installed")
    raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    *(dev, migrate, start, signal, cancel, recover, retry, compensate, skip, resolve, pause, resume, doctor, metrics),
    *(list_sagas, show, wait, stats, workers, schedules, scan, prune, graph),
)
for _command in _COMMANDS:
    app.command("list" if _command is list_sagas else None)(_command)
