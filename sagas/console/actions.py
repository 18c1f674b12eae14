"""Actions on one saga or one name. Each has a page that asks, with what would happen, and a form that does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from starlette.responses import Response

from sagas.console.failures import sentence_of
from sagas.console.pages import Subject, actions_for, subject
from sagas.console.visit import Refused, Visit
from sagas.errors import ActionRefused, LogDoesNotFit, SagaChanged, SignalRefused, UnknownSaga
from sagas.progress import SagaStatus, aborted
from sagas.storage.records import SagaRecord, SagaState

_MOST_NAME_CHARACTERS: Final = 255


def mark_of(record: SagaRecord) -> str:
    """Return what tells whether a saga is still as somebody saw it.

    A saga that a worker runs changes with each step. So only its direction counts then.
    """
    if record.state is SagaState.RUNNING:
        return f"running {_direction(record)}"
    return f"{record.version} {_last_row(record)}"


def require_unchanged(seen: str) -> Callable[[SagaRecord], None]:
    """Return what refuses an action on a saga that is no longer as it was seen.

    Args:
        seen: what `mark_of` returned for the saga that the person saw.
    """

    def require(record: SagaRecord) -> None:
        if record.status.finished or not (_was_running(record) if seen.startswith("running ") else _is_as_seen(record)):
            raise SagaChanged(f"saga {record.id} has changed since you looked: look again, then decide.")

    def _was_running(record: SagaRecord) -> bool:
        return seen == f"running {_direction(record)}"

    def _is_as_seen(record: SagaRecord) -> bool:
        # The operator's own lease has the next version.
        return seen in (f"{record.version - own} {_last_row(record)}" for own in (0, 1))

    return require


def _direction(record: SagaRecord) -> str:
    return "backward" if aborted(record.log) else "forward"


def _last_row(record: SagaRecord) -> int:
    return record.log[-1].id if record.log else 0


class SagaAction:
    """One action on one saga.

    Args:
        name: the end of its path.
        act: does it, and returns the word for the page after it.
    """

    def __init__(self, name: str, act: Callable[[Visit, Subject], str]) -> None:
        self._name = name
        self._act = act

    def ask(self, visit: Visit) -> Response:
        """Show what would happen, and ask for a reason."""
        return self._asking(visit, subject(visit, visit.request.path_params["id"]))

    def act(self, visit: Visit) -> Response:
        """Do it; show the question again with the reason why not, if it is refused."""
        shown = subject(visit, visit.request.path_params["id"])
        try:
            reason = visit.reason()
            done = self._act(visit, shown)
        except Refused as error:
            return self._asking(visit, shown, problem=str(error), status=error.status)
        except (ActionRefused, SignalRefused, UnknownSaga, LogDoesNotFit) as error:
            visit.log(f"{self._name} refused", f"saga {shown.record.id}", str(error))
            again = subject(visit, str(shown.record.id))
            return self._asking(visit, again, problem=sentence_of(error), status=409)
        visit.log(self._name, f"saga {shown.record.id} ({shown.record.name})", reason)
        return visit.go(f"/sagas/{shown.record.id}", done=done)

    def _asking(self, visit: Visit, shown: Subject, *, problem: str | None = None, status: int = 200) -> Response:
        return visit.show(
            "act.html",
            status=status,
            action=self._name,
            title=dict(actions_for(shown)).get(self._name),
            subject=shown,
            record=shown.record,
            now=shown.portrait.details.now,
            mark=mark_of(shown.record),
            next_step=_next_step(shown),
            new_signal_id=f"console:{uuid4()}",
            problem=problem,
        )


def _next_step(shown: Subject) -> str | None:
    states = ("running", "being undone", "undo failed", "undone next", "failed", "in doubt", "waiting", "next")
    nodes = [view for view in shown.nodes if view.state in states]
    backward = [view for view in nodes if view.state.startswith(("undo", "being"))]
    chosen = backward or nodes
    return chosen[0].node.name if chosen else None


def _retry(visit: Visit, shown: Subject) -> str:
    visit.operator(require=require_unchanged(visit.sent("seen"))).retry(shown.record.id, reason=visit.reason())
    return "retry"


def _compensate(visit: Visit, shown: Subject) -> str:
    operator = visit.operator(require=require_unchanged(visit.sent("seen")))
    operator.compensate(shown.record.id, reason=visit.reason())
    return "compensate"


def _skip(visit: Visit, shown: Subject) -> str:
    step = visit.sent("step")
    if step not in [view.node.name for view in shown.nodes]:
        raise Refused("Choose the step to skip.")
    operator = visit.operator(require=require_unchanged(visit.sent("seen")))
    operator.skip(shown.record.id, step, reason=visit.reason())
    return "skip"


def _resolve(visit: Visit, shown: Subject) -> str:
    try:
        status = SagaStatus(visit.sent("as"))
    except ValueError:
        status = SagaStatus.PENDING
    if not status.finished:
        raise Refused("Choose how it was settled: COMPLETED or COMPENSATED.")
    operator = visit.operator(require=require_unchanged(visit.sent("seen")))
    operator.resolve(shown.record.id, status, reason=visit.reason())
    return "resolve"


def _cancel(visit: Visit, shown: Subject) -> str:
    require_unchanged(visit.sent("seen"))(shown.record)
    visit.desk.engine.cancel(shown.record.id, visit.reason(), actor=visit.person.name)
    return "cancel"


def _signal(visit: Visit, shown: Subject) -> str:
    name = visit.sent("wait")
    if name not in [view.node.name for view in shown.waits]:
        raise Refused("Choose the wait that the signal is for.")
    try:
        payload: Any = json.loads(visit.sent("payload") or "null")
    except (ValueError, RecursionError):
        raise Refused('The payload is no JSON: write it as {"accepted": true}, or leave it empty for none.') from None
    # The form names the signal, so that sending the form twice sends one signal.
    signal_id = visit.sent("signal_id")[:_MOST_NAME_CHARACTERS] or None
    is_new = visit.desk.engine.signal(shown.record.id, name, payload, signal_id=signal_id, actor=visit.person.name)
    return "signal" if is_new else "signal-again"


def ask_pause(visit: Visit) -> Response:
    """Ask before a name is paused."""
    return _asking_name(visit, "pause")


def pause(visit: Visit) -> Response:
    """Pause a name."""
    name = visit.sent("name")
    try:
        if not 0 < len(name) <= _MOST_NAME_CHARACTERS or "\0" in name:
            raise Refused("Give the name of the sagas to pause.")
        reason = visit.reason()
    except Refused as error:
        return _asking_name(visit, "pause", problem=str(error), status=400)
    visit.desk.engine.storage.pause(name, actor=visit.person.name, reason=reason)
    visit.log("pause", f"all sagas named {name}", reason)
    return visit.go("/pauses", done="pause")


def ask_resume(visit: Visit) -> Response:
    """Ask before a name is resumed."""
    return _asking_name(visit, "resume")


def resume(visit: Visit) -> Response:
    """Resume a name."""
    name = visit.sent("name")
    try:
        reason = visit.reason()
        if name not in [paused.name for paused in visit.desk.engine.storage.pauses()]:
            raise Refused(f"{name or 'No name'} is not paused any more: somebody else has resumed it.", 409)
    except Refused as error:
        return _asking_name(visit, "resume", problem=str(error), status=error.status)
    visit.desk.engine.storage.resume(name)
    visit.log("resume", f"all sagas named {name}", reason)
    return visit.go("/pauses", done="resume")


def _asking_name(visit: Visit, action: str, *, problem: str | None = None, status: int = 200) -> Response:
    name = visit.sent("name") or visit.request.query_params.get("name", "")
    found = visit.desk.inspector.pauses()
    paused = next((each for each in found.paused if each.name == name), None)
    return visit.show(
        "act_on_name.html", status=status, action=action, name=name, paused=paused, now=found.now, problem=problem
    )


def _of(name: str, act: Callable[[Visit, Subject], str]) -> tuple[Any, Any]:
    action = SagaAction(name, act)
    return action.ask, action.act


ACTIONS: Final[Mapping[str, tuple[Any, Any]]] = {
    "/sagas/{id}/retry": _of("retry", _retry),
    "/sagas/{id}/compensate": _of("compensate", _compensate),
    "/sagas/{id}/skip": _of("skip", _skip),
    "/sagas/{id}/resolve": _of("resolve", _resolve),
    "/sagas/{id}/cancel": _of("cancel", _cancel),
    "/sagas/{id}/signal": _of("signal", _signal),
    "/pauses/pause": (ask_pause, pause),
    "/pauses/resume": (ask_resume, resume),
}
