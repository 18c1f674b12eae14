"""What becomes of sagas whose operator is killed, frozen or kept waiting half-way; on PostgreSQL."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
from sagas.storage.statements import PAUSE
from sagas.storage.XXX import PAUSED, Intervention, Release

from sagas.errors import StorageUnavailable
from sagas.progress import SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.postgres.storage import _free_parked
from sagas.storage.records import NewSaga, SagaRecord, note
from tests.calls import claim, held_saga, new_saga, wait_until, writing_to

RETRY = Intervention(
    entry=note("retry", by="ann", because="why"), status=SagaStatus.RUNNING, release=Release(status=SagaStatus.RUNNING)
)


def intervene(storage: PostgresSagaStorage, hold: Hold) -> Refused | None:
    return storage.intervene(hold.saga_id, lambda _: RETRY, owner="ann@pc", max_recovery_attempts=5)


@pytest.fixture
def dead(storage: PostgresSagaStorage) -> Hold:
    """A saga that recovery gave up, and its last hold."""
    hold = held_saga(storage)
    for _ in range(4):
        storage.increment_recovery_attempts(hold.saga_id)
    release = Release(status=SagaStatus.FAILED, failed_attempt=True, max_recovery_attempts=5)
    storage.release(hold, release)
    return hold


def _parked(storage: PostgresSagaStorage, count: int) -> list[NewSaga]:
    sagas = [new_saga() for _ in range(count)]
    storage.create_sagas(sagas, owner=None)
    assert storage.pause("order", by="ann", because="why") == count
    return sagas


def _owners(engine: sa.Engine) -> list[str | None]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT lease_owner FROM saga_executions").scalars())


def test_an_operator_who_is_killed_before_writing_has_changed_nothing(storage: PostgresSagaStorage, dead: Hold):
    before = storage.load(dead.saga_id)

    def die(record: SagaRecord) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    if not (child := os.fork()):
        try:
            storage.intervene(dead.saga_id, die, owner="ann@pc", max_recovery_attempts=5)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert storage.load(dead.saga_id) == before
    assert intervene(storage, dead) is None  # which waits for no lease of the one who died


def test_a_frozen_operator_is_cut_off_and_has_changed_nothing(
    storage: PostgresSagaStorage, dead: Hold, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    before = storage.load(dead.saga_id)
    monkeypatch.setattr(
        "sagas.storage.statements.SHORT_TRANSACTION",
        "SELECT set_config('idle_in_transaction_session_timeout', '100ms', true)",
    )

    def freeze(record: SagaRecord) -> Intervention:
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = %s"
        # Not in a transaction, which would see the activity as it was at its first look.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.exec_driver_sql(gone, (engine.url.database,)).scalar_one())
        return RETRY

    with pytest.raises(StorageUnavailable):
        storage.intervene(dead.saga_id, freeze, owner="ann@pc", max_recovery_attempts=5)

    assert storage.load(dead.saga_id) == before


def test_of_two_operators_one_waits_and_sees_what_the_other_did(storage: PostgresSagaStorage):
    hold = held_saga(storage, for_seconds=0.0)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: intervene(storage, hold), range(8)))

    record = storage.load(hold.saga_id)
    assert results == [None] * 8
    assert [entry.version for entry in record.log] == list(range(2, 10))


def test_a_scan_finishes_what_a_resume_that_was_killed_has_begun(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    _parked(storage, 5)
    monkeypatch.setattr("sagas.storage.sqlalchemy._PARKED_AT_ONCE", 2)
    batches = iter([True])

    def die(_: object) -> int:
        if next(batches, False):
            return 2
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("sagas.storage.sqlalchemy._free_parked", die)
        with pytest.raises(KeyboardInterrupt):
            storage.resume("order")
    assert _owners(engine) == [PAUSED] * 5
    assert storage.pauses() == []

    for _ in range(4):
        storage.claim_sagas(pending=True, limit=10, max_recovery_attempts=5, mark_seconds=60)

    assert _owners(engine) == ["queue"] * 5
    assert _resumes(engine) == []


def test_what_somebody_looks_at_while_its_name_is_resumed_is_freed_by_a_scan(
    storage: PostgresSagaStorage, engine: sa.Engine
):
    saga, _ = _parked(storage, 2)
    with writing_to(engine, saga):  # as a message that came late does, to be told that the saga is paused
        assert storage.resume("order") == 1
    assert storage.load(saga.id).lease_owner == PAUSED

    claim(storage)

    assert storage.load(saga.id).lease_owner is None
    claim(storage)
    assert _resumes(engine) == []


def test_a_pause_while_a_resume_is_under_way_has_the_last_word(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    _parked(storage, 5)
    monkeypatch.setattr("sagas.storage.sqlalchemy._PARKED_AT_ONCE", 1)
    free_a_batch = _free_parked
    batches = count(1)

    def paused_meanwhile(cursor: Any) -> int:
        if next(batches) == 3:
            with engine.begin() as connection:
                connection.exec_driver_sql(PAUSE, {"name": "order", "by": "bob", "because": "why"})
        return free_a_batch(cursor)

    monkeypatch.setattr("sagas.storage.sqlalchemy._free_parked", paused_meanwhile)

    assert storage.resume("order") == 2

    assert _owners(engine).count(PAUSED) == 3
    assert storage.pause("order", by="bob", because="why") == 2


def test_pausing_and_resuming_at_once_leaves_nothing_parked_once_resumed(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sagas.storage.sqlalchemy._PARKED_AT_ONCE", 3)
    storage.create_sagas([new_saga() for _ in range(20)], owner=None)

    def act(number: int) -> None:
        if number % 2:
            storage.resume("order")
        else:
            storage.pause("order", by="ann", because="why")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(20)))
    storage.resume("order")
    claim(storage)

    assert _owners(engine) == [None] * 20


def _resumes(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT name FROM saga_resumes").scalars())
