"""One action on all sagas of a filter: how many they are is shown, and confirmed with exactly those sagas in mind."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from starlette.responses import Response

from sagas.console.failures import sentence_of
from sagas.console.filters import ListQuery, read_query
from sagas.console.visit import Refused, Visit
from sagas.errors import ActionRefused, LogDoesNotFit, SagaNotFound, SignalRefused, UnknownSaga
from sagas.storage.records import SagaRecord, SagaState

#: So many sagas at once: an action takes some milliseconds each, and a person waits for the answer.
MOST: Final = 1000
_SHOWN: Final = 20
TITLES: Final = {"retry": "Retry", "compensate": "Compensate", "cancel": "Cancel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The unfinished sagas that a filter finds.

    Attributes:
        records: no more than `MOST` of them, the newest first.
        more: whether there are others.
    """

    query: ListQuery
    records: tuple[SagaRecord, ...]
    more: bool

    @property
    def digest(self) -> str:
        """What tells whether the filter still finds the same sagas."""
        ids = "\n".join(sorted(str(record.id) for record in self.records))
        return hashlib.sha256(ids.encode()).hexdigest()

    @property
    def by_name(self) -> list[tuple[str, str, int]]:
        """How many there are of each name and status."""
        counts = Counter((record.name, str(record.status)) for record in self.records)
        return [(name, status, count) for (name, status), count in sorted(counts.items())]


def ask(visit: Visit) -> Response:
    """Show how many sagas an action would be done on."""
    return _asking(visit, _action(visit.request.query_params.get("action", "")), _selection(visit))


def act(visit: Visit) -> Response:
    """Do the action on the sagas that were shown, and say what came of it."""
    action, selection = _action(visit.sent("action")), _selection(visit)
    try:
        reason = visit.reason()
        if visit.sent("digest") != selection.digest:
            raise Refused(
                f"The filter finds other sagas than those that you have seen: {len(selection.records)} now. Look "
                "again, then decide. Nothing was changed.",
                409,
            )
    except Refused as error:
        return _asking(visit, action, selection, problem=str(error), status=error.status)
    done, refused = _on_all(selection.records, _doing(visit, action, reason))
    visit.log(f"{action} in bulk", f"{done} of {len(selection.records)} sagas", reason)
    return visit.show(
        "bulk_done.html",
        title=TITLES[action],
        done=done,
        refused=refused[:_SHOWN],
        refused_in_all=len(refused),
        query=selection.query,
    )


def _doing(visit: Visit, action: str, reason: str) -> Callable[[UUID], Any]:
    operator = visit.operator(wait_seconds=0.0)
    match action:
        case "retry":
            return lambda saga_id: operator.retry(saga_id, reason=reason)
        case "compensate":
            return lambda saga_id: operator.compensate(saga_id, reason=reason)
        case _:
            return lambda saga_id: visit.desk.engine.cancel(saga_id, reason, actor=visit.person.name)


def _on_all(records: Iterable[SagaRecord], act: Callable[[UUID], Any]) -> tuple[int, list[tuple[SagaRecord, str]]]:
    done, refused = 0, []
    for record in records:
        try:
            act(record.id)
            done += 1
        except (ActionRefused, SignalRefused, UnknownSaga, LogDoesNotFit, SagaNotFound) as error:
            refused.append((record, sentence_of(error)))
    return done, refused


def _selection(visit: Visit) -> Selection:
    query = read_query(visit.request.query_params, limit=MOST)
    if query.problems:
        raise Refused(f"{' '.join(query.problems)} Go back and correct the filter. Nothing was changed.")
    if query.empty:
        raise Refused("Narrow the list first: an action on every saga there is would be a mistake.")
    unfinished = [state for state in query.wanted.states or SagaState if state is not SagaState.FINISHED]
    if not unfinished:
        raise Refused("Finished sagas cannot be acted on: choose another state.")
    page = visit.desk.inspector.page(replace(query.wanted, states=unfinished, after=None))
    records = tuple(record for record in page.records if not record.status.finished)
    return Selection(query=query, records=records, more=page.more)


def _action(name: str) -> str:
    if name not in TITLES:
        raise Refused("Choose what to do with these sagas: retry, compensate or cancel.")
    return name


def _asking(
    visit: Visit, action: str, selection: Selection, *, problem: str | None = None, status: int = 200
) -> Response:
    return visit.show(
        "bulk.html",
        status=status,
        action=action,
        title=TITLES[action],
        selection=selection,
        shown=selection.records[:_SHOWN],
        most=MOST,
        problem=problem,
    )


ACTIONS: Final[Mapping[str, tuple[Any, Any]]] = {"/bulk": (ask, act)}
