"""Helpers for the tests of a Django project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sagas import api
from sagas.engine import SagaEngine
from sagas.outbox import OutboxTask
from sagas.plugins import installed_dispatcher
from sagas.storage.memory import MemorySagaStorage
from sagas.storage.records import Claim, NewSaga, Signal


@contextmanager
def sagas_in_memory() -> Iterator[SagaEngine]:
    """Keep sagas in memory in this block, and run each in this process once the transaction that started it commits.

    Steps then see the rows of a `TestCase`. Its transaction is never committed, so use
    `captureOnCommitCallbacks(execute=True)`: sagas run at the end of its block. Steps with a `timeout` and async steps
    run in other threads and see committed rows only, so they need a `TransactionTestCase`. A saga whose transaction is
    rolled back does not run, but stays in memory as PENDING.

    Yields:
        The engine, whose `storage` has the sagas.
    """
    storage = _InMemory()
    runs_here = _RunsHere()
    engine = api.new_engine(storage=lambda _: storage, dispatcher=runs_here)
    runs_here.engine = engine
    api.configure(engine)
    try:
        yield engine
    finally:
        api.configure(None)


class _InMemory(MemorySagaStorage):
    # The storage in memory has no transactions, so what a transaction that is rolled back has stored stays.

    def create_sagas(self, sagas: Sequence[NewSaga], **options: Any) -> list[tuple[UUID, bool]]:
        return super().create_sagas(sagas, **{**options, "connection": None})

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        return super().add_signal(signal)


class _RunsHere:
    """A dispatcher that runs sagas instead of sending them."""

    engine: SagaEngine

    def send(self, claims: Sequence[Claim]) -> int:
        for claim in claims:
            self.engine.recover(claim.saga_id, version=claim.version)
        return len(claims)

    def enqueue(self, tasks: Sequence[OutboxTask]) -> Sequence[int]:
        # The application's settings for tests say what sending means; task_always_eager runs them.
        dispatcher = installed_dispatcher()
        return [] if dispatcher is None else dispatcher.enqueue(tasks)
