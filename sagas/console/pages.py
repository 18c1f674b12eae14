"""The pages that only show something. Each asks the inspector one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from starlette.responses import Response

from sagas.console.explanation import Explanation, explain
from sagas.console.filters import ListQuery, read_query
from sagas.console.secrecy import Secrets
from sagas.console.visit import Visit
from sagas.doctor.schedule_rows import schedule_rows
from sagas.errors import LogDoesNotFit
from sagas.graph import Graph
from sagas.inspection.inspector import MOST_COUNTED, MOST_SEARCHED
from sagas.inspection.models import Overview, Portrait, Tally
from sagas.inspection.nodes import NodeView, node_views
from sagas.inspection.standing import in_brief
from sagas.inspection.timeline import Event, timeline
from sagas.inspection.undoing import UndoPreview, preview_undo
from sagas.progress import SagaStatus
from sagas.recovery import parse_saga_id
from sagas.storage.records import SagaRecord, SagaState

#: A timeline shows no more rows than this, the newest ones.
MOST_EVENTS: Final = 500
#: Sentences after an action, by the word in the address.
DONE: Final = {
    "retry": "It is due now: the next scan sends it to a worker.",
    "compensate": "It unwinds: the next scan sends it to a worker, which undoes what was done.",
    "skip": "The step counts as done: the next scan sends the saga to a worker.",
    "resolve": "It has ended as you said.",
    "cancel": "The request to cancel is sent.",
    "signal": "The signal is sent.",
    "signal-again": "This signal was sent before, so it counts once.",
    "pause": "The name is paused.",
    "resume": "The name is resumed.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One saga as its pages show it.

    Attributes:
        portrait: what the database knows of it.
        graph: the graph that it was started with; None if it is not known.
        nodes: its nodes as they stand.
        unfit: why its nodes cannot be shown.
        secrets: what is hidden.
        undo: what an abort would undo; None if that is not known.
    """

    portrait: Portrait
    graph: Graph | None
    nodes: tuple[NodeView, ...]
    unfit: str | None
    secrets: Secrets
    undo: UndoPreview | None

    @property
    def record(self) -> SagaRecord:
        """The saga with its log."""
        return self.portrait.details.record

    @property
    def layers(self) -> list[list[NodeView]]:
        """The nodes by layer."""
        layers: dict[int, list[NodeView]] = {}
        for view in self.nodes:
            layers.setdefault(view.layer, []).append(view)
        return [layers[number] for number in sorted(layers)]

    @property
    def waits(self) -> list[NodeView]:
        """The waits that a signal can be sent to: those that it may still come to."""
        if self.undo is None or self.undo.aborted:
            return []
        done = ("done", "skipped", "undone")
        return [view for view in self.nodes if view.node.kind == "wait" and view.state not in done]


def subject(visit: Visit, text: str) -> Subject:
    """Return the saga with this id.

    Raises:
        InvalidSagaId: the text is no id.
        SagaNotFound: no saga has it.
    """
    portrait = visit.desk.inspector.portrait(parse_saga_id(text))
    graphs = [graph for text in portrait.versions if (graph := _parsed(text)) is not None]
    graph = _parsed(portrait.graph)
    secret = {field for each in graphs for field in each.secret_fields}
    secrets = Secrets(secret, [portrait.details.record.context, *(sent.payload for sent in portrait.sent)])
    portrait = secrets.censored_portrait(portrait)
    record, now = portrait.details.record, portrait.details.now
    nodes: tuple[NodeView, ...] = ()
    undo, unfit = None, None
    if graph is None:
        unfit = "Its steps are not stored: version 0.1.0 started it, and no worker has run it since."
    else:
        try:
            nodes = tuple(node_views(graph, record, now))
            undo = None if record.status.finished else preview_undo(graph, record)
        except LogDoesNotFit as error:
            unfit = f"Its steps cannot be shown: {error}"
    return Subject(portrait=portrait, graph=graph, nodes=nodes, unfit=unfit, secrets=secrets, undo=undo)


def overview(visit: Visit) -> Response:
    """Show how all sagas stand."""
    found = visit.desk.inspector.overview()
    rows = _by_name(found)
    zero = Tally(sagas=0)
    totals: dict[str, Tally] = {}
    for row in rows.values():
        for word, tally in row.items():
            totals[word] = totals.get(word, zero) + tally
    ended = totals.get(SagaStatus.COMPLETED, zero) + totals.get(SagaStatus.COMPENSATED, zero)
    return visit.show(
        "overview.html",
        found=found,
        rows=rows,
        states=list(SagaState)[:-1],
        health=_health(visit, found),
        totals=totals,
        ended=ended if ended.sagas else None,
        per_minute=f"{ended.sagas / 60:,.1f}",
        estimated=any(tally.estimated for tally in totals.values()),
        counted=MOST_COUNTED,
    )


def _by_name(found: Overview) -> dict[str, dict[str, Tally]]:
    """Return for each name how many of its sagas stand how, and what the last hour brought."""
    names: dict[str, dict[str, Tally]] = {}
    zero = Tally(sagas=0)
    for standing in found.unfinished:
        row = names.setdefault(standing.name, {})
        row[standing.state] = row.get(standing.state, zero) + standing.tally
    for ended in found.ended:
        row = names.setdefault(ended.name, {})
        row[ended.status] = row.get(ended.status, zero) + ended.tally
        row["recovered"] = row.get("recovered", zero) + ended.recovered
    return dict(sorted(names.items()))


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of health: what it is about, a sentence, and whether it is good, a warning or bad."""

    title: str
    text: str
    level: str = "good"


def _health(visit: Visit, found: Overview) -> list[Sign]:
    settings, now = visit.desk.engine.settings, found.now
    late = max(60.0, 5 * settings.scan_interval_seconds)
    signs = []
    scan = found.last_scan
    if scan is None:
        signs.append(
            Sign("Scans", "None has ever run. Start beat and a worker: nothing is recovered without them.", "bad")
        )
    else:
        age = (now - scan.at).total_seconds()
        text = f"The last one ran {age:.0f} s ago on {scan.host}."
        signs.append(
            Sign(
                "Scans",
                text if age <= late else f"{text} See to beat and the workers.",
                "good" if age <= late else "bad",
            )
        )
    queued = [standing for standing in found.unfinished if standing.state is SagaState.QUEUED]
    waiting = sum(standing.tally.sagas for standing in queued)
    delivered = found.delivered_at
    quiet = delivered is None or (now - delivered).total_seconds() > late
    if waiting and quiet:
        when = "never" if delivered is None else f"{(now - delivered).total_seconds():.0f} s ago"
        signs.append(
            Sign("Workers", f"{waiting:,} sagas are queued, and the last message reached a worker {when}.", "bad")
        )
    else:
        running = sum(s.tally.sagas for s in found.unfinished if s.state is SagaState.RUNNING)
        signs.append(Sign("Workers", f"They run {running:,} sagas, and {waiting:,} are queued."))
    oldest = min(
        (o for o in (found.oldest_pending, found.oldest_recoverable) if o), key=lambda o: o.due_since, default=None
    )
    if oldest is not None:
        age = (now - oldest.due_since).total_seconds()
        signs.append(
            Sign("Oldest due", f"A {oldest.name} has been due for {age:.0f} s.", "bad" if age > late else "good")
        )
    else:
        signs.append(Sign("Oldest due", "Nothing is due that is not queued."))
    return signs


def sagas(visit: Visit) -> Response:
    """Show a list of sagas."""
    query = read_query(visit.request.query_params)
    return _list(visit, query, "list.html")


def dead(visit: Visit) -> Response:
    """Show the dead sagas: the dead letters."""
    query = read_query(visit.request.query_params)
    wanted = replace(query.wanted, states=(SagaState.DEAD,), statuses=())
    texts = {name: texts for name, texts in query.texts.items() if name != "status"} | {"state": [SagaState.DEAD.value]}
    return _list(visit, replace(query, wanted=wanted, texts=texts), "dead.html")


def _list(visit: Visit, query: ListQuery, template: str) -> Response:
    shows_errors = template == "dead.html"
    page = visit.desk.inspector.page(query.wanted, within=MOST_SEARCHED, secrets=shows_errors)
    following = page.records[-1].id if page.more else page.searched_to
    errors = {
        record.id: Secrets(page.secret_fields.get(record.name, ()), [record.context]).censored(record.last_error)
        for record in page.records
        if shows_errors
    }
    return visit.show(
        template,
        query=query,
        page=page,
        errors=errors,
        searched=MOST_SEARCHED,
        brief={record.id: in_brief(record, page.now) for record in page.records},
        following=following,
        statuses=list(SagaStatus),
        states=list(SagaState),
    )


def find(visit: Visit) -> Response:
    """Go to the saga with an id, or to the list of those with an idempotency key."""
    text = visit.request.query_params.get("q", "").strip()
    try:
        saga_id = UUID(text)
    except ValueError:
        return visit.go("/sagas", key=text or None)
    return visit.go(f"/sagas/{saga_id}")


def saga(visit: Visit) -> Response:
    """Show one saga."""
    shown = subject(visit, visit.request.path_params["id"])
    details = shown.portrait.details
    explanation: Explanation = explain(details, shown.nodes, visit.desk.engine.settings, shown.portrait.last_scan)
    events: list[Event] = timeline(details.record, details.now)
    return visit.show(
        "saga.html",
        subject=shown,
        record=details.record,
        now=details.now,
        pause=details.pause,
        explanation=explanation,
        events=events[-MOST_EVENTS:],
        left_out=max(0, len(events) - MOST_EVENTS),
        actions=actions_for(shown) if visit.may_act else [],
        done=DONE.get(visit.request.query_params.get("done", "")),
    )


def actions_for(shown: Subject) -> list[tuple[str, str]]:
    """Return the actions that are possible now, as the ends of their paths and what their links say."""
    record, undo = shown.record, shown.undo
    if record.status.finished:
        return []
    actions = []
    if record.state is SagaState.DEAD:
        actions.append(("retry", "Revive"))
    elif record.state is not SagaState.WAITING:
        actions.append(("retry", "Retry now"))
    if shown.waits:
        actions.append(("signal", "Send a signal"))
    if undo is not None and not undo.aborted and not undo.past_pivot:
        actions.append(("cancel", "Cancel"))
        actions.append(("compensate", "Compensate now"))
    if shown.graph is not None and shown.unfit is None:
        actions.append(("skip", "Skip the next step"))
    actions.append(("resolve", "Resolve by hand"))
    return actions


def workers(visit: Visit) -> Response:
    """Show who holds which sagas, and what waits in the queue."""
    return visit.show("workers.html", found=visit.desk.inspector.workers())


def pauses(visit: Visit) -> Response:
    """Show the names that are paused."""
    found = visit.desk.inspector.pauses()
    return visit.show("pauses.html", found=found, done=DONE.get(visit.request.query_params.get("done", "")))


def schedules(visit: Visit) -> Response:
    """Show when each schedule last started its saga, and when it will next."""
    found = visit.desk.inspector.schedules()
    engine = visit.desk.engine
    rows = list(schedule_rows(engine.registry.schedules, found, engine.settings))
    return visit.show("schedules.html", now=found.now, rows=rows)


def _parsed(text: str | None) -> Graph | None:
    try:
        return None if text is None else Graph.parse(text)
    except (KeyError, TypeError, ValueError):
        return None  # a newer version wrote it


PAGES: Final[Mapping[str, Callable[[Visit], Response]]] = {
    "/": overview,
    "/sagas": sagas,
    "/find": find,
    "/sagas/{id}": saga,
    "/dead": dead,
    "/schedules": schedules,
    "/workers": workers,
    "/pauses": pauses,
}
