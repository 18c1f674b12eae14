"""What `sagas show` prints: how one saga stands, and the timeline of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from sagas.cli.code import known_sagas
from sagas.cli.listing import status_text
from sagas.cli.plain import saga_as_json
from sagas.cli.standing import NextStep, in_words, next_step, standing
from sagas.cli.words import NOTHING, columns, labelled, one_line, printable, utc, when
from sagas.errors import SagaError
from sagas.progress import EntryStatus
from sagas.recovery import parse_saga_id
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.base import LogEntry, SagaRecord
from sagas.storage.operations import Operations
from sagas.storage.operator_answers import Surroundings

#: A context may be megabytes; its beginning is for a reader, the whole for `--json`.
_CONTEXT_CHARACTERS: Final = 2000
_NOTE_CHARACTERS: Final = 300

_HEADERS: Final = (
    "TIME (UTC)",
    "SECONDS",
    "STEP",
    "ACTION",
    "STATUS",
    "ATTEMPT",
    "VERDICT",
    "IN DOUBT",
    "WORKER",
    "NOTE",
)


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


def look_up(saga_id: str, settings: Settings) -> Shown:
    """Read a saga and what bears on it.

    Raises:
        InvalidSagaId, SagaNotFound: there is no such saga.
        StorageUnavailable: the database does not answer.
    """
    operations = Operations(SqlAlchemySagaStorage(settings.database_url))
    record, surroundings = operations.look_up(parse_saga_id(saga_id))
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
    for row, seconds in zip(data["log"], _seconds(shown.record), strict=True):
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


def showing(shown: Shown) -> Text:
    """Return the saga's header, context and timeline."""
    parts = [*_header(shown), Text(), *_context(shown.record), Text(), _timeline(shown.record)]
    return Text("\n").join(parts)


def _header(shown: Shown) -> Iterator[Text]:
    record, now = shown.record, shown.surroundings.now
    yield labelled("id", str(record.id))
    yield labelled("name", record.name)
    yield labelled("status", status_text(record.status))
    yield labelled("attempts", f"{record.recovery_attempts} failed of {shown.max_recovery_attempts}")
    yield labelled("next", in_words(record, now, shown.surroundings))
    yield labelled("next step", shown.next_step.words if shown.next_step else NOTHING)
    yield labelled("last error", record.last_error or NOTHING)
    yield labelled("key", record.idempotency_key or NOTHING)
    yield labelled("created", when(record.created_at, now))
    yield labelled("updated", when(record.updated_at, now))
    yield labelled("finished", when(record.finished_at, now))


def _context(record: SagaRecord) -> Iterator[Text]:
    whole = json.dumps(json.loads(record.context), indent=2, ensure_ascii=False)
    yield Text("context", style="bold")
    yield Text(printable(whole[:_CONTEXT_CHARACTERS]))
    if len(whole) > _CONTEXT_CHARACTERS:
        yield Text(f"… the first {_CONTEXT_CHARACTERS} of {len(whole)} characters; --json prints all")


def _timeline(record: SagaRecord) -> Text:
    if not record.log:
        return Text("timeline: no step has ended yet")
    rows = [_row(entry, seconds) for entry, seconds in zip(record.log, _seconds(record), strict=True)]
    return Text("timeline\n", style="bold").append_text(columns(_HEADERS, rows))


def _seconds(record: SagaRecord) -> list[float | None]:
    """For each row of the log, the seconds since the row before it, or since the saga was started."""
    befores = [record.created_at, *(entry.created_at for entry in record.log)]
    return [
        (entry.created_at - before).total_seconds() if entry.created_at and before else None
        for entry, before in zip(record.log, befores, strict=False)
    ]


def _row(entry: LogEntry, seconds: float | None) -> list[Text]:
    failed = entry.status is EntryStatus.FAILED
    # The older layout logged what began; what ended has a row of its own.
    status = "started (older layout)" if entry.status is EntryStatus.STARTED else str(entry.status)
    return [
        Text(utc(entry.created_at)),
        Text(NOTHING if seconds is None else f"{seconds:+.3f}"),
        Text(one_line(entry.step)),
        Text(str(entry.action)),
        Text(status, style="red" if failed else ""),
        Text(str(entry.attempt)),
        Text(str(entry.verdict or NOTHING)),
        Text("yes" if entry.in_doubt else NOTHING),
        Text(one_line(entry.worker or NOTHING)),
        Text(one_line(_note(entry), _NOTE_CHARACTERS)),
    ]


def _note(entry: LogEntry) -> str:
    """What the row says beside its columns: the error, or who did it and why."""
    if entry.by is not None:
        return f"by {entry.by}: {entry.because}"
    return f"{entry.error_type}: {entry.message}" if entry.status is EntryStatus.FAILED else NOTHING
