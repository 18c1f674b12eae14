"""The commands that change no saga, and `prune`: their options and nothing else; each works in the module it calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.text import Text

from sagas import api
from sagas.cli.ages import seconds_of
from sagas.cli.asking import Yes, confirm
from sagas.cli.code import complete_name, known_sagas
from sagas.cli.counting import counting, counts_as_json
from sagas.cli.graph import graph_as_json, mermaid_graph, text_graph
from sagas.cli.holding import holding, holdings_as_json
from sagas.cli.ids import WHICH, saga_id_of, saga_ids_of, short_ids
from sagas.cli.listing import listing, next_page
from sagas.cli.names import warn_if_unknown
from sagas.cli.plain import summary_as_json
from sagas.cli.pruning import prune_sagas
from sagas.cli.scanning import foresight, foresight_as_json, report, report_as_json
from sagas.cli.showing import look_up, showing, shown_as_json
from sagas.cli.words import console, terminal_width
from sagas.duration import duration
from sagas.progress import SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.operations import Operations
from sagas.storage.operator_answers import Listing

app = typer.Typer()

#: Sagas of each kind in a dry run.
_SHOWN: Final = 10
#: More than anybody reads, and less than memory holds.
_MOST: Final = 1_000_000

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
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sagas, the newest first."""
    operations = _operations()
    wanted = Listing(
        statuses=status or (),
        name=name,
        dead=dead,
        leased_by=leased_by,
        older_than_seconds=older_than,
        newer_than_seconds=newer_than,
        after=None if after is None else saga_id_of(after, operations),
        limit=limit,
    )
    page = operations.list_sagas(wanted)
    ids = _shown((record.id for record in page.records), operations, whole=as_json)
    if as_json:
        _print_json([summary_as_json(record) for record in page.records])
    elif page.records:
        console().print(listing(page.records, page.now, ids, terminal_width()))
    else:
        typer.echo("no sagas match.", err=True)
    if name is not None and not page.records and not warn_if_unknown(name, operations):
        raise typer.Exit(1)
    if page.more:
        command = next_page(wanted, ids[page.records[-1].id], as_json=as_json)
        typer.echo(f"there are more; the next page: {command}", err=True)


@app.command()
def show(
    saga_ids: Annotated[list[str], typer.Argument(metavar="ID...", help=WHICH)],
    as_json: AsJson = False,
) -> None:
    """Show a saga, its next step and its timeline.

    With --json, several sagas are a list.
    """
    settings = api.settings()
    operations = _operations()
    ids, well = saga_ids_of(saga_ids, operations)
    every = [look_up(saga_id, settings, operations) for saga_id in ids]
    if as_json and every:
        found = [shown_as_json(shown) for shown in every]
        _print_json(found if len(saga_ids) > 1 else found[0])
    elif every:
        console().print(Text("\n\n\n").join(showing(shown, terminal_width()) for shown in every))
    if not well:
        raise typer.Exit(1)


@app.command()
def stats(
    whole: Annotated[
        bool, typer.Option("--all", help="Count all finished sagas too, which takes long with millions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count unfinished sagas, and what the last hour brought.

    DEAD, QUEUED and PARKED are among the statuses before them. RECOVERED sagas ended within the last hour after more
    than one worker had taken them.
    """
    operations = _operations()
    statistics = operations.statistics(whole=whole)
    if as_json:
        _print_json(counts_as_json(statistics))
    else:
        oldest = statistics.oldest_recoverable
        ids = _shown([oldest.id] if oldest else [], operations)
        console().print(counting(statistics, ids, terminal_width()))


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
        console().print(holding(holdings, terminal_width()))


@app.command()
def scan(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what a scan would do with each unfinished saga; needs no broker.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=_MOST, help="In a dry run: how many to show of each kind.  [default: 10]"),
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
    operations = _operations()
    run = operations.dry_run(
        limit=settings.scan_limit,
        max_recovery_attempts=settings.max_recovery_attempts,
        shown=_SHOWN if limit is None else limit,
    )
    if as_json:
        _print_json(foresight_as_json(run))
    else:
        ids = _shown((judged.id for verdicts in run.verdicts for judged in verdicts.first), operations)
        console().print(foresight(run, ids, terminal_width()))


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
    storage = PostgresSagaStorage(api.settings().database_url)
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
        console().print(text_graph(saga, terminal_width()))


def _operations() -> Operations:
    return Operations(PostgresSagaStorage(api.settings().database_url))


def _shown(ids: Iterable[UUID], operations: Operations, *, whole: bool = False) -> Mapping[UUID, str]:
    """Return how ids are shown: short on a terminal, whole where a program may read them."""
    if whole or terminal_width() is None:
        return {saga_id: str(saga_id) for saga_id in ids}
    return short_ids(ids, operations)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))
