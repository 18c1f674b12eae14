"""What was sent to a saga, as its holder has read it: which signal a wait takes, and which request is still open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sagas.definition import Wait
from sagas.storage.records import LogEntry, Signal, SignalKind


class Inbox:
    """The signals and requests of one saga.

    Args:
        delivered: how many were delivered when the saga was acquired.
        log: the saga's log; it tells which ones were dealt with.

    Attributes:
        delivered: how many are known to be delivered.
        read: how many were delivered when the holder last read them.
        looked: whether the holder has read them at all.
    """

    def __init__(self, delivered: int, log: Iterable[LogEntry]) -> None:
        self.delivered = delivered
        self.read = 0
        self.looked = False
        self._signals: Sequence[Signal] = ()
        self._dealt_with = {entry.signal["id"] for entry in log if entry.signal is not None}

    @property
    def unread(self) -> bool:
        """Whether something was delivered that the holder has not read."""
        return self.delivered != self.read

    def receive(self, signals: Sequence[Signal]) -> None:
        """Take what was read once `delivered` was known."""
        self._signals = signals
        self.read = self.delivered
        self.looked = True

    def dealt_with(self, signal: Signal) -> None:
        """Leave a signal out from now on."""
        self._dealt_with.add(signal.id)

    def put_back(self, signal: Signal) -> None:
        """Take a signal again that was to be dealt with: the code that received it failed."""
        self._dealt_with.discard(signal.id)

    def request_to_cancel(self) -> Signal | None:
        """Return the oldest request to cancel that was not dealt with."""
        return self._oldest(SignalKind.CANCEL)

    def signal_for(self, wait: type[Wait[object]], stored_name: str) -> Signal | None:
        """Return the oldest signal that a wait takes.

        Args:
            wait: the class.
            stored_name: the wait's name in the graph that the saga was started with.
        """
        return self._oldest(SignalKind.SIGNAL, names={stored_name, wait.name, *wait.aliases})

    def _oldest(self, kind: SignalKind, names: set[str] | None = None) -> Signal | None:
        mine = (s for s in self._signals if s.kind is kind and (names is None or s.name in names))
        return next((signal for signal in mine if signal.id not in self._dealt_with), None)


def as_logged(signal: Signal) -> dict[str, object]:
    """Return what the log says of a signal."""
    return {
        "id": signal.id,
        "signal_id": signal.signal_id,
        "sent_at": None if signal.sent_at is None else signal.sent_at.isoformat(),
        "payload": signal.payload,
    }
