"""What else the crash matrix finds: steps in doubt, checks, and tests that cannot work."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from sagas import Call, OutcomeUnknown, RetryPolicy, SagaStatus
from sagas.testing.crashes import CrashMatrixFailed, Fault, Outcome, crash_matrix
from tests.unit.testing.shop import (
    Charge,
    Notify,
    Order,
    PlaceOrder,
    Reserve,
    Shop,
    bugs,
    findings,
    saga,
    step,
)


def test_a_compensation_that_undoes_what_never_happened_is_found() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] += order.pieces

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.UNDOES_BLINDLY, "reserve")
    assert str(finding.plan) == "reserve is cut off before it takes effect"
    assert finding.left_behind == "world.stock['lamp'] is 12 instead of 10"


def test_a_compensation_that_cannot_bear_that_nothing_happened_is_found_once() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        if order.id not in self.shop.held:
            raise LookupError("never reserved")
        if self.shop.is_new(call):
            self.shop.stock["lamp"] += order.pieces

    (finding,) = findings(saga(step("reserve", Reserve.act, give_back), Charge))

    assert (finding.fault, finding.step) == (Fault.UNDOES_BLINDLY, "reserve")
    assert "LookupError: never reserved" in finding.left_behind


def test_a_compensation_that_needs_the_answer_of_act_is_found() -> None:
    def refund(self: Any, order: Order, call: Call) -> None:
        if order.charge and self.shop.is_new(call):
            self.shop.refunds[order.id] = 99

    (finding,) = findings(saga(Reserve, step("charge", Charge.act, refund), Notify))

    assert (finding.fault, finding.step) == (Fault.ANSWER_LOST, "charge")
    assert str(finding.plan) == "charge takes effect, but its answer is lost"
    assert finding.left_behind == "world.refunds['o-1'] is missing (99); world.seen{'charge:compensate'} is missing"


def test_a_compensation_that_always_raises_is_found_once() -> None:
    def refuse(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such order")

    (finding,) = findings(saga(step("reserve", Reserve.act, refuse), Charge, Notify))

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "reserve")
    assert finding.left_behind == "ended dead (reserve, compensate, attempt 5: LookupError: no such order)"


def test_attempts_at_a_compensation_that_always_raises_are_no_repetition() -> None:
    def refuse(self: Any, order: Order, call: Call) -> None:
        raise LookupError("no such order")

    # Only in doubt is the last step undone.
    assert bugs(saga(step("reserve", Reserve.act, refuse))) == {
        (Fault.ANSWER_LOST, "reserve"),
        (Fault.UNDOES_BLINDLY, "reserve"),
    }


def test_a_second_attempt_that_does_more_is_found() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[order.id] = 99 * call.attempt

    made = saga(step("charge", charge, Charge.compensate, retry=RetryPolicy(max_attempts=2)))

    assert (Fault.SECOND_ATTEMPT, "charge") in bugs(made)


def test_an_answer_lost_once_shows_an_act_that_ignores_its_key() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[f"{order.id}.{call.attempt}"] = 99

    patient = step("charge", charge, retry=RetryPolicy(max_attempts=2, retry_on=(OutcomeUnknown,)))
    (finding,) = findings(saga(Reserve, patient))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert str(finding.plan) == "charge takes effect, but its answer is lost once"


def test_answers_that_are_always_lost_show_the_same_act() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[f"{order.id}.{call.attempt}"] = 99

    def refund(self: Any, order: Order, call: Call) -> None:
        self.shop.charges.pop(f"{order.id}.1", None)

    patient = step("charge", charge, refund, retry=RetryPolicy(max_attempts=2, retry_on=(OutcomeUnknown,)))
    (finding,) = findings(saga(patient, Notify))

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")


def test_the_users_check_is_told_of_together_with_its_run() -> None:
    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        if outcome.status is SagaStatus.COMPENSATED:
            assert not shop.charges or shop.refunds, "charged and not refunded"

    def keep(self: Any, order: Order, call: Call) -> None:
        pass

    (finding,) = findings(saga(step("charge", Charge.act, keep), Notify), check=check)

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "notify")
    assert finding.left_behind == "check: charged and not refunded"
    assert str(finding.plan) == "notify fails"


def test_a_check_that_only_a_crash_fails_blames_what_ran_twice() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.letters.append("charged")

    def check(shop: Shop, _: Outcome[Order]) -> bool:
        return len(shop.letters) < 2

    (finding,) = findings(saga(step("charge", charge)), check=check, snapshot=lambda shop: shop.stock)

    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "charge")
    assert finding.left_behind == "check: it returned False"


def test_two_bugs_that_leave_the_same_behind_are_two() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.letters.append(call.step_name)

    def check(shop: Shop, _: Outcome[Order]) -> bool:
        return len(shop.letters) == len(set(shop.letters))

    made = saga(step("charge", charge), step("again", charge))

    assert bugs(made, check=check, snapshot=lambda shop: shop.stock) == {
        (Fault.ACT_NOT_REPEATABLE, "charge"),
        (Fault.ACT_NOT_REPEATABLE, "again"),
    }


def test_a_check_that_fails_without_a_crash_blames_nothing_else() -> None:
    def check(_: Shop, outcome: Outcome[Order]) -> bool:
        return "answer" not in str(outcome.plan)

    (finding,) = findings(PlaceOrder, check=check)

    assert (finding.fault, finding.step) == (Fault.ENDS_WRONG, "reserve")
    assert finding.runs == 3  # once for each step, not for each crash


def test_all_bugs_are_reported_together() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[order.id] = self.shop.charges.get(order.id, 0) + 99

    def give_back(self: Any, order: Order, call: Call) -> None:
        self.shop.stock["lamp"] += order.pieces

    def tell(self: Any, order: Order, call: Call) -> None:
        self.told.append(order.id)

    made = saga(
        step("reserve", Reserve.act, give_back),
        step("charge", charge, Charge.compensate),
        step("tell", tell, told=[]),
        Notify,
    )

    assert bugs(made) == {
        (Fault.UNDOES_BLINDLY, "reserve"),
        (Fault.COMPENSATION_NOT_REPEATABLE, "reserve"),
        (Fault.ACT_NOT_REPEATABLE, "charge"),
        (Fault.STATE_LOST, "tell"),
    }


def test_two_crashes_find_what_one_does_not() -> None:
    def reserve(self: Any, order: Order, call: Call) -> None:
        # It counts the requests of a key, and takes the third one for a new one.
        asked = self.shop.held[order.id] = self.shop.held.get(order.id, 0) + 1
        if asked in (1, 3):
            self.shop.stock["lamp"] -= 1

    options: dict[str, Any] = {"snapshot": lambda shop: shop.stock}
    made = saga(step("reserve", reserve))

    assert bugs(made, **options) == set()
    (finding,) = findings(made, pairs=True, **options)
    assert (finding.fault, finding.step) == (Fault.ACT_NOT_REPEATABLE, "reserve")
    assert str(finding.plan) == (
        "crash after act of reserve, before its checkpoint; "
        "crash after act of reserve, before its checkpoint in process 2"
    )


def test_worlds_that_cannot_be_compared_are_a_bug_of_the_test() -> None:
    def charge(self: Any, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.letters.append(uuid.uuid4().hex)

    made = saga(Reserve, step("charge", charge))

    (finding,) = findings(made)
    assert finding.fault is Fault.NOT_REPRODUCIBLE
    assert finding.left_behind.startswith("world.letters[0] is ")
    assert bugs(made, snapshot=lambda shop: (shop.stock, len(shop.letters))) == set()


def test_a_world_that_is_not_new_is_a_bug_of_the_test() -> None:
    shop = Shop()

    (finding,) = findings(PlaceOrder, world=lambda: shop)

    assert finding.fault is Fault.NOT_REPRODUCIBLE
    assert finding.left_behind.startswith("in a new world, world.stock['lamp'] is 8 instead of 10")


def test_a_saga_that_fails_by_itself_is_told_with_its_error() -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        raise ZeroDivisionError("by itself")

    with pytest.raises(CrashMatrixFailed, match="ZeroDivisionError: by itself") as failed:
        crash_matrix(saga(Reserve, step("broken", act)), Order, world=Shop)

    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert failed.value.matrix.runs == 2
