"""What `sagas scan` prints: what a scan did, or, as a dry run, what it would do with each unfinished saga and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from rich.text import Text

from sagas.cli.plain import iso
from sagas.cli.words import WHOLE, columns, fitted, one_line, when
from sagas.recovery import ScanReport
from sagas.storage.operator_answers import DryRun, Judged, ScanVerdict, Verdicts
from sagas.storage.XXX import PAUSED, QUEUE
from sagas.text import printable

#: What each verdict means, for a reader.
MEANINGS: Final = {
    ScanVerdict.DISPATCHED: "sent to a worker, in this order",
    ScanVerdict.PARKS: "due, and parked as the name is paused",
    ScanVerdict.DIES: "due, and dead from then on: failed, or crashed the worker, once too often",
    ScanVerdict.BEYOND_LIMIT: "due, and left to a later scan (SAGAS_SCAN_LIMIT)",
    ScanVerdict.QUEUED: "a message waits for a worker",
    ScanVerdict.OVERDUE: "in the queue for long; freed if the message is gone from the broker",
    ScanVerdict.HELD: "a worker has it",
    ScanVerdict.BACKING_OFF: "after a failed attempt",
    ScanVerdict.SLEEPING: "until a retry, or freed a moment ago",
    ScanVerdict.DECLINED: "by workers whose code does not fit",
    ScanVerdict.PAUSED: "parked, as the name is paused",
    ScanVerdict.DEAD: "until an operator acts",
}


def foresight(run: DryRun, ids: Mapping[UUID, str], width: int | None = None) -> Text:
    """Return what a scan would do now, verdict by verdict; `ids` are as they are to be shown."""
    if not run.verdicts:
        return Text("no saga is unfinished: a scan would find nothing to do")
    return Text("\n\n").join(Text("\n").join(_section(verdicts, run.now, ids, width)) for verdicts in run.verdicts)


def foresight_as_json(run: DryRun) -> dict[str, Any]:
    """Return what a scan would do now as plain data; every verdict is there, with the first sagas of each."""
    found = {verdicts.verdict: verdicts for verdicts in run.verdicts}
    return {
        "at": iso(run.now),
        "verdicts": {
            verdict.value.replace(" ", "_"): {
                "sagas": found[verdict].sagas if verdict in found else 0,
                "first": [_judged_as_json(judged) for judged in found[verdict].first] if verdict in found else [],
            }
            for verdict in ScanVerdict
        },
    }


def report(done: ScanReport) -> Text:
    """Return what a scan did."""
    lines = [f"dispatched {len(done.dispatched)}, died {len(done.died)}, messages missing {done.missing}."]
    if done.unsent:
        lines[0] = f"{lines[0][:-1]}, not sent as the broker failed {done.unsent}."
    lines += [f"    {saga_id}  dispatched" for saga_id in done.dispatched]
    lines += [f"    {saga_id}  died" for saga_id in done.died]
    return Text("\n".join(lines))


def report_as_json(done: ScanReport) -> dict[str, Any]:
    """Return what a scan did as plain data, with the ids of what it dispatched."""
    return {**done.as_json(), "dispatched": [str(saga_id) for saga_id in done.dispatched]}


def _judged_as_json(judged: Judged) -> dict[str, Any]:
    return {
        "id": str(judged.id),
        "name": judged.name,
        "status": str(judged.status),
        "lease_owner": judged.lease_owner,
        "available_at": iso(judged.available_at),
        "last_error": judged.last_error,
    }


def _section(verdicts: Verdicts, now: datetime, ids: Mapping[UUID, str], width: int | None) -> Iterator[Text]:
    title = Text(f"{verdicts.verdict}: {verdicts.sagas}", style="bold")
    yield fitted(title.append(f"  ({MEANINGS[verdicts.verdict]})", style="not bold"), width)
    if verdicts.first:
        rows = [
            [
                Text(f"  {ids[judged.id]}"),
                Text(printable(judged.name)),
                Text(str(judged.status)),
                Text(one_line(_because(judged, now))),
            ]
            for judged in verdicts.first
        ]
        # The section's title says what the columns are.
        yield from columns((WHOLE, "", "", ""), rows, width).split("\n")[1:]
    if (others := verdicts.sagas - len(verdicts.first)) > 0:
        yield Text(f"  and {others} more")


def _because(judged: Judged, now: datetime) -> str:
    if judged.available_at is None:
        return "" if judged.lease_owner == PAUSED else judged.last_error or ""
    until = when(judged.available_at, now)
    later = judged.available_at > now
    if judged.lease_owner is None:
        return f"until {until}" if later else f"due since {until}"
    if judged.lease_owner == QUEUE:
        return f"marked until {until}"
    return f"by {judged.lease_owner} until {until}" if later else f"lease of {judged.lease_owner} ran out at {until}"
