"""Contexts as JSON and back: what survives, and what is refused before it can be lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr, field_serializer
from typing_extensions import TypedDict

from sagas.context import MAX_CONTEXT_BYTES, ContextCodec
from sagas.errors import ContextError


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    at: datetime
    due: date
    total: Decimal
    size: Size
    corner: tuple[int, str]
    tags: set[str]
    raw: bytes
    lines: list[Line] = field(default_factory=list)
    by_day: dict[date, int] = field(default_factory=dict)


class Address(TypedDict):
    street: str
    lines: list[Line]


class Model(BaseModel):
    quantity: int = Field(default=1, gt=0)
    address: Address | None = None
    password: SecretStr = SecretStr("")


@dataclass
class Loose:
    """Fields as untyped as a context can have them."""

    value: Any = None
    number: float = 0.0
    text: str = ""


def codec(context_type: Any) -> ContextCodec[Any]:
    return ContextCodec(context_type, owner="Checkout")


def refused(value: Any, message: str, context_type: Any = Loose) -> None:
    with pytest.raises(ContextError, match=message):
        codec(context_type).dump_checked(value)


# -- what survives ------------------------------------------------------------------------------------------------


def test_dataclass_comes_back_with_every_type() -> None:
    order = Order(
        id=UUID(int=7),
        at=datetime(2031, 5, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
        due=date(2031, 5, 2),
        total=Decimal("0.10"),
        size=Size.LARGE,
        corner=(1, "a"),
        tags={"new", "gift"},
        raw="€".encode(),
        lines=[Line("x", Decimal("12345678901234567890.123456789"))],
        by_day={date(2031, 5, 2): 3},
    )

    back = codec(Order).load(codec(Order).dump_checked(order))

    assert back == order
    assert [type(v) for v in vars(back).values()] == [type(v) for v in vars(order).values()]
    assert back.at.utcoffset() == timedelta(hours=2)


def test_typed_dict_comes_back() -> None:
    address = Address(street="Rue de l'Église 1 🚲", lines=[Line("x", Decimal("1.50"))])

    assert codec(Address).load(codec(Address).dump_checked(address)) == address


def test_pydantic_model_comes_back_with_what_is_nested_in_it() -> None:
    model = Model(quantity=3, address={"street": "s", "lines": [Line("x", Decimal(1))]})

    back = codec(Model).load(codec(Model).dump_checked(model))

    assert back == model
    assert isinstance(back.address["lines"][0], Line)


def test_finite_numbers_come_back_exactly() -> None:
    numbers = [0.1, 1e308, -5e-324, 2**70, -0.0]

    assert codec(list[float | int]).load(codec(list[float | int]).dump_checked(numbers)) == numbers


def test_text_with_a_backslash_u0000_spelt_out_is_not_mistaken_for_nul() -> None:
    assert codec(Loose).load(codec(Loose).dump_checked(Loose("\\u0000"))) == Loose("\\u0000")


def test_parse_reads_plain_data() -> None:
    assert codec(Address).parse({"street": "s", "lines": [{"sku": "x", "price": "1.5"}]})["lines"][0].price == Decimal(
        "1.5"
    )


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_number_that_json_lacks_is_refused(number: float) -> None:
    refused(Loose(number=number), "not JSON compliant")
    refused(Loose(value=number), "value is float before and NoneType after")


@pytest.mark.parametrize("value", ["a\0b", {"a\0b": 1}, ["x", {"y": "\0"}]])
def test_nul_is_refused_wherever_it_is(value: Any) -> None:
    refused(Loose(value), r"a NUL character \(U\+0000\), which PostgreSQL's jsonb cannot store")


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}])
def test_half_of_a_surrogate_pair_is_refused(value: Any) -> None:
    refused(Loose(value), "surrogates not allowed")
    refused(Loose(text="\ud800"), "cannot be stored as JSON")


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ({1, 2}, "value is set before and list after"),
        (b"text", "value is bytes before and str after"),
        ((1, 2), "value is tuple before and list after"),
        ({1: "a"}, "value.1 is str before and NoneType after"),
        (Decimal(1), "value is Decimal before and str after"),
        (Size.SMALL, "value is Size before and str after"),
    ],
)
def test_value_that_would_come_back_as_another_type_is_refused_by_name(value: Any, how: str) -> None:
    refused(Loose(value), rf"changes when stored as JSON and read back \({how}\)")


@pytest.mark.parametrize("value", [b"\xff", object(), lambda: None])
def test_value_that_json_has_no_form_for_is_refused(value: Any) -> None:
    refused(Loose(value), "cannot be stored as JSON")


def test_context_above_the_limit_is_refused_with_its_size_and_a_way_out() -> None:
    refused(Loose("x" * 10 * 2**20), r"is 10\.0 MB as JSON, more than the 4 MB .*: store the document elsewhere")


def test_context_at_the_limit_is_stored() -> None:
    empty = len(codec(Loose).dump(Loose("")))

    assert len(codec(Loose).dump(Loose("x" * (MAX_CONTEXT_BYTES - empty)))) == MAX_CONTEXT_BYTES


def test_limit_counts_bytes_not_characters() -> None:
    refused(Loose("€" * (MAX_CONTEXT_BYTES // 2)), "6.0 MB")


@pytest.mark.parametrize("wrong", [True, {"value": 1}, "text", Line("x", Decimal(1))])
def test_context_of_another_type_is_refused(wrong: Any) -> None:
    refused(wrong, "cannot be stored as JSON")


def test_no_context_is_refused_unless_the_type_says_so() -> None:
    refused(None, "not read back as Loose")
    assert codec(type(None)).dump_checked(None) == "null"


def test_field_of_another_type_is_refused() -> None:
    refused(Loose(number="12"), "field_name='number'")  # type: ignore[arg-type]


def test_missing_field_is_refused() -> None:
    refused({"street": "s"}, r"lines: Field required", Address)
    line = Line("x", Decimal(1))
    del line.price
    refused(line, "has no attribute 'price'", Line)


def test_recursion_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    refused(Loose(loop), "Circular reference")
    refused(Loose(deep), "depth exceeded")


def test_value_that_could_not_be_read_back_is_refused() -> None:
    model = Model()
    model.quantity = -1

    refused(model, r"not read back as Model \(quantity: Input should be greater than 0\)", Model)


def test_secret_that_is_stored_as_asterisks_is_refused() -> None:
    refused(Model(password=SecretStr("hunter2")), "password", Model)


def test_serializer_of_the_users_that_raises_is_refused_as_any_other() -> None:
    class Broken(BaseModel):
        value: int = 1

        @field_serializer("value")
        def fail(self, value: int) -> str:
            raise KeyError("boo")

    refused(Broken(), "KeyError: 'boo'", Broken)


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"street": "s"}', "lines: Field required"),
        ('{"street": 1, "lines": []}', "street: Input should be a valid string"),
        ('{"street": "s", "lines": [{"sku": "x", "price": "?"}]}', r"lines\.0\.price: Input should be a valid decimal"),
        ("[]", "the whole: "),
    ],
)
def test_context_that_no_longer_validates_names_the_field(text: str, where: str) -> None:
    with pytest.raises(ContextError, match=rf"Checkout: its context does not validate as Address \({where}"):
        codec(Address).load(text)


def test_messages_do_not_repeat_the_value() -> None:
    with pytest.raises(ContextError) as caught:
        codec(Model).load('{"password": "hunter2", "quantity": "hunter2"}')

    assert "hunter2" not in str(caught.value)


def test_aware_time_comes_back_at_its_instant() -> None:
    now = datetime.now(UTC)

    assert codec(datetime).load(codec(datetime).dump_checked(now)) == now


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), ([1], {1}), (None, float("nan")), ((1,), [1]), ("1", 1), ({"a": 1}, {"a": 2})],
    ids=repr,
)
def test_contexts_that_differ_in_anything_look_different(before: Any, after: Any) -> None:
    assert codec(Loose).look(Loose(before)) != codec(Loose).look(Loose(after))
    assert codec(Loose).look(Loose([before])) != codec(Loose).look(Loose([after]))


def test_a_context_changed_in_place_looks_different_from_before() -> None:
    loose = Loose({"items": [{"n": 1}]})
    before = codec(Loose).look(loose)
    assert codec(Loose).look(loose) == before

    loose.value["items"][0]["n"] = 2

    assert codec(Loose).look(loose) != before


def test_what_cannot_be_stored_looks_like_nothing_else() -> None:
    loose = Loose(object())

    assert codec(Loose).look(loose) != codec(Loose).look(loose)
