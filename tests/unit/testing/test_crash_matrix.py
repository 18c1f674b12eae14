"""How the crash matrix is called, what it prints, and how long it takes."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas import Call, Step
from sagas.errors import ContextError
from sagas.testing import crashes
from sagas.testing.crashes import Outcome, crash_matrix
from tests.unit.testing.shop import (
    Charge,
    Order,
    PlaceOrder,
    Reserve,
    Shop,
    saga,
    step,
)


def test_world_is_given_to_whoever_asks_for_it() -> None:
    given: list[object] = []

    def make_context(shop: Shop) -> Order:
        given.append(shop)
        return Order(pieces=shop.stock["lamp"])

    def resolver(kind: type[Step[Any]], shop: Shop) -> Step[Any]:
        given.append(shop)
        return kind(shop)

    def check(shop: Shop, outcome: Outcome[Order]) -> None:
        given.append(shop)
        assert outcome.context.pieces == 10

    crash_matrix(PlaceOrder, make_context, world=Shop, resolver=resolver, check=check, pairs=False)

    assert {type(world) for world in given} == {Shop}


def test_a_resolver_as_in_production_is_given_the_class_alone() -> None:
    worlds: list[Shop] = []

    def world() -> Shop:
        worlds.append(Shop())
        return worlds[-1]

    crash_matrix(PlaceOrder, Order, world=world, resolver=lambda kind: kind(worlds[-1]), pairs=False)


def test_defaults_of_the_context_are_not_taken_for_the_world() -> None:
    def check(_: Shop, outcome: Outcome[Order]) -> None:
        assert outcome.context.id == "o-1"

    crash_matrix(PlaceOrder, Order, world=Shop, check=check, pairs=False)


def test_a_step_that_cannot_be_built_fails_as_itself() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'shop'"):
        crash_matrix(PlaceOrder, Order)


def test_a_context_that_cannot_be_stored_fails_as_itself() -> None:
    with pytest.raises(ContextError, match="anything is set before and list after"):
        crash_matrix(PlaceOrder, lambda: Order(anything={1}), world=Shop)


def test_an_async_check_is_refused() -> None:
    async def check(shop: Shop, outcome: Outcome[Order]) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="make it a plain function"):
        crash_matrix(PlaceOrder, Order, world=Shop, check=check)


class Sealed:
    """Shows nothing of what it holds."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("world", [Sealed, type("Empty", (), {})])
def test_a_world_that_cannot_be_looked_into_is_refused(world: Any) -> None:
    class Idle(Step[Order]):
        def act(self, order: Order, call: Call) -> None:
            pass

    with pytest.raises(TypeError, match=f"cannot look into a {world.__name__} .* pass snapshot="):
        crash_matrix(saga(Idle), Order, world=world)
    crash_matrix(saga(Idle), Order, world=world, snapshot=lambda _: 0)


def test_the_engines_log_is_silent_meanwhile_and_as_before_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sagas")

    crash_matrix(PlaceOrder, Order, world=Shop, pairs=False)

    assert caplog.records == []
    assert logging.getLogger("sagas").level == logging.INFO


def test_the_message_lists_all_bugs_and_fits_a_terminal() -> None:
    def give_back(self: Any, order: Order, call: Call) -> None:
        self.shop.stock["lamp"] += order.pieces

    with pytest.raises(AssertionError) as failed:
        crash_matrix(saga(step("reserve", Reserve.act, give_back), Charge), Order, world=Shop)

    lines = str(failed.value).splitlines()
    assert lines[0].startswith("made: 2 bugs in ")
    assert lines[2:5] == [
        "reserve: compensate assumes that act took effect",
        "    first seen when: reserve is cut off before it takes effect",
        "    left behind: world.stock['lamp'] is 12 instead of 10",
    ]
    assert max(map(len, lines)) <= 116
    assert "compensate is not safe to run twice: A crash before its checkpoint" in str(failed.value)


def test_four_steps_take_as_many_runs_as_the_documentation_says(repository: Path) -> None:
    def act(self: Any, order: Order, call: Call) -> None:
        self.shop.charges[call.step_name] = 99

    def compensate(self: Any, order: Order, call: Call) -> None:
        self.shop.charges.pop(call.step_name, None)

    four = [step(f"step-{i}", act, compensate) for i in range(4)]
    matrix = crash_matrix(saga(*four), Order, world=Shop)

    assert matrix.places == 240
    page = " ".join((repository / "docs" / "testing.md").read_text().split())
    assert f"A saga of four steps takes {matrix.runs:,} runs" in page


def test_sagas_testing_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from sagas.testing import crash_matrix"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("former", "name"), [("Plan", "CrashPlan"), ("Finding", "CrashFinding")])
def test_former_names_are_found_and_warn(former: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"is now called sagas.testing.crashes.{name}"):
        assert getattr(crashes, former) is getattr(crashes, name)
