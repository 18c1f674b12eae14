"""JSON for programs: every field by the name it has in the database, times in ISO 8601 and UTC."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from pydantic_core import to_jsonable_python

from sagas.storage.records import SagaRecord

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(data: Any) -> None:
    """Print plain data, dataclasses, ids and times as JSON."""
    typer.echo(json.dumps(to_jsonable_python(data), indent=2))


def as_stored(row: Any) -> dict[str, Any]:
    """Return the fields of a log row or of a pause by the names that they have in the database."""
    return {_STORED_NAMES.get(name, name): value for name, value in asdict(row).items()}


_STORED_NAMES: Final = {"step": "step_name", "actor": "by", "reason": "because"}


def summary_of(record: SagaRecord) -> dict[str, Any]:
    """Return what is stored of a saga, without its context and its log."""
    fields = asdict(record) | {"dead": record.dead}
    return {name: value for name, value in fields.items() if name not in ("context", "log")}


def everything_of(record: SagaRecord) -> dict[str, Any]:
    """Return all that is stored of a saga."""
    log = [as_stored(entry) for entry in record.log]
    return {**summary_of(record), "context": json.loads(record.context), "log": log}
