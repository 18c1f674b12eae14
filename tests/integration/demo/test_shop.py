"""The demo's shop: what its services do when they are asked twice, late or for what they do not have."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from sagas import MemorySagaStorage, SagaEngine
from sagas.demo import shop
from sagas.demo.check import audit
from sagas.demo.ledger import Cancelled, Ledger, Overdrawn, ledger_at
from sagas.demo.run import read_orders
from sagas.demo.shop import DATABASE_VARIABLE, OPENING_BALANCES, PlaceOrder


@pytest.fixture
def ledger(empty_database_url: str) -> Iterator[Ledger]:
    with ledger_at(empty_database_url) as ledger:
        ledger.open(OPENING_BALANCES)
        yield ledger


def test_repeated_requests_take_effect_once(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.enter("key", order="1", effect="charge", account="till", change=5)
    for _ in range(3):
        ledger.undo("another", order="1", effect="charge", account="till")
    books = ledger.read()
    assert [entry.change for entry in books.entries] == [5, -5]
    assert books.balances["till"] == 0


def test_an_effect_that_arrives_after_its_undoing_is_refused(ledger: Ledger) -> None:
    ledger.undo("undo", order="1", effect="charge", account="till")
    with pytest.raises(Cancelled):
        ledger.enter("act", order="1", effect="charge", account="till", change=5)
    assert ledger.read().balances["till"] == 0


def test_what_an_account_lacks_cannot_be_taken(ledger: Ledger) -> None:
    with pytest.raises(Overdrawn):
        ledger.enter("key", order="1", effect="reserve", account="unicorn", change=-1)
    assert ledger.read().entries == ()


def test_requests_are_counted_by_key(ledger: Ledger) -> None:
    key = str(uuid4())
    assert [ledger.requested(key) for _ in range(3)] == [1, 2, 3]
    assert ledger.read().requests == {key: 3}


def test_all_orders_end_as_their_file_says_when_nobody_is_killed(
    ledger: Ledger, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, empty_database_url)
    monkeypatch.setattr(shop, "_seconds", lambda order, call: 0.0)
    engine = SagaEngine(MemorySagaStorage())
    orders = read_orders()
    ends = {order.order: engine.run(PlaceOrder, order).status for order in orders}
    assert audit(read_orders(), ends, ledger.read()) == []
