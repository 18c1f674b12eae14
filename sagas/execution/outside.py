"""What comes to a held saga from outside, and in time: requests to cancel, its deadline, signals, the end of a wait."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sagas.definition import Part, Wait
from sagas.duration import duration
from sagas.errors import ContextError, InboxMoved
from sagas.execution.commands import Command, ReadSignals
from sagas.execution.entries import note
from sagas.execution.held import Held
from sagas.execution.report import Outcome, Report
from sagas.inbox import as_logged
from sagas.progress import Action, Entry, EntryStatus, Move, SagaStatus, Verdict
from sagas.storage.records import LogEntry, Signal
from sagas.storage.transitions import Progressed, Suspended

#: What the log calls the row that says that the saga's deadline has passed.
_DEADLINE: Final = "deadline"


@dataclass(frozen=True, slots=True)
class Received:
    """A signal that a wait is to receive.

    Attributes:
        move: the wait's node and attempt.
        payload: what the signal brought, of the wait's type.
    """

    move: Move
    payload: Any


class Outside:
    """Reads what was sent to a saga, and judges the times that it keeps.

    Args:
        held: the saga.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        record = held.record
        said = any(entry.step == _DEADLINE and entry.action is Action.OPERATOR for entry in record.log)
        self._deadline_at = None if said else record.deadline_at
        # The signals that are being received, by the name of their node.
        self._received: dict[str, Signal] = {}

    @property
    def deadline(self) -> datetime | None:
        """The saga's deadline; None if it has none, if the log says that it has passed, or once the saga aborted."""
        return None if self._held.progress.aborted else self._deadline_at

    def received(self, move: Move) -> Signal | None:
        """Return the signal that this action received, and forget it."""
        return self._received.pop(move.node.name, None)

    def put_back(self, move: Move) -> None:
        """Keep the signal that this action received, for a later attempt."""
        if (signal := self.received(move)) is not None:
            self._held.inbox.put_back(signal)

    # -- requests to cancel, and the deadline -------------------------------------------------------------------

    def aborts(self) -> Generator[Command, Any, bool]:
        """Read what was sent to the saga, and abort it if that or its deadline asks for it. Return whether it did."""
        held = self._held
        if held.inbox.unread:
            yield from self._read_signals()
        if held.progress.aborted:
            return False
        while (request := held.inbox.request_to_cancel()) is not None:
            held.inbox.dealt_with(request)
            entry = note("cancel", actor=request.actor, reason=request.reason, signal=as_logged(request))
            if (yield from self._abort(entry)):
                return True
        deadline = self.deadline
        if deadline is None or held.now < deadline:
            return False
        late = note(_DEADLINE, message=f"the deadline was {deadline:%Y-%m-%d %H:%M:%S %Z}")
        aborted = yield from self._abort(late, seen=held.inbox.read)
        if not aborted:
            self._deadline_at = None  # past the pivot, it is said once
        return aborted

    def _read_signals(self) -> Generator[Command, Any, None]:
        """Read what was sent to the saga, until the database answers: a lease that ran out would count as a crash."""
        self._held.inbox.receive((yield from self._held.until_answered(ReadSignals())))

    def _abort(self, entry: LogEntry, seen: int | None = None) -> Generator[Command, Any, bool]:
        """Write a row that aborts the saga; past the pivot, one that only says what was asked for."""
        held, progress = self._held, self._held.progress
        status, in_flight = progress.status, None
        if not progress.past_pivot:
            entry = replace(entry, verdict=Verdict.ABORT)
            status = SagaStatus.COMPENSATING
            following = (move.node.name for move in progress.compensations())
            in_flight = tuple(dict.fromkeys((*held.running, *following)))
        try:
            yield from held.write(Progressed(events=(entry,), status=status, in_flight=in_flight, seen=seen))
        except InboxMoved:
            return True
        progress.add(entry)
        held.frontier = None
        held.log(logging.WARNING, "%s: %s", entry.step, entry.reason or entry.message or "no reason given")
        return progress.aborted

    # -- waits ------------------------------------------------------------------------------------------------

    def attend(self, awaiting: tuple[Move, ...]) -> Generator[Command, Any, Received | Report | None]:
        """Return what a signal begins; or end a wait whose time is up; or else suspend the saga."""
        held = self._held
        for move in awaiting:
            part = held.plan.steps[move.node.name]
            if issubclass(part, Wait):
                while (signal := held.inbox.signal_for(part, move.node.name)) is not None:
                    held.inbox.dealt_with(signal)
                    try:
                        payload = part.payload.load(signal.payload or "null")
                    except ContextError as error:
                        refused = note(
                            "signal refused", actor=signal.actor, message=str(error), signal=as_logged(signal)
                        )
                        yield from held.write(Progressed(events=(refused,), status=held.progress.status))
                        continue
                    self._received[move.node.name] = signal
                    return Received(move, payload)
            armed = held.progress.armed.get(move.node.name)
            if armed is not None and (left := self._left(armed)) is not None and left <= 0:
                if held.inbox.looked:
                    yield from self._time_is_up(move, part)
                else:
                    # A signal may be stored that nobody has delivered, as its sender died. It came in time.
                    yield from self._read_signals()
                return None
        return (yield from self._suspend(awaiting))

    def _time_is_up(self, move: Move, part: type[Part]) -> Generator[Command, Any, None]:
        held = self._held
        entry = LogEntry.of(move, EntryStatus.COMPLETED)
        if issubclass(part, Wait):
            entry = replace(entry, message="no signal came in time")
            if part.on_timeout == "abort":
                entry = replace(entry, status=EntryStatus.FAILED, verdict=Verdict.ABORT, error_type="WaitTimedOut")
        status = held.progress.status if entry.verdict is None else SagaStatus.COMPENSATING
        try:
            yield from held.write(Progressed(events=(entry,), status=status, seen=held.inbox.read))
        except InboxMoved:
            return
        held.progress.add(entry)
        held.events.append(f"{move.node.name}: {entry.message or 'slept'}")

    def _suspend(self, awaiting: tuple[Move, ...]) -> Generator[Command, Any, Report | None]:
        """Put the saga down until a signal comes, or the first of the waits is over."""
        held = self._held
        began, left = [], []
        for move in awaiting:
            armed = held.progress.armed.get(move.node.name)
            if armed is None:
                part = held.plan.steps[move.node.name]
                armed = LogEntry(
                    step=move.node.name,
                    action=move.action,
                    status=EntryStatus.ARMED,
                    seconds=part.limit(),
                    message="waits for a signal" if issubclass(part, Wait) else "sleeps",
                )
                began.append(armed)
            left.append(self._left(armed))
        if (deadline := self.deadline) is not None:
            left.append((deadline - held.now).total_seconds())
        after = min((seconds for seconds in left if seconds is not None), default=None)
        suspended = Suspended(
            events=tuple(began),
            status=held.progress.status,
            after_seconds=None if after is None else max(after, 0.0),
            waiting=True,
            seen=held.inbox.read,
        )
        try:
            yield from held.write(suspended)
        except InboxMoved:
            return None
        names = " and ".join(move.node.name for move in awaiting)
        limit = "" if after is None else f", at most {duration(after)}"
        return held.report(Outcome.WAITING, f"it waits for {names}{limit}.")

    def _left(self, armed: Entry) -> float | None:
        """How many seconds are left of a wait that began with this row; None if it has no end."""
        if armed.seconds is None:
            return None
        began = armed.created_at if isinstance(armed, LogEntry) else None
        return armed.seconds if began is None else (began - self._held.now).total_seconds() + armed.seconds
