"""What a user's module does to have spans from workers: set a provider up in each process that runs sagas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from tests.integration.celery.samples import ThreeSteps

__all__ = ["ThreeSteps"]


@worker_process_init.connect(weak=False)
def _export(**_: Any) -> None:
    out = (Path(os.environ["TEST_SPANS"]) / f"{os.getpid()}.jsonl").open("a", buffering=1)

    def line(span: ReadableSpan) -> str:
        return str(span.to_json(indent=None)) + "\n"

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
    trace.set_tracer_provider(provider)
