"""The crash matrix of sagas with fallbacks."""

from __future__ import annotations

from typing import Any

import pytest

from sagas import Call, RetryPolicy, Saga, SagaStatus
from sagas.testing.crashes import Fault, Outcome, crash_matrix
from tests.unit.testing.shop import Notify, Order, Reserve, Shop, ShopStep, bugs, saga, step


def open_account(self: Any, order: Order, call: Call) -> None:
    self.shop.charges[call.step_name] = 99


def close_account(self: Any, order: Order, call: Call) -> None:
    self.shop.charges.pop(call.step_name, None)


class PayLater(ShopStep):
    act, compensate = open_account, close_account
    retry = RetryPolicy(max_attempts=2)


class PayByInvoice(ShopStep):
    act, compensate = open_account, close_account
    fallback = PayLater


class PayByCard(ShopStep):
    act, compensate = open_account, close_account
    retry = RetryPolicy(max_attempts=2, first_delay=60)
    fallback = PayByInvoice


class Buy(Saga[Order]):
    steps = [Reserve, PayByCard, Notify]


def test_a_saga_with_a_chain_of_fallbacks_survives() -> None:
    ends: set[tuple[str, SagaStatus]] = set()

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        ends.add((str(outcome.plan.failure), outcome.status))
        paid = outcome.status is SagaStatus.COMPLETED
        assert bool(shop.charges) is paid
        assert shop.stock["lamp"] == (8 if paid else 10)

    matrix = crash_matrix(Buy, Order, world=Shop, check=check, pairs=False)

    assert {
        ("pay-by-card fails", SagaStatus.COMPLETED),
        ("pay-by-card fails, then pay-by-invoice fails", SagaStatus.COMPLETED),
        ("pay-by-card fails, then pay-by-invoice fails, then pay-later fails", SagaStatus.COMPENSATED),
        ("pay-by-card fails, then pay-by-invoice fails, then pay-later fails once", SagaStatus.COMPLETED),
        ("pay-by-card fails, then notify fails", SagaStatus.COMPENSATED),
        (
            "pay-by-card takes effect, but its answer is lost, then pay-by-invoice fails, then pay-later fails",
            SagaStatus.COMPENSATED,
        ),
    } <= ends
    crashes = [str(crash) for plan in matrix.plans for crash in plan.crashes]
    assert any(crash.startswith("before the checkpoint of compensate of pay-by-invoice") for crash in crashes)


def test_a_saga_with_a_fallback_survives_two_crashes() -> None:
    pay = step("pay", open_account, close_account, fallback=PayLater)

    assert bugs(saga(Reserve, pay, Notify), pairs=True) == set()


def test_a_compensation_may_leave_a_mark_against_a_late_request() -> None:
    def refuse_from_now_on(self: Any, order: Order, call: Call) -> None:
        close_account(self, order, call)
        self.shop.letters = sorted({*self.shop.letters, call.step_name})

    wallet = step("wallet", open_account, refuse_from_now_on)
    card = step("card", open_account, refuse_from_now_on, fallback=wallet)

    assert bugs(saga(Reserve, card, Notify)) == set()


@pytest.mark.slow(10)
def test_fallbacks_of_a_pivot_and_of_a_step_after_it_survive() -> None:
    parcel = step("parcel", open_account, pivot=True)
    courier = step("courier", open_account, pivot=True, fallback=parcel)
    letter = step("letter", open_account)
    mail = step("mail", open_account, fallback=letter)
    done: dict[str, tuple[SagaStatus, set[str]]] = {}

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        done[str(outcome.plan.failure)] = outcome.status, set(shop.charges)

    crash_matrix(saga(Reserve, courier, mail), Order, world=Shop, check=check, pairs=False)

    assert done["courier fails"] == (SagaStatus.COMPLETED, {"parcel", "mail"})
    assert done["courier fails, then parcel fails"] == (SagaStatus.COMPENSATED, set())
    assert done["mail fails"] == done["mail fails, then letter fails"] == (SagaStatus.COMPLETED, {"courier", "letter"})


def test_an_unsafe_compensation_of_a_fallback_is_found() -> None:
    def refund(self: Any, order: Order, call: Call) -> None:
        if call.step_name in self.shop.charges:
            self.shop.refunds[order.id] = self.shop.refunds.get(order.id, 0) + 99

    wallet = step("wallet", open_account, refund)
    card = step("card", open_account, close_account, fallback=wallet)

    assert bugs(saga(Reserve, card, Notify)) == {(Fault.COMPENSATION_NOT_REPEATABLE, "wallet")}


def test_a_step_in_doubt_that_its_fallback_outlives_is_undone() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        open_account(self, order, call)
        order.charge = call.step_name

    def compensate(self: Any, order: Order, call: Call) -> None:
        if order.charge is not None:  # wrong: the answer of act may be lost
            close_account(self, order, call)

    wallet = step("wallet", open_account, close_account)
    card = step("card", act, compensate, fallback=wallet)

    assert (Fault.ANSWER_LOST, "card") in bugs(saga(Reserve, card, Notify))


def test_an_effect_in_doubt_beside_that_of_the_fallback_shows_in_the_check() -> None:
    wallet = step("wallet", open_account, close_account)
    card = step("card", open_account, close_account, fallback=wallet)

    def paid_once(shop: Shop, outcome: Outcome[Order]) -> None:
        assert len(shop.charges) <= 1

    with pytest.raises(AssertionError, match="card takes effect, but its answer is lost"):
        crash_matrix(saga(Reserve, card, Notify), Order, world=Shop, check=paid_once, pairs=False)


def test_a_fallback_that_undoes_what_is_in_doubt_pays_once() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.shop.charges.pop("card", None)
        open_account(self, order, call)

    wallet = step("wallet", act, close_account)
    card = step("card", open_account, close_account, fallback=wallet)

    def paid_once(shop: Shop, outcome: Outcome[Order]) -> None:
        assert len(shop.charges) == (outcome.status is SagaStatus.COMPLETED)

    crash_matrix(saga(Reserve, card, Notify), Order, world=Shop, check=paid_once, pairs=False)
