"""The commands that change no saga, and `prune`: their options and nothing else; each works in the module it calls."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from sagas import api
from sagas.cli.ages import seconds_of
from sagas.cli.asking import Yes, confirm
from sagas.cli.code import complete_name, known_sagas
from sagas.cli.counting import counting, counts_as_json
from sagas.cli.graph import graph_as_json, mermaid_graph, text_graph
from sagas.cli.holding import holding, holdings_as_json
from sagas.cli.listing import listing, next_page
from sagas.cli.plain import summary_as_json
from sagas.cli.pruning import prune_sagas
from sagas.cli.scanning import foresight, foresight_as_json, report, report_as_json
from sagas.cli.showing import look_up, showing, shown_as_json
from sagas.cli.words import console
from sagas.duration import duration
from sagas.progress import SagaStatus
from sagas.recovery import parse_saga_id
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.operations import Operations
from sagas.storage.operator_answers import Listing

app = typer.Typer()

#: Sagas of each kind in a dry run.
_SHOWN: Final = 10

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_(
    *,
    status: Annotated[
        list[SagaStatus] | None,
        typer.Option(metavar="STATUS", case_sensitive=False, help="Only these, as RUNNING; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(autocompletion=complete_name, help="Only sagas of this name.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that recovery gave up.")] = False,
    older_than: Annotated[
        float | None, typer.Option(parser=seconds_of, metavar="AGE", help="Only those started before; as 90s, 10m, 3d.")
    ] = None,
    newer_than: Annotated[
        float | None, typer.Option(parser=seconds_of, metavar="AGE", help="Only those started since; as 2h.")
    ] = None,
    leased_by: Annotated[
        str | None, typer.Option(metavar="OWNER", help="Only those that it holds: a node, or a whole owner.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this one, the last of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sagas, the newest first."""
    wanted = Listing(
        statuses=status or (),
        name=name,
        dead=dead,
        leased_by=leased_by,
        older_than_seconds=older_than,
        newer_than_seconds=newer_than,
        after=None if after is None else parse_saga_id(after),
        limit=limit,
    )
    page = _operations().list_sagas(wanted)
    if as_json:
        _print_json([summary_as_json(record) for record in page.records])
    elif page.records:
        console().print(listing(page.records, page.now))
    else:
        typer.echo("no sagas match.", err=True)
    if page.more:
        typer.echo(
            f"there are more; the next page: {next_page(wanted, page.records[-1].id, as_json=as_json)}", err=True
        )


@app.command()
def show(saga_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show a saga, its next step and its timeline."""
    shown = look_up(saga_id, api.settings())
    if as_json:
        _print_json(shown_as_json(shown))
    else:
        console().print(showing(shown))


@app.command()
def stats(
    whole: Annotated[
        bool, typer.Option("--all", help="Count all finished sagas too, which takes long with millions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count unfinished sagas, and what the last hour brought.

    DEAD, QUEUED and PARKED are among the statuses before them. What ends in /H happened within the last hour, and
    RECOVERED sagas ended in it after more than one worker had taken them.
    """
    statistics = _operations().statistics(whole=whole)
    if as_json:
        _print_json(counts_as_json(statistics))
    else:
        console().print(counting(statistics))


@app.command()
def workers(as_json: AsJson = False) -> None:
    """Show who holds which sagas.

    What waits in the queue, and what is parked, is told below. HEARD is when an owner last wrote anything, QUIETEST
    when it last wrote to the saga that it has left alone for the longest.
    """
    holdings = _operations().holdings()
    if as_json:
        _print_json(holdings_as_json(holdings))
    else:
        console().print(holding(holdings))


@app.command()
def scan(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what a scan would do with each unfinished saga; needs no broker.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=0, help="In a dry run: how many sagas to show of each kind.  [default: 10]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what is due to workers, as beat does every few seconds."""
    settings = api.settings()
    if limit is not None and not dry_run:
        raise typer.BadParameter("--limit is how many a --dry-run shows; a scan is limited by SAGAS_SCAN_LIMIT.")
    if not dry_run:
        done = api.new_engine().scan()
        if as_json:
            _print_json(report_as_json(done))
        else:
            console().print(report(done))
        return
    run = Operations(SqlAlchemySagaStorage(settings.database_url)).dry_run(
        limit=settings.scan_limit,
        max_recovery_attempts=settings.max_recovery_attempts,
        shown=_SHOWN if limit is None else limit,
    )
    if as_json:
        _print_json(foresight_as_json(run))
    else:
        console().print(foresight(run))


@app.command()
def prune(
    older_than: Annotated[
        float, typer.Option(parser=seconds_of, metavar="AGE", help="How long ago they ended at least; as 12h, 90d.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete finished sagas, and their logs, that ended long ago."""
    storage = SqlAlchemySagaStorage(api.settings().database_url)
    found = Operations(storage).prunable(older_than)
    what = f"{found} saga{'' if found == 1 else 's'} that ended more than {duration(older_than)} ago"
    if dry_run:
        if as_json:
            _print_json({"found": found, "deleted": 0, "whole": False})
        else:
            typer.echo(f"{what}; a dry run deletes none.")
        return
    confirm(f"delete {what}, for good?", yes or not found)
    prune_sagas(storage, older_than_seconds=older_than, found=found, as_json=as_json)


@app.command()
def graph(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_name, help="The saga's name.")],
    mermaid: Annotated[bool, typer.Option("--mermaid/--text", help="As a Mermaid flowchart, or as text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the steps of a saga in both directions.

    They are those of the code in SAGAS_MODULES; no database is needed.
    """
    if mermaid and as_json:
        raise typer.BadParameter("--mermaid and --json are two forms of the same: choose one.")
    saga = known_sagas(api.settings()).get(name)
    if as_json:
        _print_json(graph_as_json(saga))
    elif mermaid:
        typer.echo(mermaid_graph(saga))
    else:
        console().print(text_graph(saga))


def _operations() -> Operations:
    return Operations(SqlAlchemySagaStorage(api.settings().database_url))


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))
