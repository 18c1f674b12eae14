"""`sagas show`: one saga, what it does next, its context, and the timeline of its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from sagas import api
from sagas.cli.database import inspector, storage
from sagas.cli.ids import SagaIds, saga_ids_of
from sagas.cli.list import status_text, tags_text
from sagas.cli.loading import known_sagas
from sagas.cli.next_step import NextStep, next_step
from sagas.cli.render import NOTHING, facts, out, table, text
from sagas.cli.serialize import AsJson, everything_of, print_json
from sagas.definitions import Definitions
from sagas.duration import utc, when
from sagas.errors import SagaError
from sagas.inspection.models import SagaDetails
from sagas.inspection.standing import in_words
from sagas.inspection.timeline import seconds_between, timeline
from sagas.storage.records import SagaRecord
from sagas.text import printable

#: A context may be megabytes; its beginning is for a reader, the whole for `--json`.
_CONTEXT_CHARACTERS: Final = 2000
_HEADERS: Final = ("TIME (UTC)", "SECONDS", "STEP", "WORKER", "WHAT HAPPENED")


def show(saga_ids: SagaIds, as_json: AsJson = False) -> None:
    """Show a saga, its next step and its timeline.

    With --json, several sagas are a list.
    """
    asked = inspector()
    found = [asked.details(saga_id) for saga_id in saga_ids_of(saga_ids, asked)]
    if not found:
        return
    code = _code()
    if as_json:
        data = [_as_json(details, next_step(details.record, code)) for details in found]
        print_json(data if len(saga_ids) > 1 else data[0])
    else:
        out(Text("\n\n\n").join(_text(details, next_step(details.record, code)) for details in found))


def _code() -> Definitions | SagaError:
    """Return the definitions that sagas were started with, for the classes of SAGAS_MODULES, or why there are none."""
    try:
        return Definitions(storage(), known_sagas())
    except SagaError as error:
        return error


def _as_json(details: SagaDetails, step: NextStep | None) -> dict[str, Any]:
    record = details.record
    data = everything_of(record)
    for row, seconds in zip(data["log"], seconds_between(record), strict=True):
        row["seconds"] = seconds
    return data | {
        "next": in_words(details),
        "next_step": step
        and {"words": step.words, "step_name": step.step, "action": step.action, "attempt": step.attempt},
    }


def _text(details: SagaDetails, step: NextStep | None) -> Text:
    record, now = details.record, details.now
    header = facts(
        [
            ("id", str(record.id)),
            ("name", record.name),
            ("status", status_text(record.status)),
            ("attempts", f"{record.recovery_attempts} failed of {api.settings().max_recovery_attempts}"),
            ("next", in_words(details)),
            ("next step", step.words if step else NOTHING),
            ("last error", record.last_error or NOTHING),
            ("key", record.idempotency_key or NOTHING),
            ("tags", tags_text(record)),
            ("created", when(record.created_at, now)),
            ("updated", when(record.updated_at, now)),
            ("finished", when(record.finished_at, now)),
            ("deadline", when(record.deadline_at, now)),
        ]
    )
    return Text("\n").join([header, text(""), *_context(record), text(""), *_timeline(record, now)])


def _context(record: SagaRecord) -> Iterator[Text]:
    context = json.dumps(json.loads(record.context), indent=2, ensure_ascii=False)
    yield text("context", "bold")
    yield Text(printable(context[:_CONTEXT_CHARACTERS], keep="\n"))
    if len(context) > _CONTEXT_CHARACTERS:
        yield text(f"… the first {_CONTEXT_CHARACTERS} of {len(context)} characters; --json prints all")


def _timeline(record: SagaRecord, now: datetime) -> Iterator[Text]:
    rows = [
        (
            utc(event.at),
            NOTHING if event.seconds is None else f"{event.seconds:+.3f}",
            event.step or NOTHING,
            event.worker or NOTHING,
            text(event.what, "red" if event.bad else ""),
        )
        for event in timeline(record, now)
    ]
    if rows:
        yield text("timeline", "bold")
        yield table(_HEADERS, rows, spare=("WORKER", "SECONDS"))
    else:
        yield text("timeline: no step has ended yet")
