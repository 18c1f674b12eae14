"""The commands, their options, and nothing else: what each does is in the module it calls."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from sagas.cli.acting import acting
from sagas.cli.errors import CommandFailed, SentenceGroup
from sagas.cli.lines import read_lines
from sagas.cli.listing import listing
from sagas.cli.metrics import metrics
from sagas.cli.migrating import migrate_database
from sagas.cli.plain import saga_as_json, summary_as_json
from sagas.cli.showing import showing
from sagas.cli.starting import start_lines
from sagas.cli.words import console
from sagas.engine import SagaEngine
from sagas.progress import SagaStatus
from sagas.recovery import parse_saga_id
from sagas.settings import Settings
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.base import SagaFilter

app = typer.Typer(
    cls=SentenceGroup,
    no_args_is_help=True,
    # Boxes would fold what a reader wants to copy.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Sagas that survive their worker. The database is the one that SAGAS_DATABASE_URL names.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


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
    typer.echo(migrate_database(Settings.from_environment().database_url))


@app.command()
def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name, as its class in SAGAS_MODULES has it.")],
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
    settings = Settings.from_environment()
    engine = SagaEngine.from_environment(settings)
    saga = engine.registry.get(name)
    if not start_lines(engine, saga, read_lines(source, saga, key)):
        raise typer.Exit(1)


@app.command("list")
def list_(
    status: Annotated[
        list[SagaStatus] | None, typer.Option(case_sensitive=False, help="Only these; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only sagas of this name.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that recovery gave up.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sagas, the newest first."""
    wanted = SagaFilter(statuses=status or (), name=name, dead=dead or None, limit=limit + 1)
    found = _storage(Settings.from_environment()).find(wanted)
    records = found[:limit]
    if as_json:
        typer.echo(json.dumps([summary_as_json(record) for record in records], indent=2))
    elif records:
        console().print(listing(records, datetime.now(UTC)))
    else:
        typer.echo("no sagas match.", err=True)
    if len(found) > limit:
        typer.echo(f"there are more than these {limit}: --limit shows more.", err=True)


@app.command()
def show(saga_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show a saga and the timeline of its steps."""
    settings = Settings.from_environment()
    record = _storage(settings).load(parse_saga_id(saga_id))
    if as_json:
        typer.echo(json.dumps(saga_as_json(record), indent=2))
        return
    console().print(showing(record, datetime.now(UTC), max_recovery_attempts=settings.max_recovery_attempts))


app.add_typer(acting)


@app.command("metrics")
def metrics_(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where to listen.")] = 9808,
    host: Annotated[str, typer.Option(help="On which interface; the default is this host's own.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve metrics of the database to Prometheus.

    No worker needs to be up.
    """
    metrics(_storage(Settings.from_environment()), host=host, port=port, once=once)


@app.command()
def demo() -> None:
    """See sagas survive what kills their workers."""
    try:
        run = importlib.import_module("sagas.demo.run")
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the demo needs more than is installed ({error}): pip install 'celery-sagas[demo]'."
        ) from error
    except ImportError as error:
        raise CommandFailed(str(error)) from error
    raise typer.Exit(run.main())


def _storage(settings: Settings) -> SqlAlchemySagaStorage:
    return SqlAlchemySagaStorage(settings.database_url)
