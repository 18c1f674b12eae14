"""What a person is told when a request fails: a sentence and a status, never a traceback."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from sagas.console.visit import Refused
from sagas.errors import (
    ActionRefused,
    DefinitionNotFound,
    InvalidSagaId,
    LogDoesNotFit,
    QueryTimeout,
    SagaError,
    SagaHeld,
    SagaNotFound,
    SchemaAhead,
    SchemaBehind,
    SignalRefused,
    StorageUnavailable,
    UnknownSaga,
    UnstorableText,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that is not what was asked for."""

    status: int
    title: str
    message: str
    retry_after: int | None = None


def failure_of(error: Exception) -> Failure:
    """Return what a person is told of an error."""
    match error:
        case Refused():
            return Failure(error.status, "That cannot be done", str(error))
        case HTTPException(status_code=404):
            return Failure(404, "There is no such page", "Check the address, or begin with the overview.")
        case HTTPException():
            return Failure(error.status_code, "That cannot be done", str(error.detail))
        case SagaNotFound() | InvalidSagaId():
            return Failure(404, "There is no such saga", sentence_of(error))
        case ActionRefused() | SignalRefused() | UnknownSaga() | LogDoesNotFit() | DefinitionNotFound():
            return Failure(409, "Nothing was changed", sentence_of(error))
        case UnstorableText():
            return Failure(400, "Nothing was changed", sentence_of(error))
        case QueryTimeout() | StorageUnavailable() | SchemaBehind() | SchemaAhead():
            return Failure(503, "The database did not answer", sentence_of(error), retry_after=10)
        case SagaError():
            return Failure(400, "That cannot be done", sentence_of(error))
        case _:
            return Failure(
                500, "The console has a fault", "This is a fault of the console; its log says more. Try it again."
            )


def sentence_of(error: SagaError) -> str:
    """Return the message of an error as a sentence for somebody who has pages instead of a shell."""
    if isinstance(error, SagaHeld):
        return (
            f"{error.owner} holds the saga and renews its lease. It has been asked to give the saga back after its "
            "present step: try it again in a moment. Nothing was changed."
        )
    text = str(error)
    # What an error says of commands is meant for the command line.
    text = re.sub(r"\s*\(`sagas [^`]*`\)", "", text)
    text = re.sub(r"[:;,]?\s*(?:copy an id from )?`sagas [^`]*`[^.;]*", "", text).strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
