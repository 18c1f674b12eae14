"""The `sagas` command as a whole, and the commands that act; what each does is in the module it calls."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from sagas import api
from sagas.cli.acting import acting
from sagas.cli.code import complete_name
from sagas.cli.doctoring import examine_installation
from sagas.cli.errors import SentenceGroup
from sagas.cli.lines import read_lines
from sagas.cli.metrics import metrics
from sagas.cli.migrating import migrate_database
from sagas.cli.reading import AsJson
from sagas.cli.reading import app as reading
from sagas.cli.starting import start_lines
from sagas.storage import PostgresSagaStorage

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


@app.command()
def migrate() -> None:
    """Bring the database to the newest layout."""
    typer.echo(migrate_database(api.settings().database_url))


@app.command()
def start(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete_name,
            help="The saga's name, as its class in SAGAS_MODULES has it.",
        ),
    ],
    source: Annotated[
        typer.FileBinaryRead,
        typer.Option("--from", metavar="FILE", help="A JSON context on each line; - for standard input."),
    ],
    key: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field of each line that is its idempotency key."),
    ] = None,
) -> None:
    """Start a saga for each line of a file.

    Bad lines are told with their numbers and the others start. With --key, the same file again starts nothing twice.
    """
    engine = api.new_engine()
    saga = engine.registry.get(name)
    if not start_lines(engine, saga, read_lines(source, saga, key)):
        raise typer.Exit(1)


app.add_typer(acting)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this installation: say what is wrong, why it matters, and what to do.

    Changes nothing. The exit code is 0 without a problem (also with warnings), 1 with at least one, and 2 for a command
    line that cannot be understood.
    """
    if not examine_installation(os.environ, as_json=as_json):
        raise typer.Exit(1)


@app.command("metrics")
def metrics_(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where to listen.")] = 9808,
    host: Annotated[str, typer.Option(help="On which interface; the default is this host's own.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve metrics of the database to Prometheus.

    No worker needs to be up.
    """
    storage = PostgresSagaStorage(api.settings().database_url)
    metrics(storage, host=host, port=port, once=once)


app.add_typer(reading)
