"""Sagas that survive their worker: durable, fenced, recovered from PostgreSQL."""

from typing import TYPE_CHECKING

from sagas.api import (
    configure,
    current_engine,
    recover_saga,
    recover_saga_async,
    run,
    run_async,
    send,
    send_async,
    start,
    start_async,
    start_many,
)
from sagas.definition import Call, RetryPolicy, Saga, Step
from sagas.deprecation import former_names
from sagas.engine import SagaEngine
from sagas.errors import OutcomeUnknown, SagaError
from sagas.execution import Report
from sagas.progress import SagaStatus
from sagas.settings import Settings
from sagas.storage import ISagaStorage, MemorySagaStorage, PostgresSagaStorage
from sagas.transactional import PsycopgStep, TransactionalStep

__all__ = [
    "Call",
    "ISagaStorage",
    "MemorySagaStorage",
    "OutcomeUnknown",
    "PostgresSagaStorage",
    "PsycopgStep",
    "Report",
    "RetryPolicy",
    "Saga",
    "SagaEngine",
    "SagaError",
    "SagaStatus",
    "Settings",
    "Step",
    "TransactionalStep",
    "configure",
    "current_engine",
    "recover_saga",
    "recover_saga_async",
    "run",
    "run_async",
    "send",
    "send_async",
    "start",
    "start_async",
    "start_many",
]

if TYPE_CHECKING:
    SqlAlchemySagaStorage = PostgresSagaStorage
else:
    __getattr__ = former_names(__name__, {"SqlAlchemySagaStorage": (PostgresSagaStorage, "sagas.PostgresSagaStorage")})
