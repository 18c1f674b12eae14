"""What a saga does when it goes on, as this process's code has it."""

from __future__ import annotations

from dataclasses import dataclass

from sagas.definitions import Definitions
from sagas.errors import SagaError
from sagas.plan import plan_for
from sagas.progress import Action, Progress
from sagas.storage.records import SagaRecord
from sagas.text import one_line, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What a saga does when it goes on; only `words` if it merely ends, or if that is not known here."""

    words: str
    step: str | None = None
    action: Action | None = None
    attempt: int | None = None


def next_step(record: SagaRecord, definitions: Definitions | SagaError) -> NextStep | None:
    """Return what the saga does next; None for a finished one.

    Args:
        record: the saga with its log.
        definitions: what sagas were started with, and this process's classes; or why there are none.
    """
    if record.status.finished:
        return None
    try:
        if isinstance(definitions, SagaError):
            raise definitions
        plan = plan_for(*definitions.fitting(record))
        progress = Progress(plan.graph, record.log, past_failures=plan.past_failures)
    except SagaError as error:
        return NextStep(words=f"unknown to this shell: {one_line(str(error))}")
    frontier = progress.frontier()
    if frontier.end is not None:
        return NextStep(words=f"none is left: it ends as {frontier.end}")
    move = (*frontier.ready, *frontier.awaiting)[0]
    if move.node.waits:
        words = f"{'sleep: ' if move.node.kind == 'sleep' else 'wait for '}{printable(move.node.name)}"
    else:
        begun = ", which may have begun before" if move.node.name in progress.in_doubt else ""
        owner = plan.graph.owners[move.node.name].name
        place = "" if owner == move.node.name else f", a fallback of {printable(owner)}"
        words = f"{move.action} {printable(move.node.name)}{place}, attempt {move.attempt}{begun}"
    return NextStep(words=words, step=move.node.name, action=move.action, attempt=move.attempt)
