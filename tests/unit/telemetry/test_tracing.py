"""Spans of starts, runs, steps and scans, as the SDK collects them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sagas import MemorySagaStorage, RetryPolicy
from sagas.definition import Part
from sagas.storage.records import utc_now
from sagas.telemetry.tracing import Tracing
from tests.samples import DEADLINE_SECONDS, Clock, FakeDispatcher, QuickEngine, Stage, Trip, always
from tests.unit.test_waits import CoolingOff, Courier


class Traced:
    """An engine whose spans are collected, as is whatever its steps trace."""

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self.provider, self._exporter = TracerProvider(), InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")
        self.storage = MemorySagaStorage(clock)
        self.dispatcher = FakeDispatcher()
        self.engine = QuickEngine(self.storage, observer=Tracing(self.provider), dispatcher=self.dispatcher)

    def spans(self) -> dict[str, ReadableSpan]:
        """The spans so far, by name; of those with one name the last."""
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Traced:
    return Traced()


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def test_a_start_is_part_of_the_callers_trace_and_every_run_of_that(traced: Traced, stage: Stage) -> None:
    hotel = stage.step("hotel", [ConnectionError("full")], retry=RetryPolicy(max_attempts=2, first_delay=60))
    with traced.tracer.start_as_current_span("request"):
        saga_id = traced.engine.start(stage.saga("flight", hotel), Trip())
    traced.engine.recover(saga_id)
    first = traced.spans()
    traced.storage.set_recovery_attempts(saga_id, 0)
    traced.engine.recover(saga_id, by_hand=True)
    second = traced.spans()

    request, start = first["request"], first["start trip"]
    assert (parent(start), start.kind) == (ids(request), SpanKind.PRODUCER)
    for spans, outcome in ((first, "waiting"), (second, "completed")):
        run = spans["saga trip"]
        assert parent(run) == ids(start)
        assert run.attributes is not None
        assert (run.attributes["saga.id"], run.attributes["saga.name"]) == (str(saga_id), "trip")
        assert run.attributes["saga.outcome"] == outcome
    attempt = second["act hotel"]
    assert parent(attempt) == ids(second["saga trip"])
    assert attempt.attributes == {
        "saga.id": str(saga_id),
        "saga.name": "trip",
        "saga.step": "hotel",
        "saga.action": "act",
        "saga.attempt": 2,
    }
    failed = first["act hotel"]
    assert failed.status.status_code is StatusCode.ERROR
    assert [event.name for event in failed.events] == ["exception"]


def test_a_start_outside_any_trace_begins_one(traced: Traced, stage: Stage) -> None:
    saga_id = traced.engine.start(stage.saga("flight"), Trip())
    traced.engine.recover(saga_id)

    spans = traced.spans()
    assert parent(spans["start trip"]) is None
    assert parent(spans["saga trip"]) == ids(spans["start trip"])


def test_a_saga_that_was_started_without_a_trace_has_one_for_each_run(traced: Traced, stage: Stage) -> None:
    saga_id = QuickEngine(traced.storage).start(stage.saga("flight"), Trip())
    assert traced.storage.load(saga_id).traceparent is None
    traced.engine.registry.add(stage.saga("flight"))

    traced.engine.recover(saga_id)

    assert parent(traced.spans()["saga trip"]) is None


def test_a_run_inside_anothers_span_links_to_it_unless_it_is_of_the_same_trace(traced: Traced, stage: Stage) -> None:
    saga_id = traced.engine.start(stage.saga("flight"), Trip())
    with traced.tracer.start_as_current_span("task") as task:
        traced.engine.recover(saga_id)
        assert trace.get_current_span() is task, "the span of an instrumented Celery task is what it was"
    run = traced.spans()["saga trip"]
    assert parent(run) == ids(traced.spans()["start trip"])
    assert [link.context.span_id for link in run.links] == [task.get_span_context().span_id]

    with traced.tracer.start_as_current_span("request"):
        traced.engine.run(stage.saga("flight", name="here"), Trip())
    run = traced.spans()["saga here"]
    assert parent(run) == ids(traced.spans()["request"])
    assert not run.links


@pytest.mark.parametrize("timeout", [None, DEADLINE_SECONDS])
def test_what_a_step_traces_is_part_of_its_span(traced: Traced, stage: Stage, timeout: float | None) -> None:
    def ask(*_: object) -> None:
        traced.tracer.start_span("sync call").end()

    async def ask_later(*_: object) -> None:
        traced.tracer.start_span("async call").end()

    steps = (stage.step("hotel", [ask], timeout=timeout), stage.step("flight", [ask_later], timeout=timeout))
    traced.engine.run(stage.saga(*steps), Trip())

    spans = traced.spans()
    assert parent(spans["sync call"]) == ids(spans["act hotel"])
    assert parent(spans["async call"]) == ids(spans["act flight"])


def test_a_run_that_fails_is_an_error_and_one_that_turns_back_is_not(traced: Traced, stage: Stage) -> None:
    traced.engine.run(stage.saga("flight", stage.step("car", always(ValueError("no"))), name="back"), Trip())
    flight = stage.step("flight", (), always(RuntimeError("nor back")))
    traced.engine.run(stage.saga(flight, stage.step("hotel", always(ValueError("no"))), name="fails"), Trip())

    assert traced.spans()["saga back"].status.status_code is StatusCode.UNSET
    assert traced.spans()["saga fails"].status.status_code is StatusCode.ERROR


def test_a_declined_saga_leaves_anothers_span_alone(traced: Traced, stage: Stage) -> None:
    saga_id = QuickEngine(traced.storage).start(stage.saga("flight", name="unknown"), Trip())
    with traced.tracer.start_as_current_span("task"):
        assert traced.engine.recover(saga_id).outcome == "declined"

    task = traced.spans()["task"]
    assert not task.attributes
    assert task.status.status_code is StatusCode.UNSET


def test_a_scan_tells_what_it_did(traced: Traced, stage: Stage) -> None:
    traced.dispatcher.capacity = 0
    traced.engine.start(stage.saga("flight"), Trip())
    traced.dispatcher.capacity = None
    traced.engine.scan()

    assert traced.spans()["scan sagas"].attributes == {
        "scan.dispatched": 1,
        "scan.died": 0,
        "scan.missing": 0,
        "scan.unsent": 0,
    }


RUN = """
import sys
from dataclasses import dataclass
{first}
from sagas import Call, MemorySagaStorage, Saga, SagaEngine, Step
from sagas.telemetry.observer import NullObserver

@dataclass
class Context:
    pass

class Only(Step[Context]):
    def act(self, context: Context, call: Call) -> None:
        pass

class Short(Saga[Context]):
    steps = [Only]

engine = SagaEngine(MemorySagaStorage())
assert engine.runtime().observer.__class__ is NullObserver
report = engine.run(Short, Context())
assert engine.storage.load(report.saga_id).traceparent is None
print(report.status, "opentelemetry" in sys.modules, "prometheus_client" in sys.modules)
"""


@pytest.mark.parametrize(
    ("first", "imported"),
    [
        ("", False),
        ("from opentelemetry import trace", True),
    ],
    ids=["nothing imports it", "nothing sets a provider"],
)
def test_without_a_provider_nobody_is_told(first: str, imported: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(first=first)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["COMPLETED", str(imported), "False"], done.stderr


def happened(span: ReadableSpan) -> list[tuple[str, dict[str, object]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def test_a_wait_is_an_event_of_the_run_and_receiving_a_signal_has_a_span(traced: Traced, stage: Stage) -> None:
    saga_id = traced.engine.run(stage.saga(Courier, CoolingOff), Trip()).saga_id
    assert happened(traced.spans()["saga trip"]) == [
        ("waits for a signal", {"saga.step": "courier", "saga.seconds": 172_800.0})
    ]

    traced.engine.signal(saga_id, "courier", {"courier": "ann"})
    traced.engine.recover(saga_id, by_hand=True)

    assert happened(traced.spans()["saga trip"]) == [("sleeps", {"saga.step": "cooling-off", "saga.seconds": 3600.0})]
    assert parent(traced.spans()["receive courier"]) == ids(traced.spans()["saga trip"])


@pytest.mark.parametrize(
    ("wait", "seconds", "event"),
    [(Courier, 172_800, "no signal came in time"), (CoolingOff, 3600, "slept")],
)
def test_a_wait_that_time_ends_is_an_event_too(
    stage: Stage, wait: type[Part], seconds: float, event: str, clock: Clock
) -> None:
    traced = Traced(clock)
    saga_id = traced.engine.run(stage.saga(wait), Trip()).saga_id
    clock.forward(seconds)
    traced.engine.recover(saga_id)

    assert happened(traced.spans()["saga trip"]) == [(event, {"saga.step": wait.name})]
