"""The commands that act on single sagas: recover, retry, compensate, skip, resolve.

Each asks first, and writes under the saga's lease and fence as a worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import typer

from sagas import api
from sagas.admin import Operator
from sagas.cli.database import inspector, storage
from sagas.cli.durations import parse_wait
from sagas.cli.errors import complain, fail
from sagas.cli.ids import WHICH, SagaIds, saga_ids_of
from sagas.cli.loading import check_name
from sagas.cli.prompts import Reason, Yes, confirm, confirm_for, operator
from sagas.cli.render import count_of, fitted, out
from sagas.engine import SagaEngine
from sagas.errors import ActionRefused, LeaseLost, LogDoesNotFit, SagaNotFound, UnknownSaga
from sagas.inspection.models import SagaDetails
from sagas.inspection.standing import in_words
from sagas.progress import SagaStatus
from sagas.storage.records import SagaRecord, note
from sagas.text import one_line, printable

#: Outcomes of a recovery that leave the operator something to do.
_BAD_OUTCOMES: Final = frozenset({"failed", "dead", "declined", "lost"})

Wait = Annotated[
    float,
    typer.Option(
        parser=parse_wait,
        metavar="SECONDS",
        help="How long to wait for a worker that holds the saga; it is asked to give it back.",
    ),
]


class End(StrEnum):
    """How a saga may be resolved."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"


def recover(saga_ids: SagaIds, reason: Reason = "recovered by hand", yes: Yes = False) -> None:
    """Recover sagas here and now.

    Also while they back off, are dead or paused; never one that a worker holds.
    """
    by = operator()
    engine = api.new_engine(node=by)
    ids = saga_ids_of(saga_ids, inspector())
    _confirm("recover", ids, yes)
    for saga_id in ids:
        try:
            report = engine.recover(saga_id, by_hand=True, note=note("recover", actor=by, reason=reason))
        except (LeaseLost, SagaNotFound) as error:
            complain(error)
            continue
        outcome = f"{report.saga_id}  {printable(report.name)}  {report.outcome}: {one_line(report.message)}"
        out(fitted(outcome), *(fitted(f"    {one_line(deed)}", indent=8) for deed in report.events))
        if report.outcome in _BAD_OUTCOMES:
            fail()


def retry(
    saga_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help=WHICH)] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that are dead.")] = False,
    name: Annotated[str | None, typer.Option(help="With --dead: only sagas of this name.")] = None,
    reason: Reason = "retried by hand",
    yes: Yes = False,
) -> None:
    """Make sagas due at once, with all their attempts again; the next scan sends them to workers."""
    if bool(saga_ids) == dead or (name and not dead):
        raise typer.BadParameter("give either ids, or --dead with or without --name.")
    operator = _without_code()
    ids = [record.id for record in operator.dead(name)] if dead else saga_ids_of(saga_ids or (), inspector())
    if dead and not ids:
        typer.echo(f"no sagas {f'named {printable(name)} ' if name else ''}are dead.", err=True)
        if name:
            check_name(name, inspector().names)
    _confirm("retry", ids, yes)
    _for_each(ids, lambda saga_id: operator.retry(saga_id, reason=reason))


def compensate(saga_ids: SagaIds, reason: Reason, wait: Wait = 30.0, yes: Yes = False) -> None:
    """Abort sagas, running or failed: what they did is undone, and they never run forward again."""
    operator = _with_code(wait)
    _act(saga_ids, "abort it and undo what it did", yes, lambda saga_id: operator.compensate(saga_id, reason=reason))


def skip(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help=WHICH)],
    step: Annotated[str, typer.Argument(metavar="STEP", help="The saga's next step, as `sagas show` names it.")],
    reason: Reason,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """Have a saga go on as if its next step were done: its act, or its compensation if the saga was aborted.

    You answer for the step: code neither acts nor compensates it from then on.
    """
    operator = _with_code(wait)
    _act([saga_id], f"skip its step {step!r}", yes, lambda saga_id: operator.skip(saga_id, step, reason=reason))


def resolve(
    saga_ids: SagaIds,
    as_: Annotated[End, typer.Option("--as", help="How it was settled.")],
    reason: Reason,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """End sagas that were settled by other means; none of their code runs, and none needs to be here."""
    status, operator = SagaStatus(as_.value.upper()), _without_code(wait)
    _act(saga_ids, f"end it as {status}", yes, lambda saga_id: operator.resolve(saga_id, status, reason=reason))


def _with_code(wait: float) -> Operator:
    by = operator()
    return Operator(api.new_engine(node=by), actor=by, wait_seconds=wait)


def _without_code(wait: float = 0.0) -> Operator:
    """Return what acts without any saga's class, also where SAGAS_MODULES cannot be imported."""
    by = operator()
    return Operator(SagaEngine(storage(), settings=api.settings(), node=by), actor=by, wait_seconds=wait)


def _confirm(what: str, ids: Sequence[UUID], yes: bool) -> None:
    if ids:
        confirm(f"{what} {count_of(len(ids), 'saga')}?", yes)


def _act(saga_ids: Iterable[str], what: str, yes: bool, action: Callable[[UUID], SagaRecord]) -> None:
    """Ask about each saga as it stands, then act on all of them."""
    ids = saga_ids_of(saga_ids, inspector())
    for saga_id in ids:
        confirm_for(storage().load(saga_id), what, yes)
    _for_each(ids, action)


def _for_each(ids: Iterable[UUID], action: Callable[[UUID], SagaRecord]) -> None:
    for saga_id in ids:
        try:
            record = action(saga_id)
        except (ActionRefused, LogDoesNotFit, SagaNotFound, UnknownSaga) as error:
            complain(error)
        else:
            state = in_words(SagaDetails(now=datetime.now(UTC), record=record))
            out(fitted(f"{record.id}  {printable(record.name)}  {record.status}: {state}"))
