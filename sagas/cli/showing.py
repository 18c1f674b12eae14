"""What `sagas show` prints: how one saga stands, and the timeline of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from rich.text import Text

from sagas.cli.code import known_sagas
from sagas.cli.listing import status_text
from sagas.cli.plain import saga_as_json
from sagas.cli.standing import NextStep, in_words, next_step, standing
from sagas.cli.timeline import Event, seconds_between, timeline
from sagas.cli.words import NOTHING, columns, labelled, utc, when
from sagas.errors import SagaError
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage.operations import Operations
from sagas.storage.operator_answers import Surroundings
from sagas.storage.records import SagaRecord
from sagas.text import printable

#: A context may be megabytes; its beginning is for a reader, the whole for `--json`.
_CONTEXT_CHARACTERS: Final = 2000

_HEADERS: Final = ("TIME (UTC)", "SECONDS", "STEP", "WORKER", "WHAT HAPPENED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A saga and what bears on it.

    Attributes:
        record: the saga with its log.
        surroundings: whether its name is paused, who asked it back, and the database's time.
        next_step: what it does when it goes on; None for a finished one.
        max_recovery_attempts: after how many failed attempts it is dead.
    """

    record: SagaRecord
    surroundings: Surroundings
    next_step: NextStep | None
    max_recovery_attempts: int


def look_up(saga_id: UUID, settings: Settings, operations: Operations) -> Shown:
    """Read a saga and what bears on it.

    Raises:
        SagaNotFound: there is no such saga.
        StorageUnavailable: the database does not answer.
    """
    record, surroundings = operations.look_up(saga_id)
    code: Registry | SagaError
    try:
        code = known_sagas(settings)
    except SagaError as error:
        code = error
    return Shown(
        record=record,
        surroundings=surroundings,
        next_step=next_step(record, code),
        max_recovery_attempts=settings.max_recovery_attempts,
    )


def shown_as_json(shown: Shown) -> dict[str, Any]:
    """Return everything that is known of the saga as plain data."""
    now, step = shown.surroundings.now, shown.next_step
    data = saga_as_json(shown.record)
    for row, seconds in zip(data["log"], seconds_between(shown.record), strict=True):
        row["seconds"] = seconds
    return data | {
        "standing": str(standing(shown.record, now)),
        "next": in_words(shown.record, now, shown.surroundings),
        "next_step": step
        and {
            "words": step.words,
            "step_name": step.step,
            "action": step.action and str(step.action),
            "attempt": step.attempt,
        },
    }


def showing(shown: Shown, width: int | None = None) -> Text:
    """Return the saga's header, context and timeline, for a terminal of this width."""
    header = [labelled(label, value, width) for label, value in _header(shown)]
    events = timeline(shown.record, shown.surroundings.now)
    return Text("\n").join([*header, Text(), *_context(shown.record), Text(), _timeline(events, width)])


def _header(shown: Shown) -> Iterator[tuple[str, Text | str]]:
    record, now = shown.record, shown.surroundings.now
    yield "id", str(record.id)
    yield "name", printable(record.name)
    yield "status", status_text(record.status)
    yield "attempts", f"{record.recovery_attempts} failed of {shown.max_recovery_attempts}"
    yield "next", in_words(record, now, shown.surroundings)
    yield "next step", shown.next_step.words if shown.next_step else NOTHING
    yield "last error", record.last_error or NOTHING
    yield "key", printable(record.idempotency_key or NOTHING)
    yield "created", when(record.created_at, now)
    yield "updated", when(record.updated_at, now)
    yield "finished", when(record.finished_at, now)


def _context(record: SagaRecord) -> Iterator[Text]:
    whole = json.dumps(json.loads(record.context), indent=2, ensure_ascii=False)
    yield Text("context", style="bold")
    yield Text(printable(whole[:_CONTEXT_CHARACTERS], keep="\n"))
    if len(whole) > _CONTEXT_CHARACTERS:
        yield Text(f"… the first {_CONTEXT_CHARACTERS} of {len(whole)} characters; --json prints all")


def _timeline(events: Sequence[Event], width: int | None) -> Text:
    if not events:
        return Text("timeline: no step has ended yet")
    rows = [_row(event) for event in events]
    return Text("timeline\n", style="bold").append_text(columns(_HEADERS, rows, width, spare=("WORKER", "SECONDS")))


def _row(event: Event) -> list[Text]:
    return [
        Text(utc(event.at)),
        Text(NOTHING if event.seconds is None else f"{event.seconds:+.3f}"),
        Text(printable(event.step or NOTHING)),
        Text(printable(event.worker or NOTHING)),
        Text(event.what, style="red" if event.bad else ""),
    ]
