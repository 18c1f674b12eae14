"""`sagas scan`: do one scan, or, as a dry run, tell what it would do with each unfinished saga and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.text import Text

from sagas import api
from sagas.cli.database import inspector
from sagas.cli.errors import fail
from sagas.cli.ids import shown_ids
from sagas.cli.list import MOST
from sagas.cli.render import fitted, out, table, text
from sagas.cli.serialize import AsJson, print_json
from sagas.duration import when
from sagas.inspection.models import DryRun, Judged, ScanVerdict, Verdicts
from sagas.storage.records import SagaState
from sagas.text import one_line

#: Sagas of each kind in a dry run.
_SHOWN: Final = 10
#: What each verdict means, for a reader.
_MEANINGS: Final = {
    ScanVerdict.DISPATCHED: "sent to a worker, in this order",
    ScanVerdict.PAUSES: "due, and paused with its name",
    ScanVerdict.DIES: "due, and dead from then on: failed, or crashed the worker, once too often",
    ScanVerdict.BEYOND_LIMIT: "due, and left to a later scan (SAGAS_SCAN_LIMIT)",
    ScanVerdict.QUEUED: "a message waits for a worker",
    ScanVerdict.OVERDUE: "in the queue; a second message is sent, as the first one is or may be lost",
    ScanVerdict.HELD: "a worker has it",
    ScanVerdict.BACKING_OFF: "after a failed attempt",
    ScanVerdict.SLEEPING: "until a retry or its start, or freed a moment ago",
    ScanVerdict.WAITING: "for a signal or a time",
    ScanVerdict.DECLINED: "by workers whose code does not fit",
    ScanVerdict.PAUSED: "paused with its name",
    ScanVerdict.DEAD: "until an operator acts",
}


def scan(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what a scan would do with each unfinished saga; needs no broker.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, help="In a dry run: how many to show of each kind.  [default: 10]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what is due to workers, as beat does every few seconds."""
    settings = api.settings()
    if limit is not None and not dry_run:
        raise typer.BadParameter("--limit is how many a --dry-run shows; a scan is limited by SAGAS_SCAN_LIMIT.")
    if not dry_run:
        _scan(as_json)
        return
    asked = inspector()
    run = asked.dry_run(
        limit=settings.scan_limit,
        max_recovery_attempts=settings.max_recovery_attempts,
        shown=_SHOWN if limit is None else limit,
    )
    if as_json:
        print_json(_as_json(run))
    elif run.verdicts:
        ids = shown_ids((judged.id for verdicts in run.verdicts for judged in verdicts.first), asked)
        sections = (Text("\n").join(_section(verdicts, run.now, ids)) for verdicts in run.verdicts)
        out(Text("\n\n").join(sections))
    else:
        out("no saga is unfinished: a scan would find nothing to do")


def _scan(as_json: bool) -> None:
    done = api.new_engine().scan()
    if done.unsent or done.schedules_failed:
        fail()
    if as_json:
        print_json(done)
        return
    unsent = f", not sent as the broker failed {done.unsent}" if done.unsent else ""
    scheduled = f", started by schedules {len(done.scheduled)}" if done.scheduled else ""
    also = scheduled + unsent
    out(
        f"dispatched {len(done.dispatched)}, died {len(done.died)}, messages missing {done.missing}{also}.",
        *(f"    {saga_id}  dispatched" for saga_id in done.dispatched),
        *(f"    {saga_id}  died" for saga_id in done.died),
        *(f"    schedule {name}  failed; the log above says why" for name in done.schedules_failed),
    )


def _as_json(run: DryRun) -> dict[str, Any]:
    """Return every verdict, also those that no saga has."""
    found = {verdicts.verdict: verdicts for verdicts in run.verdicts}
    every = ((verdict, found.get(verdict, Verdicts(verdict=verdict))) for verdict in ScanVerdict)
    return {
        "at": run.now,
        "verdicts": {
            verdict.replace(" ", "_"): {"sagas": verdicts.sagas, "first": verdicts.first} for verdict, verdicts in every
        },
    }


def _section(verdicts: Verdicts, now: datetime, ids: Mapping[UUID, str]) -> Iterator[Text]:
    title = text(f"{verdicts.verdict}: {verdicts.sagas}", "bold")
    yield fitted(title.append(f"  ({_MEANINGS[verdicts.verdict]})", style="not bold"))
    if verdicts.first:
        rows = [(f"  {ids[each.id]}", each.name, each.status, one_line(_reason(each, now))) for each in verdicts.first]
        yield table(("ID", "NAME", "STATUS", "REASON"), rows, show_header=False)
    if (others := verdicts.sagas - len(verdicts.first)) > 0:
        yield text(f"  and {others} more")


def _reason(judged: Judged, now: datetime) -> str:
    until = when(judged.available_at, now)
    due = judged.available_at is not None and judged.available_at <= now
    match judged.state:
        case SagaState.DEAD:
            return judged.last_error or ""
        case SagaState.PAUSED:
            return ""
        case SagaState.QUEUED:
            return f"message in question {'since' if due else 'from'} {until}"
        case SagaState.RUNNING:
            return (
                f"lease of {judged.lease_owner} ran out at {until}" if due else f"by {judged.lease_owner} until {until}"
            )
        case _:
            if judged.available_at is None:
                return "without a limit"
            return f"due since {until}" if due else f"until {until}"
