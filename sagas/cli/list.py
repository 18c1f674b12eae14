"""`sagas list`: a line for each saga, page by page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.text import Text

from sagas.cli.database import inspector
from sagas.cli.durations import parse_age, parse_time
from sagas.cli.ids import saga_id_of, shown_ids
from sagas.cli.loading import check_name, complete_name
from sagas.cli.render import NOTHING, Cell, out, table, text
from sagas.cli.serialize import AsJson, print_json, summary_of
from sagas.cli.start import parse_tag
from sagas.duration import duration, utc
from sagas.inspection.models import PageFilter
from sagas.inspection.standing import in_brief
from sagas.progress import SagaStatus
from sagas.storage.records import SagaRecord, SagaState

#: More than anybody reads, and less than memory holds.
MOST: Final = 1_000_000
_HEADERS: Final = ("ID", "NAME", "STATUS", "ATTEMPTS", "AGE", "UPDATED (UTC)", "HELD BY / WAITS UNTIL")
_STATUS_STYLES: Final = {
    SagaStatus.COMPLETED: "green",
    SagaStatus.COMPENSATED: "yellow",
    SagaStatus.COMPENSATING: "yellow",
    SagaStatus.FAILED: "red",
}


def list_sagas(
    *,
    status: Annotated[
        list[SagaStatus] | None,
        typer.Option(metavar="STATUS", case_sensitive=False, help="Only these, as RUNNING; may be repeated."),
    ] = None,
    state: Annotated[
        list[SagaState] | None,
        typer.Option(metavar="STATE", case_sensitive=False, help="Only these, as waiting; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(autocompletion=complete_name, help="Only sagas of this name.")] = None,
    key: Annotated[str | None, typer.Option(help="Only those with this idempotency key.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="Only those with this tag; may be repeated."),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that recovery gave up.")] = False,
    older_than: Annotated[
        float | None, typer.Option(parser=parse_age, metavar="AGE", help="Only those started before; as 90s, 10m, 3d.")
    ] = None,
    newer_than: Annotated[
        float | None, typer.Option(parser=parse_age, metavar="AGE", help="Only those started since; as 2h.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_time, metavar="TIME", help="Only those started at this time or later; as 2026-11-26."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Only those started before this time.")
    ] = None,
    leased_by: Annotated[
        str | None, typer.Option(metavar="OWNER", help="Only those that it holds: a node, or a whole owner.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this one, the last of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List sagas, the newest first."""
    asked = inspector()
    wanted = PageFilter(
        statuses=status or (),
        states=[*(state or ()), *[SagaState.DEAD] * dead],
        name=name,
        key=key,
        tags=dict(map(parse_tag, tag or ())),
        created_after=since,
        created_before=until,
        leased_by=leased_by,
        older_than_seconds=older_than,
        newer_than_seconds=newer_than,
        after=None if after is None else saga_id_of(after, asked),
        limit=limit,
    )
    page = asked.page(wanted)
    ids = {} if as_json else shown_ids((record.id for record in page.records), asked)
    if as_json:
        print_json([summary_of(record) for record in page.records])
    elif page.records:
        headers = [*_HEADERS, *_own_headers(page.records)]
        rows = [[_cell(header, record, ids, page.now) for header in headers] for record in page.records]
        out(table(headers, rows, spare=("UPDATED (UTC)", "ATTEMPTS")))
    else:
        typer.echo("no sagas match.", err=True)
    if name is not None and not page.records:
        check_name(name, asked.names)
    if page.more:
        last = page.records[-1].id
        command = _next_page(wanted, ids.get(last, str(last)), as_json)
        typer.echo(f"there are more; the next page: {command}", err=True)


def _own_headers(records: Sequence[SagaRecord]) -> list[str]:
    """Return the columns that only sagas with tags or a deadline need."""
    tags, deadlines = any(record.tags for record in records), any(record.deadline_at for record in records)
    return [*["DEADLINE (UTC)"] * deadlines, *["TAGS"] * tags]


def _cell(header: str, record: SagaRecord, ids: Mapping[UUID, str], now: datetime) -> Cell:
    match header:
        case "ID":
            return ids[record.id]
        case "NAME":
            return record.name
        case "STATUS":
            return status_text(record.status)
        case "ATTEMPTS":
            return record.recovery_attempts
        case "AGE":
            return duration((now - record.created_at).total_seconds())
        case "UPDATED (UTC)":
            return utc(record.updated_at)
        case "DEADLINE (UTC)":
            return utc(record.deadline_at)
        case "TAGS":
            return tags_text(record)
        case _:
            return in_brief(record, now)


def tags_text(record: SagaRecord) -> str:
    """Return the tags of a saga as an operator types them."""
    return " ".join(f"{tag}={value}" for tag, value in sorted((record.tags or {}).items())) or NOTHING


def status_text(status: SagaStatus) -> Text:
    """Return the status in its colour."""
    return text(status, _STATUS_STYLES.get(status, ""))


def _next_page(wanted: PageFilter, last: str, as_json: bool) -> str:
    """Return the command that lists what follows this saga, the last of a page."""
    words = ["sagas", "list"]
    for status in wanted.statuses:
        words += ["--status", str(status)]
    for state in wanted.states:
        words += ["--dead"] if state is SagaState.DEAD else ["--state", str(state)]
    for tag, text_of_tag in (wanted.tags or {}).items():
        words += ["--tag", f"{tag}={text_of_tag}"]
    for option, value in (
        ("--name", wanted.name),
        ("--key", wanted.key),
        ("--since", wanted.created_after and wanted.created_after.isoformat()),
        ("--until", wanted.created_before and wanted.created_before.isoformat()),
        ("--leased-by", wanted.leased_by),
        ("--older-than", wanted.older_than_seconds and f"{wanted.older_than_seconds:g}s"),
        ("--newer-than", wanted.newer_than_seconds and f"{wanted.newer_than_seconds:g}s"),
        ("--limit", str(wanted.limit)),
        ("--after", last),
    ):
        words += [option, value] if value else []
    return shlex.join([*words, *["--json"] * as_json])
