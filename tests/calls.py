"""Calls of a storage with the usual arguments, and actions on a database in the meantime."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from sagas.ids import new_saga_id
from sagas.storage import PostgresSagaStorage
from sagas.storage.answers import Acquired, ClaimResult, NotAcquired
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, SagaRecord

DEADLINE_SECONDS: Final = 60


def new_saga(key: str | None = None) -> NewSaga:
    """Return a saga to be stored."""
    return NewSaga(id=new_saga_id(), name="order", context='{"n": 1}', idempotency_key=key)


def held_saga(storage: PostgresSagaStorage, *, for_seconds: float = 60.0, key: str | None = None) -> Lease:
    """Start a saga under its first lease; with 0 seconds the lease has expired."""
    saga, request = new_saga(key), LeaseRequest(owner="worker-1", seconds=for_seconds)
    storage.create_sagas([saga], lease=request)
    return Lease(saga.id, 1, request.owner, request.token)


@contextmanager
def writing_to(engine: sa.Engine, saga: NewSaga | SagaRecord) -> Iterator[None]:
    """Lock the saga's row in the block, as a running statement does."""
    with engine.begin() as writer:
        writer.exec_driver_sql("UPDATE saga_executions SET version = version WHERE id = %s", (saga.id,))
        yield


def acquire(storage: PostgresSagaStorage, lease: Lease, *, by_hand: bool = False) -> Acquired | NotAcquired:
    """Acquire the saga for another worker."""
    request = LeaseRequest(owner="worker-2", seconds=60)
    return storage.acquire(lease.saga_id, request, max_recovery_attempts=5, by_hand=by_hand)


def claim(storage: PostgresSagaStorage, *, pending: bool = False, limit: int = 10) -> ClaimResult:
    """Scan."""
    return storage.claim_sagas(pending=pending, limit=limit, max_recovery_attempts=5)


def wait_until(happened: Callable[[], Any]) -> None:
    """Wait until the condition is true, with a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def backends(engine: sa.Engine, condition: str, what: str = "pid") -> list[Any]:
    """Return this database's other sessions for which the condition is true."""
    query = f"SELECT {what} FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(f"{query} AND pid <> pg_backend_pid()").scalars())


def cut_all(engine: sa.Engine, database_url: str) -> int:
    """Terminate every session of another database, as a restart of the server does; return their number."""
    query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name"
    with engine.connect() as connection:
        cut = connection.execute(sa.text(query), {"name": sa.make_url(database_url).database}).scalars().all()
    assert all(cut)
    return len(cut)
