"""Why a saga does not run at this moment, in one sentence, and what would make it run; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sagas.duration import duration, utc, when
from sagas.inspection.models import LastScan, SagaDetails
from sagas.inspection.nodes import NodeState, NodeView
from sagas.settings import Settings
from sagas.storage.records import SagaRecord, SagaState

#: A worker whose code does not fit a saga writes so in front of its reason.
_DECLINED = "declined: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a saga does not run, or that it does.

    Attributes:
        why: a sentence.
        cure: what would make it run; empty if nothing can or need be done.
        wrong: whether somebody should look at it.
    """

    why: str
    cure: str = ""
    wrong: bool = False


def explain(
    details: SagaDetails, nodes: Sequence[NodeView], settings: Settings, last_scan: LastScan | None
) -> Explanation:
    """Return why a saga does not run at this moment.

    Args:
        details: the saga, and what operators have asked for it.
        nodes: its nodes as they stand; empty if its graph is not known.
        settings: how many attempts it has, and how often scans run.
        last_scan: when the last scan ran.
    """
    record, now, pause = details.record, details.now, details.pause
    owner, until = record.lease_owner or "", when(record.available_at, now)
    late = _scans_are_late(details, settings, last_scan)
    match record.state:
        case SagaState.FINISHED:
            return Explanation(why=f"It has ended as {record.status}: nothing more happens to it.")
        case SagaState.DEAD:
            return Explanation(
                why="It is dead: it failed as often as allowed without any progress, so no worker tries it again.",
                cure="See to the cause of its last error, then revive it.",
                wrong=True,
            )
        case SagaState.PAUSED if pause is not None:
            return Explanation(
                why=f"All sagas named {record.name} are paused, by {pause.actor} since {utc(pause.since)}: "
                f"{pause.reason}",
                cure=f"Resume {record.name}, or retry this saga alone.",
            )
        case SagaState.PAUSED:
            return Explanation(
                why="It was paused with its name, which has been resumed since.",
                cure=f"The next scan makes it ready{late or ''}; or retry it.",
                wrong=late is not None,
            )
        case SagaState.QUEUED:
            since = "" if record.updated_at is None else f" for {duration((now - record.updated_at).total_seconds())}"
            return Explanation(
                why=f"It has been in the queue{since}: no worker has been free for it yet.",
                cure="A free worker takes it. If none does, start workers, or see on the workers' page what keeps them "
                "busy. A scan sends the message again should it be lost.",
                wrong=record.due(now),
            )
        case SagaState.RUNNING if record.due(now):
            return Explanation(
                why=f"Its worker {owner} was killed, froze or was cut off: the lease ran out at {until}.",
                cure=f"The next scan sends it to another worker{late or ''}.",
                wrong=late is not None,
            )
        case SagaState.RUNNING:
            running = ", ".join(
                node.node.name for node in nodes if node.state in (NodeState.RUNNING, NodeState.UNDOING)
            )
            asked = details.yield_requested_by
            held = "" if asked is None else f" {asked} has asked for it, so the worker gives it back after this step."
            return Explanation(why=f"It is running{f' {running}' if running else ''} on {owner}.{held}")
        case SagaState.WAITING:
            return _waiting(record, nodes, until)
        case SagaState.READY:
            return _ready(details, nodes, until, late)


def _waiting(record: SagaRecord, nodes: Sequence[NodeView], until: str) -> Explanation:
    signals = [view for view in nodes if view.state is NodeState.WAITING and view.node.kind == "wait"]
    sleeps = [view for view in nodes if view.state is NodeState.WAITING and view.node.kind == "sleep"]
    end = "" if record.available_at is None else f" It stops waiting at {until}."
    if signals:
        names = " or ".join(view.node.name for view in signals)
        return Explanation(
            why=f"It waits for the signal {names}, which has not come.{end}", cure=f"Send it the signal {names}."
        )
    if sleeps:
        return Explanation(why=f"It sleeps in {', '.join(view.node.name for view in sleeps)} until {until}.")
    return Explanation(why=f"It waits until {until}.")


def _ready(details: SagaDetails, nodes: Sequence[NodeView], until: str, late: str | None) -> Explanation:
    record, now = details.record, details.now
    error = record.last_error or ""
    if details.pause is not None:
        pause = details.pause
        return Explanation(
            why=f"All sagas named {record.name} are paused, by {pause.actor} since {utc(pause.since)}: {pause.reason}",
            cure=f"Resume {record.name}, or retry this saga alone.",
        )
    if error.startswith(_DECLINED):
        return Explanation(
            why=f"No worker could take it, as their code does not fit: {error.removeprefix(_DECLINED)}",
            cure="Deploy the code that it was started with, or mend the difference; workers try again by themselves.",
            wrong=True,
        )
    if record.due(now):
        return Explanation(
            why=f"It has been due since {until}, and no scan has sent it to a worker yet.",
            cure=f"The next scan sends it{late or ''}.",
            wrong=late is not None,
        )
    alone = " It then runs alone, as its worker crashed while it held other sagas too." if record.suspect else ""
    retried = ", ".join(view.node.name for view in nodes if view.state in (NodeState.FAILED, NodeState.UNDO_FAILED))
    failed = f"Attempt {record.recovery_attempts} at it failed" if record.recovery_attempts else f"{retried} failed"
    if record.version == 0:
        return Explanation(why=f"It was started to begin at {until}.{alone}")
    return Explanation(
        why=f"{failed}, so it backs off until {until}.{alone}",
        cure="It goes on by itself then; retry it to have it go on now.",
        wrong=record.recovery_attempts > 0,
    )


def _scans_are_late(details: SagaDetails, settings: Settings, last_scan: LastScan | None) -> str | None:
    """Return what to add to a promise that depends on scans; None if scans run."""
    if last_scan is None:
        return ", but none has ever run: start beat and a worker"
    late_after = timedelta(seconds=max(60.0, 5 * settings.scan_interval_seconds))
    if details.now - last_scan.at > late_after:
        return f", but the last one was at {when(last_scan.at, details.now)}: see to beat and the workers"
    return None
