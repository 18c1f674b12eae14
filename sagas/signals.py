"""Sending to sagas from outside: signals, and requests to cancel. The worker that holds a saga reads them."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from sagas.definition import MAX_NAME_LENGTH, Wait
from sagas.definitions import Definitions
from sagas.errors import ContextError, LogDoesNotFit, SignalRefused, UnknownSaga
from sagas.plan import plan_for
from sagas.progress import Progress, aborted
from sagas.storable import is_storable
from sagas.storage.records import SagaHead, SagaRecord, Signal, SignalKind


def new_signal(
    record: SagaHead,
    name: str,
    payload: object,
    *,
    definitions: Definitions,
    signal_id: str | None = None,
    actor: str | None = None,
) -> Signal:
    """Return a signal for a wait of a saga.

    Args:
        record: the saga.
        name: the wait's name.
        payload: what the signal brings: an instance of the wait's type, or plain data.
        definitions: they tell which waits the saga has.
        signal_id: the sender's name for the signal; default: a random one.
        actor: who sends it.

    Raises:
        SignalRefused: the saga has ended, has no such wait, or the payload is of another type.
    """
    if record.status.finished:
        raise SignalRefused(f"saga {record.id} is {record.status} already: no signal reaches it any more.")
    wait = _wait_of(record, name, definitions)
    try:
        text = _text_of(payload) if wait is None else text_for(wait, payload)
    except ContextError as error:
        raise SignalRefused(f"saga {record.id}: the signal {name!r} was refused: {error}") from error
    if signal_id is not None and not (0 < len(signal_id) <= MAX_NAME_LENGTH and is_storable(signal_id)):
        raise ValueError(f"signal id {signal_id!r:.60}: give text of 1 to {MAX_NAME_LENGTH} characters without NUL.")
    return Signal(saga_id=record.id, name=name, signal_id=signal_id or str(uuid4()), payload=text, actor=actor)


def request_to_cancel(record: SagaRecord, reason: str, *, actor: str | None, definitions: Definitions) -> Signal:
    """Return the request to abort a saga.

    Raises:
        SignalRefused: the saga has ended, is being undone already, or is past its pivot.
    """
    if record.status.finished:
        raise SignalRefused(f"saga {record.id} is {record.status} already: nothing is left to cancel.")
    if aborted(record.log):
        raise SignalRefused(f"saga {record.id} is being undone already: there is nothing to add.")
    if _is_past_pivot(record, definitions):
        raise SignalRefused(
            f"saga {record.id} is past its pivot and can only go forward: it cannot be cancelled any more."
        )
    return Signal(saga_id=record.id, kind=SignalKind.CANCEL, signal_id=str(uuid4()), actor=actor, reason=reason)


def _is_past_pivot(record: SagaRecord, definitions: Definitions) -> bool:
    try:
        return Progress(definitions.graph_of(record), record.log).past_pivot
    except LogDoesNotFit:
        return False  # such as a saga of version 0.1.0 that never ran since: the worker that acquires it judges


def _wait_of(record: SagaHead, name: str, definitions: Definitions) -> type[Wait[Any]] | None:
    """Return the wait that a signal is for; None if this process has not got the saga's class."""
    try:
        saga, graph = definitions.fitting(record)
        parts = plan_for(saga, graph).steps
    except (UnknownSaga, LogDoesNotFit):
        graph = definitions.graph_of(record)
        waits = [node.name for node in graph.nodes if node.kind == "wait"]
        if name not in waits:
            raise _no_such_wait(record, name, waits) from None
        return None
    found = {
        known: part
        for stored, part in parts.items()
        if issubclass(part, Wait)
        for known in (stored, part.name, *part.aliases)
    }
    if name not in found:
        raise _no_such_wait(record, name, [part.name for part in parts.values() if issubclass(part, Wait)])
    return found[name]


def _no_such_wait(record: SagaHead, name: str, waits: list[str]) -> SignalRefused:
    known = f"it waits for {', '.join(map(repr, waits))}" if waits else "it waits for none"
    return SignalRefused(f"saga {record.id} ({record.name}) has no wait {name!r}: {known}. Correct the name.")


def text_for(wait: type[Wait[Any]], payload: object) -> str:
    """Return what a signal for this wait brings, as JSON.

    Raises:
        ContextError: it is no instance of the wait's type, nor plain data that describes one.
    """
    return wait.payload.dump_checked(payload if wait.payload.is_instance(payload) else wait.payload.parse(payload))


def _text_of(payload: object) -> str:
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContextError(
            f"its payload cannot be stored as JSON ({error}), and this process does not know its type: give plain data."
        ) from error
