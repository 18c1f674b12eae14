"""Saga names and the classes behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sagas import Saga, Schedule
from sagas.errors import ConfigurationError, DefinitionError, UnknownSaga
from sagas.registry import Registry
from tests.samples import Stage, Trip, saga_of

MODULE = """
from dataclasses import dataclass
from sagas import Saga, Step

@dataclass
class Order:
    id: int = 0

class Pay(Step[Order]):
    def act(self, context, call): ...

class Checkout(Saga[Order]):
    steps = [Pay]
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules are imported; their names are the test's own."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_saga_is_found_by_its_name() -> None:
    saga = Stage().saga("hotel", name="travel")

    assert Registry([saga]).get("travel") is saga
    assert list(Registry([saga])) == [saga]


def test_unknown_name_is_refused_with_those_that_are_known() -> None:
    registry = Registry([Stage().saga("hotel", name=name) for name in ("travel", "refund")])

    with pytest.raises(UnknownSaga, match=r"no saga named 'order' is known here \(known: refund, travel\)"):
        registry.get("order")
    with pytest.raises(UnknownSaga, match=r"\(known: none\): add the module that defines it to SAGAS_MODULES"):
        Registry().get("order")


def test_two_classes_of_one_name_are_refused() -> None:
    class Other(Saga[Trip]):
        name = "travel"
        steps = (Stage().step("hotel"),)

    registry = Registry([Stage().saga("hotel", name="travel")])

    with pytest.raises(DefinitionError, match=r"samples.*Made and .*Other are both sagas named 'travel'"):
        registry.add(Other)
    assert registry.get("travel") is not Other


def test_class_that_was_reloaded_takes_the_place_of_its_former_self() -> None:
    old, new = (saga_of([Stage().step("hotel")]) for _ in range(2))
    registry = Registry([old])

    registry.add(old)
    registry.add(new)

    assert list(registry) == [new]


def test_saga_is_found_by_each_of_its_names() -> None:
    saga = Stage().saga("hotel", aliases=["tour", "journey"])
    registry = Registry([saga])

    assert [registry.get(name) for name in ("trip", "journey", "tour")] == [saga] * 3
    assert list(registry) == [saga]


@pytest.mark.parametrize("first", [0, 1])
def test_alias_that_another_saga_has_as_a_name_is_refused(first: int) -> None:
    sagas = [Stage().saga("hotel", name="tour", version=2), Stage().saga("hotel", aliases=["tour"], called="Other")]

    with pytest.raises(DefinitionError, match=r"both sagas named 'tour', one by an alias, .*: give one another name"):
        Registry([sagas[first], sagas[1 - first]])


def test_two_classes_of_one_name_with_different_aliases_are_refused() -> None:
    old, new = Stage().saga("hotel", called="Old"), Stage().saga("hotel", aliases=["tour"], version=2)

    with pytest.raises(DefinitionError, match=r"'trip', but with different aliases: give both the same `aliases`"):
        Registry([old, new])


def test_versions_of_one_saga_stand_side_by_side_and_the_highest_is_for_new_ones() -> None:
    new = Stage().saga("hotel", version=3, continues=[2])
    old = Stage().saga("hotel", called="Old")
    registry = Registry([new, old])

    assert registry.get("trip") is new
    assert [registry.fitting("trip", version) for version in (1, 2, 3)] == [old, new, new]


@pytest.mark.parametrize(
    "other", [{}, {"version": 1}, {"version": 3, "continues": [1]}, {"version": 3, "continues": [2]}, {"version": 2}]
)
def test_two_classes_that_claim_one_version_are_refused(other: dict[str, Any]) -> None:
    first = Stage().saga("hotel", version=2, continues=[1])

    with pytest.raises(DefinitionError, match=r"are both sagas named 'trip' for version [12], .* a higher `version`"):
        Registry([first, Stage().saga("hotel", called="Other", **other)])


def test_version_that_no_class_goes_on_with_is_refused_by_number() -> None:
    registry = Registry([Stage().saga("hotel", version=3, continues=[2])])

    with pytest.raises(
        UnknownSaga, match=r"goes on with version 1 of saga 'trip' \(known: 2, 3\): .* list 1 in `continues`"
    ):
        registry.fitting("trip", 1)


def test_modules_are_imported_and_their_sagas_known(modules: Path) -> None:
    (modules / "shop_orders.py").write_text(MODULE)
    (modules / "shop_all.py").write_text("from shop_orders import Checkout")
    registry = Registry()

    registry.load(["shop_orders", "shop_all"])

    assert registry.get("checkout").__module__ == "shop_orders"


def test_module_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"SAGAS_MODULES names 'no_such_shop', which cannot be imported \(ModuleNotFoundError: No mod",
    ):
        Registry().load(["no_such_shop"])


def test_module_that_needs_one_that_is_not_there_names_that_one(modules: Path) -> None:
    (modules / "shop_needy.py").write_text("import no_such_client")

    with pytest.raises(ConfigurationError, match=r"names 'shop_needy', which cannot be imported .*'no_such_client'"):
        Registry().load(["shop_needy"])


def test_module_without_a_saga_is_refused(modules: Path) -> None:
    (modules / "shop_empty.py").write_text("from sagas import Saga, Step")

    with pytest.raises(ConfigurationError, match="names 'shop_empty', which holds no Saga class"):
        Registry().load(["shop_empty"])


def test_this_library_is_no_module_of_sagas() -> None:
    with pytest.raises(ConfigurationError, match="names 'sagas', which is this library itself: rename your own module"):
        Registry().load(["sagas"])


def test_mistake_in_a_definition_is_told_as_it_is(modules: Path) -> None:
    (modules / "shop_wrong.py").write_text(MODULE.replace("[Pay]", "[Pay, Pay]"))

    with pytest.raises(DefinitionError, match="Pay is in it twice"):
        Registry().load(["shop_wrong"])


# -- schedules ----------------------------------------------------------------------------------------------------

SCHEDULED = (
    MODULE
    + """
from sagas import Schedule

nightly = Schedule(Checkout, "0 3 * * *", context=lambda tick: Order(), name="nightly")
hourly = Schedule(Checkout, "0 * * * *", context=lambda tick: Order())
"""
)


def test_schedules_are_found_beside_the_sagas_of_a_module(modules: Path) -> None:
    (modules / "scheduled_shop.py").write_text(SCHEDULED)
    (modules / "scheduled_again.py").write_text("from scheduled_shop import nightly\n")
    registry = Registry()

    registry.load(["scheduled_shop", "scheduled_again", "scheduled_shop"])

    assert [schedule.name for schedule in registry.schedules] == ["nightly", "checkout"]
    assert [saga.name for saga in registry] == ["checkout"]


def test_a_module_of_schedules_alone_brings_their_sagas(modules: Path) -> None:
    (modules / "shop_of_times.py").write_text(SCHEDULED)
    (modules / "only_times.py").write_text("import shop_of_times\ntimes = shop_of_times.nightly\n")
    registry = Registry()

    registry.load(["only_times"])

    assert registry.get("checkout").__module__ == "shop_of_times"


def test_two_schedules_of_one_name_are_refused() -> None:
    saga = Stage().saga("hotel")
    registry = Registry()
    registry.add_schedule(Schedule(saga, "0 3 * * *", context=lambda tick: Trip()))

    with pytest.raises(
        DefinitionError, match=r"'0 3 \* \* \*', name='trip'\) and .*'0 4 .* have the same name, so that"
    ):
        registry.add_schedule(Schedule(saga, "0 4 * * *", context=lambda tick: Trip()))


def test_a_schedule_that_cannot_work_is_refused_with_its_own_sentence(modules: Path) -> None:
    (modules / "wrong_times.py").write_text(SCHEDULED.replace("0 3 * * *", "0 33 * * *"))

    with pytest.raises(DefinitionError, match=r"^schedule 'nightly': cron is '0 33 \* \* \*', which has a wrong hour"):
        Registry().load(["wrong_times"])
