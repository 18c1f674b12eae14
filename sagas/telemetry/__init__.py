"""Metrics, traces, and log lines that carry the saga's id."""

from sagas.telemetry.logs import SagaAttributes
from sagas.telemetry.observer import Observer

__all__ = ["Observer", "SagaAttributes"]
