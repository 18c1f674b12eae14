"""The rows that a holder writes to the log, and the transition of a failed attempt."""

from __future__ import annotations

import traceback
from collections.abc import Container
from dataclasses import replace
from typing import Final, TypeAlias

from sagas.definition import backoff
from sagas.failures import message_of
from sagas.progress import Action, EntryStatus, Move, Verdict
from sagas.runtime import Runtime
from sagas.storage.records import LogEntry
from sagas.storage.transitions import FailedAttempt

#: A traceback is for a reader, and its end says most.
_TRACEBACK_CHARACTERS: Final = 4000
_MESSAGE_CHARACTERS: Final = 2000
Trace: TypeAlias = tuple[str, Action, str | None, str | None]


def note(
    what: str,
    *,
    actor: str | None = None,
    reason: str | None = None,
    message: str | None = None,
    signal: dict[str, object] | None = None,
) -> LogEntry:
    """Return a row that says what came from outside, or that a time has passed."""
    return LogEntry(
        step=what,
        action=Action.OPERATOR,
        status=EntryStatus.COMPLETED,
        actor=actor,
        reason=reason,
        message=None if message is None else cut(message),
        signal=signal,
    )


def trace_of(entry: LogEntry) -> Trace:
    """Return what tells a failure from others, of which the log keeps the traceback once."""
    return entry.step, entry.action, entry.error_type, entry.message


def failure(
    move: Move, error: BaseException, verdict: Verdict, *, in_doubt: bool, traced: Container[Trace]
) -> LogEntry:
    """Return the row of an action that failed.

    Args:
        move: the action.
        error: what it raised.
        verdict: what follows from it.
        in_doubt: whether it may have taken effect.
        traced: failures that the log has a traceback of. A retry adds none of theirs.
    """
    entry = LogEntry.of(
        move,
        EntryStatus.FAILED,
        verdict=verdict,
        in_doubt=in_doubt,
        error_type=type(error).__name__,
        message=message(error),
    )
    if verdict is Verdict.RETRY and trace_of(entry) in traced:
        return entry  # the log is read whole at each recovery: a step that polls must not fill it with one traceback
    return replace(entry, traceback=_traceback(error))


def holder_failed(error: BaseException, in_flight: tuple[str, ...] | None) -> LogEntry:
    """Return the row for an attempt that failed by an error outside of steps, while these may have begun."""
    return LogEntry(
        step="holder",
        action=Action.HOLDER,
        status=EntryStatus.FAILED,
        in_flight=in_flight,
        error_type=type(error).__name__,
        message=message(error),
    )


def failed_attempt(runtime: Runtime, attempts: int, *events: LogEntry, last_error: str | None = None) -> FailedAttempt:
    """Return the transition that counts one more failed attempt, with its backoff."""
    settings = runtime.settings
    full = backoff(attempts + 1, first=settings.backoff_seconds, factor=2, cap=settings.max_backoff_seconds)
    return FailedAttempt(
        events=events,
        after_seconds=full * (1 - 0.2 * runtime.random()),
        max_recovery_attempts=settings.max_recovery_attempts,
        last_error=last_error,
    )


def is_row_of(row: LogEntry, event: LogEntry) -> bool:
    """Whether a row of the log is the one that this holder's event was written as."""
    # An attempt at an action ends once under one lease, so these tell its row from every other. Of requests to cancel
    # and of signals that were refused there may be several.
    ids = [entry.signal and entry.signal["id"] for entry in (row, event)]
    same = (row.step, row.action, row.status, row.attempt) == (event.step, event.action, event.status, event.attempt)
    return same and ids[0] == ids[1]


def message(error: BaseException) -> str:
    """Return an error's message, as the log can hold it."""
    return cut(message_of(error))


def cut(text: str) -> str:
    """Return the beginning of a text, as the log can hold it."""
    return _storable(text[:_MESSAGE_CHARACTERS])


def _traceback(error: BaseException) -> str:
    return _storable("".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:])


def _storable(text: str) -> str:
    """Text that PostgreSQL can hold, whatever an exception's message holds."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
