"""The check at the end of the demo: it finds nothing where all is well, and finds every kind of thing that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagas import SagaStatus
from sagas.demo.check import audit
from sagas.demo.ledger import Books, Entry
from sagas.demo.run import read_orders
from sagas.demo.shop import OPENING_BALANCES, Order

ORDERS = [
    Order(
        order="1",
        customer="Ada",
        sku="lamp",
        pieces=2,
        cents=5980,
        country="Chile",
        ends=SagaStatus.COMPLETED,
        effects=["reserve", "charge", "ship", "notify"],
    ),
    Order(
        order="2",
        customer="Ole",
        sku="rug",
        pieces=1,
        cents=5400,
        country="Atlantis",
        ends=SagaStatus.COMPENSATED,
        effects=["reserve", "charge"],
    ),
]
ENDS = {"1": SagaStatus.COMPLETED, "2": SagaStatus.COMPENSATED}


def entry(order: str, effect: str, account: str, change: int, *, undone: bool = False) -> Entry:
    action = "compensate" if undone else "act"
    return Entry(f"{order}:{effect}:{action}", order, effect, undone, account, change)


ENTRIES = (
    entry("1", "reserve", "lamp", -2),
    entry("2", "reserve", "rug", -1),
    entry("1", "charge", "till", 5980),
    entry("2", "charge", "till", 5400),
    entry("2", "charge", "till", -5400, undone=True),
    entry("1", "ship", "parcels", 1),
    entry("2", "reserve", "rug", 1, undone=True),
    entry("1", "notify", "letters", 1),
)
BALANCES = OPENING_BALANCES | {"lamp": OPENING_BALANCES["lamp"] - 2, "till": 5980, "parcels": 1, "letters": 1}


def books(*entries: Entry, **balances: int) -> Books:
    return Books(entries=entries, balances=BALANCES | balances, requests={})


def without(order: str, effect: str, *, undone: bool = False) -> list[Entry]:
    left = [e for e in ENTRIES if (e.order, e.effect, e.undone) != (order, effect, undone)]
    assert len(left) == len(ENTRIES) - 1
    return left


def test_books_that_are_right_pass() -> None:
    assert audit(ORDERS, ENDS, books(*ENTRIES)) == []


def test_undoing_what_never_happened_is_no_effect() -> None:
    recalled = entry("2", "ship", "parcels", 0, undone=True)
    assert audit(ORDERS, ENDS, books(*ENTRIES, recalled)) == []


def test_a_missing_effect_is_found() -> None:
    assert audit(ORDERS, ENDS, books(*without("1", "charge"))) == [
        "order 1: charge must happen once, and happened never."
    ]


def test_an_effect_that_happened_twice_is_found() -> None:
    again = replace(entry("1", "charge", "till", 5980), key="another")
    assert audit(ORDERS, ENDS, books(*ENTRIES, again)) == ["order 1: charge must happen once, and happened twice."]


def test_a_key_that_took_effect_twice_is_found() -> None:
    (problem, _) = audit(ORDERS, ENDS, books(*ENTRIES, entry("1", "charge", "till", 5980)))
    assert problem == "idempotency key 1:charge:act: it took effect 2 times."


def test_an_effect_that_was_not_undone_is_found() -> None:
    assert audit(ORDERS, ENDS, books(*without("2", "charge", undone=True))) == [
        "order 2: charge must be undone once, and was undone never.",
        "order 2: charge must leave nothing behind, and left till by +5400.",
    ]


def test_an_effect_that_was_undone_in_part_is_found() -> None:
    part = entry("2", "charge", "till", -5000, undone=True)
    assert audit(ORDERS, ENDS, books(*without("2", "charge", undone=True), part)) == [
        "order 2: charge must leave nothing behind, and left till by +5400, till by -5000."
    ]


def test_undoing_what_must_stand_is_found() -> None:
    undone = entry("1", "ship", "parcels", -1, undone=True)
    assert audit(ORDERS, ENDS, books(*ENTRIES, undone)) == ["order 1: ship must stand, and was undone once."]


def test_an_effect_past_the_failed_step_is_found() -> None:
    shipped = entry("2", "ship", "parcels", 1)
    assert "order 2: ship must happen never, and happened once." in audit(ORDERS, ENDS, books(*ENTRIES, shipped))


def test_a_wrong_amount_is_found() -> None:
    cheap = entry("1", "charge", "till", 59)
    assert audit(ORDERS, ENDS, books(*without("1", "charge"), cheap)) == [
        "order 1: charge must change till by +5980, and changed till by +59."
    ]


def test_entries_of_an_order_that_nobody_placed_are_found() -> None:
    assert audit(ORDERS, ENDS, books(*ENTRIES, entry("3", "charge", "till", 1))) == [
        "order 3: there are entries for it, and no line in the file."
    ]


@pytest.mark.parametrize("account", ["lamp", "till", "rug"])
def test_a_balance_that_does_not_add_up_is_found(account: str) -> None:
    (problem,) = audit(ORDERS, ENDS, books(*ENTRIES, **{account: BALANCES[account] + 1}))
    assert problem == f"account {account}: it must hold {BALANCES[account]}, and holds {BALANCES[account] + 1}."


def test_a_saga_that_ended_otherwise_is_found() -> None:
    ends = {"1": SagaStatus.FAILED, "3": SagaStatus.COMPLETED}
    assert audit(ORDERS, ends, books(*ENTRIES)) == [
        "order 1: its saga must end COMPLETED, and it is FAILED.",
        "order 2: its saga must end COMPENSATED, and there is none.",
        "order 3: there is a saga for it, and no line in the file.",
    ]


def test_the_orders_have_every_kind_of_trouble() -> None:
    orders = read_orders()
    assert len({order.order for order in orders}) == len(orders) == 60
    assert sum(order.ends is SagaStatus.COMPENSATED for order in orders) == 9
    assert {order.card for order in orders} == {"ok", "declined", "busy", "answer lost", "request lost"}
    assert {order.mail for order in orders} == {"ok", "busy"}
    assert any(order.sku == "unicorn" for order in orders)
    assert any(order.country == "Atlantis" for order in orders)
