"""Decide which observers an engine notifies: its own, and OpenTelemetry if the process has set it up."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from sagas.progress import Move
from sagas.storage.answers import Acquired
from sagas.storage.records import LogEntry, NewSaga, SagaRecord
from sagas.telemetry.observer import NullObserver, Observer


def resolve_observer(own: Observer | None) -> Observer:
    """Return an observer that notifies the engine's own one, and OpenTelemetry if this process has set it up."""
    # OpenTelemetry can be set up only after it was imported. If it was not imported, do not import it here either.
    spans = None
    if "opentelemetry.trace" in sys.modules:
        from sagas.telemetry.tracing import tracing

        spans = tracing()
    if own is not None and spans is not None:
        return _Several([spans, own])
    return own or spans or NullObserver()


class _Several(Observer):
    """Notifies several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    @contextmanager
    def starting(self, sagas: Sequence[NewSaga]) -> Iterator[str | None]:
        with ExitStack() as stack:
            given = [stack.enter_context(observer.starting(sagas)) for observer in self._observers]
            yield next((traceparent for traceparent in given if traceparent is not None), None)

    def running(self, acquired: Acquired) -> AbstractContextManager[None]:
        return _within(observer.running(acquired) for observer in self._observers)

    def taken_over(self, saga: SagaRecord) -> None:
        for observer in self._observers:
            observer.taken_over(saga)

    def acting(self, saga: SagaRecord, move: Move) -> AbstractContextManager[None]:
        return _within(observer.acting(saga, move) for observer in self._observers)

    def step_ended(self, saga: SagaRecord, entry: LogEntry) -> None:
        for observer in self._observers:
            observer.step_ended(saga, entry)

    def waiting(self, saga: SagaRecord, entry: LogEntry) -> None:
        for observer in self._observers:
            observer.waiting(saga, entry)

    def given_back(self, saga: SagaRecord, outcome: str) -> None:
        for observer in self._observers:
            observer.given_back(saga, outcome)

    def scanning(self) -> AbstractContextManager[None]:
        return _within(observer.scanning() for observer in self._observers)

    def scanned(self, results: Mapping[str, int]) -> None:
        for observer in self._observers:
            observer.scanned(results)

    def message_dropped(self, queue: str) -> None:
        for observer in self._observers:
            observer.message_dropped(queue)


@contextmanager
def _within(blocks: Iterable[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield
