"""Transactional steps behind a PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.transactional import StepInTransaction
from tests.integration.transactional.accounts import KINDS, Accounts, Transfer, paying
from tests.pgbouncer import PgBouncerServer, installed
from tests.samples import QuickEngine, saga_of

PROGRAM = installed()
if PROGRAM is None:
    pytest.skip("pgbouncer is not installed (Debian, Ubuntu: apt install pgbouncer)", allow_module_level=True)


@pytest.fixture(scope="module")
def pooler(server_url: sa.URL, server_directory: Path) -> Iterator[PgBouncerServer]:
    assert PROGRAM is not None
    directory = server_directory / "pgbouncer-steps"
    with PgBouncerServer(directory, program=PROGRAM, server=server_url, pool_size=2) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_steps_commit_and_compensate_behind_a_pooler(
    accounts: Accounts, pooler: PgBouncerServer, kind: type[StepInTransaction[Any]]
) -> None:
    storage = PostgresSagaStorage(pooler.url(sa.make_url(accounts.url).database))
    engine = QuickEngine(storage)
    refused: list[bool] = []

    def refuse(*_: Any) -> None:
        refused.append(True)
        raise ValueError("no")

    completes = saga_of([paying(kind), paying(kind, name="again")], context=Transfer)
    compensates = saga_of([paying(kind), paying(kind, refuse, name="again")], context=Transfer, name="compensates")
    for _ in range(10):  # more often than psycopg runs a statement before it prepares it
        assert engine.run(completes, Transfer()).outcome == "completed"
        assert engine.run(compensates, Transfer()).outcome == "compensated"

    assert accounts.balance() == 200
    assert accounts.entries == [10, 10, 10, -10] * 10
    storage.close()
