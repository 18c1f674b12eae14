"""What version 0.1.0 stored of a definition is read as the graph that it meant. The texts are as 0.1.0 wrote them."""

from __future__ import annotations

import pytest

from sagas.definition import AnySaga
from sagas.definition_version import graph_of, stored_version
from sagas.errors import LogDoesNotFit
from tests.samples import Stage

HOTEL_AND_CAR = "1.5LwNBn18"
#: hotel; pay, the pivot; mail, which has no compensation; version 3.
PIVOTED = "3.5LwN5f2Ih77S"
#: s0 to s19.
TWENTY = "1.*f278bbc7f25483ad"


def pivoted(**pay: object) -> AnySaga:
    stage = Stage()
    return stage.saga("hotel", stage.step("pay", **{"pivot": True, **pay}), stage.step("mail", undo=None), version=3)


def names(saga: AnySaga, text: str) -> list[str]:
    return [node.name for node in graph_of(saga, text).nodes]


def test_each_code_is_found_again_under_its_name_or_an_alias() -> None:
    stage = Stage()

    assert graph_of(stage.saga("hotel", "car"), HOTEL_AND_CAR) == stage.saga("hotel", "car").graph
    assert graph_of(pivoted(), PIVOTED) == pivoted().graph
    assert names(stage.saga("visa", "hotel", stage.step("rental", aliases=["car"])), HOTEL_AND_CAR) == ["hotel", "car"]


def test_definition_of_many_steps_is_recognized_as_a_whole() -> None:
    steps = [f"s{number}" for number in range(20)]

    assert names(Stage().saga(*steps), TWENTY) == steps
    with pytest.raises(LogDoesNotFit, match="with other steps than Made has, too many to tell which"):
        graph_of(Stage().saga(*steps, "more"), TWENTY)


@pytest.mark.parametrize(
    ("saga", "text", "reason"),
    [
        (Stage().saga("hotel"), HOTEL_AND_CAR, "step 2 of the 2 that it was started with is none of those of Made"),
        (pivoted(pivot=False), PIVOTED, "Pay ceased to be the pivot since"),
        (Stage().saga("hotel", Stage().step("car", undo=None)), HOTEL_AND_CAR, r"Car lost its compensate\(\) since"),
    ],
)
def test_definition_that_changed_too_much_does_not_fit(saga: AnySaga, text: str, reason: str) -> None:
    with pytest.raises(LogDoesNotFit, match=reason):
        graph_of(saga, text)


def test_text_from_before_steps_were_written_down_means_the_oldest_names() -> None:
    stage = Stage()

    assert names(stage.saga("hotel", stage.step("rental", aliases=["car", "cab"])), "0123456789abcdef") == [
        "hotel",
        "car",
    ]
    assert [stored_version(text) for text in (PIVOTED, HOTEL_AND_CAR, "0123456789abcdef", "")] == [3, 1, 1, 1]
