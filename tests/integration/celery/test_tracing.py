"""One trace for one saga, whatever number of processes worked on it, one of them killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sagas import SagaEngine
from sagas.telemetry.tracing import Tracing
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished, wait_for_saga
from tests.integration.celery.samples import Job, ThreeSteps


def test_a_recovery_in_another_process_continues_the_trace_of_the_start(
    celery: Start, engine: SagaEngine, tmp_path: Path
) -> None:
    folder, spans = tmp_path / "marks", tmp_path / "spans"
    folder.mkdir()
    spans.mkdir()
    variables = {"SAGAS_MODULES": "tests.integration.celery.traced_samples", "TEST_SPANS": str(spans)}
    started, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(started))
    engine._observer = Tracing(provider)

    victim = celery("worker", **variables)
    saga_id = engine.start(ThreeSteps, Job(str(folder), gate="second"))
    held = wait_for_saga(engine, saga_id, lambda saga: len(saga.log) == 1, "the second step")
    victim.kill()
    celery("worker", **variables)
    celery("beat")
    wait_for_saga(engine, saga_id, lambda saga: saga.version > held.version, "the takeover")
    (folder / "open").touch()
    wait_finished(engine, saga_id)

    def ended() -> list[dict[str, Any]] | None:
        """The spans of workers, once that of the last run is there: it ends a moment after the saga."""
        found = [json.loads(line) for path in spans.glob("*.jsonl") for line in path.read_text().splitlines()]
        return found if any(span["name"] == "saga three-steps" for span in found) else None

    found = wait_until(ended, what="the span of the last run")
    (start,) = started.get_finished_spans()
    assert start.context is not None
    trace_id = f"0x{start.context.trace_id:032x}"
    of_saga = [span for span in found if span["attributes"].get("saga.id") == str(saga_id)]
    assert {span["context"]["trace_id"] for span in of_saga} == {trace_id}
    # The killed worker's span of the run is lost with it, as is that of the step it was in.
    assert sorted(span["name"] for span in of_saga) == ["act first", "act second", "act third", "saga three-steps"]
    (run,) = (span for span in of_saga if span["name"] == "saga three-steps")
    assert run["parent_id"] == f"0x{start.context.span_id:016x}"
    assert run["attributes"]["saga.outcome"] == "completed"
    assert [event["name"] for event in run["events"]] == ["taken over"]
    second = next(span for span in of_saga if span["name"] == "act second")
    assert second["parent_id"] == run["context"]["span_id"]
    pids = {path.stem for path in spans.glob("*.jsonl") for line in path.read_text().splitlines() if "act " in line}
    assert len(pids) == 2, "two processes acted"
    assert {"scan sagas"} <= {span["name"] for span in found}
