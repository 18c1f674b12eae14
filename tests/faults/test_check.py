"""Test the checker and the shop of the fault runs: sagas run undisturbed, and then the ledger is falsified."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from sagas import PostgresSagaStorage, SagaEngine
from tests.faults import shop
from tests.faults.check import STEPS, Findings, check
from tests.faults.cluster import libpq
from tests.faults.shop import FaultyOrder, Order

#: Each way to fail, and whether the saga is then undone.
FAILURES = {"clean": True, "doubt": True, "late": True, "flaky": False, "undo": False}


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database of the sagas and of the ledger."""
    url = libpq(database_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(shop.LEDGER)
        connection.execute(shop.BOOKS)
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setattr(shop._local, "pid", None, raising=False)
    return url


@pytest.fixture
def started(url: str, storage: PostgresSagaStorage) -> dict[UUID, Order]:
    """Start one saga for each way to fail."""
    engine = SagaEngine(storage)
    runs = [{}, *({step: how} for how in FAILURES for step in (STEPS[2], shop.Post.name))]
    return {engine.run(FaultyOrder, Order(failing=failing)).saga_id: Order(failing=failing) for failing in runs}


@pytest.fixture
def findings(url: str, started: dict[UUID, Order]) -> Callable[..., Findings]:
    """Falsify the ledger of the first saga, which completed, and check all sagas."""
    first = next(iter(started))

    def falsified(statement: str = "SELECT") -> Findings:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement, {"saga": first, "step": STEPS[0]})
        return check(url, url, started, set(), max_attempts=5)

    return falsified


def test_sagas_that_fail_in_every_way_are_as_they_must_be(findings: Callable[..., Findings]) -> None:
    assert findings().all() == []


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("lost", "DELETE FROM effects WHERE saga_id = %(saga)s AND step = %(step)s"),
        ("lost", "UPDATE effects SET present = false WHERE saga_id = %(saga)s AND step = %(step)s"),
        ("lost", "DELETE FROM saga_executions WHERE id = %(saga)s"),
        ("doubled", "UPDATE effects SET results = 2 WHERE saga_id = %(saga)s AND step = %(step)s"),
        ("doubled", "INSERT INTO effects VALUES ('another key', %(saga)s, %(step)s, true, 1, 1)"),
        (
            "lost",
            "WITH gone AS (DELETE FROM postings WHERE saga_id = %(saga)s RETURNING account) "
            "UPDATE balances b SET balance = balance - 1 FROM gone WHERE b.account = gone.account",
        ),
        (
            "doubled",
            "WITH one AS (INSERT INTO postings SELECT * FROM postings WHERE saga_id = %(saga)s RETURNING "
            "account) UPDATE balances b SET balance = balance + 1 FROM one WHERE b.account = one.account",
        ),
        ("wrong", "UPDATE balances SET balance = balance + 1 WHERE account = 3"),
        ("wrong", "UPDATE saga_executions SET status = 'COMPENSATED' WHERE id = %(saga)s"),
        ("stuck", "UPDATE saga_executions SET status = 'RUNNING', finished_at = NULL WHERE id = %(saga)s"),
    ],
)
def test_what_does_not_add_up_is_found(kind: str, statement: str, findings: Callable[..., Findings]) -> None:
    found = vars(findings(statement))
    assert [name for name, list_ in found.items() if list_] == [kind]


def test_an_effect_that_was_undone_before_it_arrived_never_takes_place(url: str) -> None:
    effect = {"key": "key", "saga": UUID(int=1), "step": STEPS[0]}
    for statement in (shop.UNDO, shop.ACT, shop.ACT):
        shop.ledger(statement, effect)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT present, results FROM effects").fetchall() == [(False, 0)]
