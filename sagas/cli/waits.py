"""The rows of a timeline about waits, sleeps, signals, requests to cancel and deadlines, in words; pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sagas.duration import utc
from sagas.progress import Action, EntryStatus, Verdict
from sagas.storage.records import LogEntry
from sagas.text import one_line, printable

_TEXT_CHARACTERS: Final = 300


def of_wait(entry: LogEntry, waited: bool) -> str | None:
    """Return what a row says in words; None if it is about something else.

    Args:
        entry: the row.
        waited: whether its step had begun to wait before.
    """
    if entry.action is Action.OPERATOR:
        return _of_saga(entry)
    if entry.status is EntryStatus.ARMED:
        return f"{entry.message or 'waits'}{_until(entry)}"
    if entry.status is EntryStatus.COMPLETED and entry.signal is not None:
        return f"signal received{_sender(entry)}"
    if not waited or entry.actor is not None:
        return None
    if entry.status is EntryStatus.COMPLETED:
        return f"{entry.message}; the saga goes on" if entry.message else "slept"
    if entry.status is EntryStatus.FAILED and entry.error_type == "WaitTimedOut":
        return f"{entry.message}; the saga aborts"
    return None


def _of_saga(entry: LogEntry) -> str | None:
    """Return the words for a row about the saga as a whole."""
    aborts = entry.verdict is Verdict.ABORT
    if entry.step == "deadline" and entry.actor is None:
        follows = "the saga aborts" if aborts else "it is past its pivot, so it goes on"
        return f"{_text(entry.message)}; {follows}"
    if entry.signal is None:
        return None
    if entry.step == "cancel":
        by = f" by {printable(entry.actor)}" if entry.actor else ""
        if aborts:
            return f"cancelled{by}; the saga aborts: {_text(entry.reason)}"
        return f"request to cancel{by} came too late, past the pivot: {_text(entry.reason)}"
    return f"{printable(entry.step)}{_sender(entry)}: {_text(entry.message)}"


def _until(entry: LogEntry) -> str:
    if entry.seconds is None:
        return ", without a limit"
    return f", until {utc(entry.created_at + timedelta(seconds=entry.seconds))}" if entry.created_at else ""


def _sender(entry: LogEntry) -> str:
    """Return who sent the signal of a row, its id, and when it was sent."""
    signal = entry.signal or {}
    by = f" from {printable(entry.actor)}" if entry.actor else ""
    sent = signal.get("sent_at")
    at = f", sent {utc(datetime.fromisoformat(sent))}" if isinstance(sent, str) else ""
    return f"{by}, id {printable(str(signal.get('signal_id')))}{at}"


def _text(text: str | None) -> str:
    return one_line(text or "no reason given", _TEXT_CHARACTERS)
