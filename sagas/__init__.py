"""Sagas that survive their worker: durable, fenced, recovered from PostgreSQL."""

from typing import TYPE_CHECKING

from sagas.api import (
    cancel,
    cancel_async,
    configure,
    current_engine,
    find,
    find_async,
    get,
    get_async,
    recover_saga,
    recover_saga_async,
    run,
    run_async,
    send,
    send_async,
    signal,
    signal_async,
    start,
    start_async,
    start_many,
    wait,
    wait_async,
)
from sagas.callbacks import callback_url
from sagas.definition import Call, RetryPolicy, Saga, Sleep, Step, Wait
from sagas.deprecation import former_names
from sagas.engine import SagaEngine
from sagas.errors import OutcomeUnknown, SagaError, WaitTimedOut
from sagas.execution import Report
from sagas.inspection.view import SagaSummary, SagaView
from sagas.progress import SagaStatus
from sagas.schedule import Schedule
from sagas.settings import Settings
from sagas.storage import ISagaStorage, MemorySagaStorage, PostgresSagaStorage
from sagas.storage.records import SagaState

__all__ = [
    "Call",
    "ISagaStorage",
    "MemorySagaStorage",
    "OutcomeUnknown",
    "PostgresSagaStorage",
    "Report",
    "RetryPolicy",
    "Saga",
    "SagaEngine",
    "SagaError",
    "SagaState",
    "SagaStatus",
    "SagaSummary",
    "SagaView",
    "Schedule",
    "Settings",
    "Sleep",
    "Step",
    "Wait",
    "WaitTimedOut",
    "callback_url",
    "cancel",
    "cancel_async",
    "configure",
    "current_engine",
    "find",
    "find_async",
    "get",
    "get_async",
    "recover_saga",
    "recover_saga_async",
    "run",
    "run_async",
    "send",
    "send_async",
    "signal",
    "signal_async",
    "start",
    "start_async",
    "start_many",
    "wait",
    "wait_async",
]

if TYPE_CHECKING:
    SqlAlchemySagaStorage = PostgresSagaStorage
else:
    __getattr__ = former_names(__name__, {"SqlAlchemySagaStorage": (PostgresSagaStorage, "sagas.PostgresSagaStorage")})
