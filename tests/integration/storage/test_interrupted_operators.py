"""What becomes of sagas whose operator is killed, frozen or kept waiting half-way; on PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NoReturn

import pytest
import sqlalchemy as sa

from sagas.errors import StorageUnavailable
from sagas.progress import SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.answers import Applied, NotAcquired
from sagas.storage.leases import Lease
from sagas.storage.postgres.queries import query
from sagas.storage.records import NewSaga, SagaRecord, SagaState, note
from sagas.storage.transitions import FailedAttempt, GaveBack
from tests.calls import claim, held_saga, new_saga, wait_until, writing_to

RETRY = GaveBack(events=(note("retry", actor="ann", reason="why"),), status=SagaStatus.RUNNING)


def retry(storage: PostgresSagaStorage, lease: Lease) -> Applied | NotAcquired:
    return storage.operate(lease.saga_id, lambda _: RETRY, owner="ann@pc", max_recovery_attempts=5)


@pytest.fixture
def dead(storage: PostgresSagaStorage) -> Lease:
    """A saga that recovery gave up, and its last lease."""
    lease = held_saga(storage)
    for _ in range(4):
        storage.increment_recovery_attempts(lease.saga_id)
    storage.apply(lease, FailedAttempt(events=(), after_seconds=0.0, max_recovery_attempts=5))
    return lease


def _paused(storage: PostgresSagaStorage, count: int) -> list[NewSaga]:
    sagas = [new_saga() for _ in range(count)]
    storage.create_sagas(sagas)
    assert storage.pause("order", actor="ann", reason="why") == count
    return sagas


def _before_batch(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something before this batch of what a resume frees."""
    batches = count(1)

    def looked_up(name: str) -> str:
        if name == "free_resumed" and next(batches) == number:
            act()
        return query(name)

    patch.setattr("sagas.storage.postgres.pausing.query", looked_up)


def _states(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT state FROM saga_executions").scalars())


def test_an_operator_who_is_killed_before_writing_has_changed_nothing(storage: PostgresSagaStorage, dead: Lease):
    before = storage.load(dead.saga_id)

    def die(record: SagaRecord) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    if not (child := os.fork()):
        try:
            storage.operate(dead.saga_id, die, owner="ann@pc", max_recovery_attempts=5)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert storage.load(dead.saga_id) == before
    assert isinstance(retry(storage, dead), Applied)  # which waits for no lease of the one who died


def test_a_frozen_operator_is_cut_off_and_has_changed_nothing(
    storage: PostgresSagaStorage, dead: Lease, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    before = storage.load(dead.saga_id)
    short = "SELECT set_config('idle_in_transaction_session_timeout', '100ms', true)"
    monkeypatch.setattr(
        "sagas.storage.postgres.holding.query", lambda name: short if name == "short_transaction" else query(name)
    )

    def freeze(record: SagaRecord) -> GaveBack:
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = %s"
        # Not in a transaction, which would see the activity as it was at its first look.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.exec_driver_sql(gone, (engine.url.database,)).scalar_one())
        return RETRY

    with pytest.raises(StorageUnavailable):
        storage.operate(dead.saga_id, freeze, owner="ann@pc", max_recovery_attempts=5)

    assert storage.load(dead.saga_id) == before


def test_of_two_operators_one_waits_and_sees_what_the_other_did(storage: PostgresSagaStorage):
    lease = held_saga(storage, for_seconds=0.0)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: retry(storage, lease), range(8)))

    record = storage.load(lease.saga_id)
    assert all(isinstance(result, Applied) for result in results)
    assert [entry.step for entry in record.log] == ["holder"] + ["retry"] * 8
    assert [entry.version for entry in record.log] == list(range(1, 10))


def test_a_scan_finishes_what_a_resume_that_was_killed_has_begun(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    _paused(storage, 5)
    monkeypatch.setattr("sagas.storage.postgres.pausing._PAUSED_AT_ONCE", 2)

    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        _before_batch(killed, 2, die)
        with pytest.raises(KeyboardInterrupt):
            storage.resume("order")
    assert sorted(_states(engine)) == ["paused"] * 3 + ["ready"] * 2
    assert storage.pauses() == []

    for _ in range(4):
        storage.claim_sagas(pending=True, limit=10, max_recovery_attempts=5)

    assert _states(engine) == ["queued"] * 5


def test_what_somebody_looks_at_while_its_name_is_resumed_is_freed_by_a_scan(
    storage: PostgresSagaStorage, engine: sa.Engine
):
    saga, _ = _paused(storage, 2)
    with writing_to(engine, saga):  # as a message that came late does, to be told that the saga is paused
        assert storage.resume("order") == 1
    assert storage.load(saga.id).state is SagaState.PAUSED

    claim(storage)

    assert storage.load(saga.id).state is SagaState.READY


def test_a_pause_while_a_resume_is_under_way_has_the_last_word(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    _paused(storage, 5)
    monkeypatch.setattr("sagas.storage.postgres.pausing._PAUSED_AT_ONCE", 1)

    def pause() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(query("pause"), {"name": "order", "actor": "bob", "reason": "why"})

    _before_batch(monkeypatch, 3, pause)

    assert storage.resume("order") == 2

    assert _states(engine).count("paused") == 3
    assert storage.pause("order", actor="bob", reason="why") == 2


def test_pausing_and_resuming_at_once_leaves_nothing_paused_once_resumed(
    storage: PostgresSagaStorage, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sagas.storage.postgres.pausing._PAUSED_AT_ONCE", 3)
    storage.create_sagas([new_saga() for _ in range(20)])

    def act(number: int) -> None:
        if number % 2:
            storage.resume("order")
        else:
            storage.pause("order", actor="ann", reason="why")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(20)))
    storage.resume("order")
    claim(storage)

    assert _states(engine) == ["ready"] * 20
