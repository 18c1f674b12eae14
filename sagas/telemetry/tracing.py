"""OpenTelemetry spans: one for each start, each run of a saga in a process, each action, and each scan.

A saga stores the trace context of its start. Every span of the saga belongs to that trace, in each process and at any
later time. The parent of these spans is the start, as the conventions for messaging allow when one message is
processed. If another span is current already, such as that of an instrumented Celery task, the saga's span links to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sagas.progress import EntryStatus
from sagas.telemetry.observer import Observer

if TYPE_CHECKING:
    from sagas.progress import Move
    from sagas.storage.answers import Acquired
    from sagas.storage.records import LogEntry, NewSaga, SagaRecord

#: Outcomes after which a person has to attend to the saga or to this worker.
_ERRORS: Final = frozenset({"failed", "dead", "lost"})
_propagator: Final = TraceContextTextMapPropagator()
#: The span of the saga that runs in this context.
_run: ContextVar[Span | None] = ContextVar("sagas_run_span", default=None)


class Tracing(Observer):
    """Observer that makes spans.

    Args:
        provider: the provider of the tracer; default: the one that the process has set.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("sagas", tracer_provider=provider)

    @contextmanager
    def starting(self, sagas: Sequence[NewSaga]) -> Iterator[str | None]:
        name = sagas[0].name
        about = {"saga.name": name, "saga.id": str(sagas[0].id)} if len(sagas) == 1 else {"saga.name": name}
        with self._tracer.start_as_current_span(f"start {name}", kind=SpanKind.PRODUCER, attributes=about):
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            yield carrier.get("traceparent")

    @contextmanager
    def running(self, acquired: Acquired) -> Iterator[None]:
        parent, links = _parent_and_links(acquired.record.traceparent)
        about = {**_about(acquired.record), "saga.version": acquired.lease.version, "saga.owner": acquired.lease.owner}
        with self._tracer.start_as_current_span(
            f"saga {acquired.record.name}", parent, kind=SpanKind.CONSUMER, attributes=about, links=links
        ) as span:
            token = _run.set(span)
            try:
                yield
            finally:
                _run.reset(token)

    def taken_over(self, saga: SagaRecord) -> None:
        if (span := _run.get()) is not None:
            span.add_event("taken over", {"saga.last_error": saga.last_error or ""})

    @contextmanager
    def acting(self, saga: SagaRecord, move: Move) -> Iterator[None]:
        step, action = move.node.name, str(move.action)
        about = {**_about(saga), "saga.step": step, "saga.action": action, "saga.attempt": move.attempt}
        name = f"receive {step}" if move.node.waits else f"{action} {step}"
        with self._tracer.start_as_current_span(name, attributes=about):
            yield

    def step_ended(self, saga: SagaRecord, entry: LogEntry) -> None:
        # A wait that times out, and a sleep, end without an action, which would have a span.
        waited = any(row.step == entry.step and row.status is EntryStatus.ARMED for row in saga.log)
        by_time = entry.signal is None and entry.error_type in (None, "WaitTimedOut")
        if (span := _run.get()) is not None and waited and by_time:
            span.add_event(entry.message or "slept", {"saga.step": entry.step})

    def waiting(self, saga: SagaRecord, entry: LogEntry) -> None:
        if (span := _run.get()) is not None:
            limit = {} if entry.seconds is None else {"saga.seconds": entry.seconds}
            span.add_event(entry.message or "waits", {"saga.step": entry.step, **limit})

    def given_back(self, saga: SagaRecord, outcome: str) -> None:
        # A saga that was declined before it began has no span here, and the event must not go to another saga's span.
        if (span := _run.get()) is not None:
            span.set_attribute("saga.outcome", outcome)
            if outcome in _ERRORS:
                span.set_status(Status(StatusCode.ERROR, outcome))

    @contextmanager
    def scanning(self) -> Iterator[None]:
        with self._tracer.start_as_current_span("scan sagas"):
            yield

    def scanned(self, results: Mapping[str, int]) -> None:
        trace.get_current_span().set_attributes({f"scan.{result}": number for result, number in results.items()})


_installed: Final = Tracing()


def tracing() -> Observer | None:
    """Return an observer that uses the provider that this process has set; None if it has set none."""
    idle = isinstance(trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
    return None if idle else _installed


def _parent_and_links(traceparent: str | None) -> tuple[Context | None, list[Link]]:
    """Return the context in which a saga's span begins (None for the current one), and the spans that it links to."""
    current = trace.get_current_span().get_span_context()
    started = _propagator.extract({} if traceparent is None else {"traceparent": traceparent}, Context())
    start = trace.get_current_span(started).get_span_context()
    if not start.is_valid or start.trace_id == current.trace_id:
        return None, []
    return trace.set_span_in_context(NonRecordingSpan(start)), [Link(current)] if current.is_valid else []


def _about(saga: SagaRecord) -> dict[str, str | int]:
    return {"saga.id": str(saga.id), "saga.name": saga.name}
