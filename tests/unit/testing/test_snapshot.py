"""How worlds and contexts are looked into and compared."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any

import pytest
from pydantic import BaseModel, PrivateAttr

from sagas.testing.crashes.snapshot import content, differences, shows_data, without_notes


class Colour(StrEnum):
    RED = "red"


class Plain:
    """Attributes, and nothing by which to compare."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left: int) -> None:
        self.left = left


class Model(BaseModel):
    size: int = 1
    _hidden: int = PrivateAttr(default=2)


@dataclass
class Node:
    value: int
    next: Any = None
    tags: set[str] = field(default_factory=set)

    @cached_property
    def double(self) -> int:
        return self.value * 2


def told(found: object, expected: object) -> list[str]:
    return differences(content(found), content(expected), "it")


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        (Plain(a=1), Plain(a=2), "it.a is 1 instead of 2"),
        (Plain(a=1), Plain(), "it.a is left over (1)"),
        (Slotted(1), Slotted(2), "it.left is 1 instead of 2"),
        (Model(size=3), Model(), "it.size is 3 instead of 1"),
        (Node(1, Node(2)), Node(1, Node(3)), "it.next.value is 2 instead of 3"),
        (None, {"a": 3}, "it is None instead of {\"['a']\": 3}"),
        ({"lamp": {7: 1}}, {"lamp": {7: 2}}, "it['lamp'][7] is 1 instead of 2"),
        ({}, {"lamp": "on"}, "it['lamp'] is missing ('on')"),
        ([1, 2], [1, 3], "it[1] is 2 instead of 3"),
        ([1, 2, 2], [1, 2], "it[2] is left over (2)"),
        ((1,), (1, 2), "it[1] is missing (2)"),
        ({1, 2}, {1}, "it{2} is left over"),
        (deque([{"a": 1}]), deque([{"a": 2}]), "it[0]['a'] is 1 instead of 2"),
        (Decimal("1.5"), Decimal("1.6"), "it is Decimal('1.5') instead of Decimal('1.6')"),
        (ValueError("a"), ValueError("b"), "it is \"ValueError('a')\" instead of \"ValueError('b')\""),
    ],
)
def test_a_difference_is_told_with_the_way_to_it(found: object, expected: object, difference: str) -> None:
    assert told(found, expected) == [difference]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            Plain(lock=threading.Lock(), log=logging.getLogger("a")),
            Plain(lock=threading.Lock(), log=logging.getLogger("a")),
        ),
        (float("nan"), float("nan")),
        (Counter(a=1, b=0), Counter(a=1)),
        (defaultdict(int, a=1, b=0), {"a": 1}),
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1, 1.0),
        (Colour.RED, "red"),
        (Plain(do=lambda: None), Plain(do=lambda: None)),
    ],
    ids=[
        "locks and loggers",
        "nan",
        "counted down to 0",
        "read by default",
        "tuple",
        "order",
        "float",
        "StrEnum",
        "functions",
    ],
)
def test_what_makes_no_difference_is_none(one: object, other: object) -> None:
    assert told(one, other) == []


def test_cycles_end() -> None:
    def ring(value: int) -> Node:
        node = Node(value)
        node.next = Node(value, node)
        return node

    assert told(ring(1), ring(1)) == []
    assert told(ring(1), ring(2)) == ["it.value is 1 instead of 2", "it.next.value is 1 instead of 2"]


def test_content_stays_when_the_object_changes() -> None:
    node = Node(1, [2])
    before = content(node)
    node.next.append(3)

    assert differences(content(node), before, "it") == ["it.next[1] is left over (3)"]


def test_cached_properties_are_no_content() -> None:
    node = Node(1)
    assert node.double == 2

    assert told(node, Node(1)) == []


def test_private_attributes_of_models_are_content() -> None:
    model = Model()
    model._hidden = 3

    assert told(model, Model()) == ["it._hidden is 3 instead of 2"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({}, True),
        (Plain(a=None), True),
        (Node(1), True),
        ((), True),
        (Plain(), False),
        (object(), False),
        (Plain(lock=threading.Lock()), False),
        (Plain(lock=threading.Lock(), stock={}), True),
    ],
)
def test_what_shows_nothing_is_known(value: object, seen: bool) -> None:
    assert shows_data(content(value)) is seen


def test_mere_notes_of_a_name_can_be_left_out() -> None:
    notes: dict[str, Any] = {"seen": {"k", "l"}, "done": {"k": None, "l": 3}, "log": ["k", "l"]}
    rows: dict[str, Any] = {
        "rows": [("k", 0, "refund"), ("k", 3, "refund"), ("l", 0)],
        "by_id": {7: Plain(key="k", sum=0)},
    }
    amounts: dict[str, Any] = {"paid": {"k": 3, "l": 0}, "k": 1}

    assert without_notes(content(notes), ["k"]) == content({"seen": {"l"}, "done": {"l": 3}, "log": ["l"]})
    assert without_notes(content(rows), ["k"]) == content({"rows": [(3, "refund"), ("l", 0)], "by_id": {}})
    assert without_notes(content(amounts), ["k"]) == content(amounts)


def test_loggers_are_not_looked_into() -> None:
    assert content(logging.getLogger("a")) == "<Logger a (WARNING)>"
