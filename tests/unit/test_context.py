"""Contexts as JSON and back: what survives, and what is refused before it can be lost."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
    computed_field,
    create_model,
    field_serializer,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from sagas.context import MAX_CONTEXT_BYTES, ContextCodec
from sagas.errors import ContextError, DefinitionError


class Ordered(TypedDict):
    zebra: int
    apple: int


class Level(IntEnum):
    HIGH = 3


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


@pytest.mark.parametrize(
    "value", [1e16, 1e22, 1e308, -1e16, 5e-324, -0.0, 1.0, 0.1, 2**53 + 1, 10**30, -(10**30), True, 1, [{"a": [1e16]}]]
)
def test_untyped_numbers_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = codec(Loose).load(codec(Loose).dump_checked(Loose(value))).value

    assert repr(back) == repr(value)


def test_keys_come_back_in_their_order() -> None:
    value = {"zebra": 1, "apple": {"b": 1, "a": 2}, "": 3}

    assert list(codec(Loose).load(codec(Loose).dump_checked(Loose(value))).value) == list(value)


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
        ({1: "a"}, "value.1, whose key is int, is lost"),
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
    refused(wrong, r"its context is of type \w+, and it takes Loose: give an instance")


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


# -- a step changed it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (None, "x"), ("1", 1), ({"a": 1}, {"a": 2}), ({"a": 1, "b": 2}, {"b": 2, "a": 1})],
)
def test_any_difference_is_a_change(before: Any, after: Any) -> None:
    stored = codec(Loose).reopen(codec(Loose).dump(Loose([before])))
    stored.context.value[0] = after

    changed = codec(Loose).after_step(stored.context, stored)

    assert changed.text != stored.text
    assert repr(codec(Loose).load(changed.text).value) == repr([after])


def test_a_context_that_a_step_left_alone_is_as_it_was() -> None:
    stored = codec(Loose).reopen(codec(Loose).dump(Loose({"items": [{"n": 1}]})))

    assert codec(Loose).after_step(stored.context, stored).text == stored.text


def test_the_next_step_is_given_what_a_worker_would_read() -> None:
    first = codec(Ordered).reopen(codec(Ordered).dump(Ordered(zebra=1, apple=2)))
    context = first.context
    del context["zebra"]
    context["zebra"] = 3

    stored = codec(Ordered).after_step(context, first)

    assert list(stored.context) == list(codec(Ordered).load(stored.text)) == ["zebra", "apple"]
    assert stored.context is not stored.pristine


def test_an_attribute_that_a_step_sets_beside_the_fields_is_refused() -> None:
    stored = codec(Loose).reopen(codec(Loose).dump(Loose()))
    stored.context.cache = "x"

    with pytest.raises(ContextError, match=r"read back \(cache is lost\)"):
        codec(Loose).after_step(stored.context, stored)


# -- subclasses, and what is no field -----------------------------------------------------------------------------


class Payment(BaseModel):
    cents: int = 1


class Card(Payment):
    number: str = "4111"


class Renamed(Payment):
    """Adds nothing but methods."""


@dataclass
class Money:
    cents: int = 1


@dataclass
class Dollars(Money):
    mint: str = "D"


class Person(TypedDict):
    name: str


class Employee(Person):
    badge: int


ItemT = TypeVar("ItemT")


class Box(BaseModel, Generic[ItemT]):
    item: ItemT


class Place(NamedTuple):
    row: int
    seat: str


class Price(int):
    pass


class Owner(BaseModel):
    payment: Payment | None = None
    payments: list[Payment] = []
    by_name: dict[str, Payment] = {}
    either: Money | Payment | None = None
    pair: tuple[int, Payment] | None = None
    box: Box[Payment] | None = None
    money: Money | None = None
    person: Person | None = None
    some: set[int] = set()
    mapping: dict[str, int] = {}
    listed: list[int] = []
    tup: tuple[Any, ...] = ()
    anything: Any = None
    number: int = 0


class MyList(list[int]):
    pass


def priced() -> Price:
    price = Price(5)
    price.currency = "EUR"  # type: ignore[attr-defined]
    return price


@pytest.mark.parametrize(
    ("owner", "where"),
    [
        (Owner(payment=Card()), "payment is Card before and Payment after"),
        (Owner(payment=Renamed()), "payment is Renamed before and Payment after"),
        (Owner(payments=[Payment(), Card()]), r"payments\.1 is Card before"),
        (Owner(by_name={"x": Card()}), r"by_name\.x is Card before"),
        (Owner(either=Card()), "either is Card before"),
        (Owner(pair=(1, Card())), r"pair\.1 is Card before"),
        (Owner(box=Box[Payment](item=Card())), r"box\.item is Card before"),
        (Owner(money=Dollars()), "money is Dollars before"),
        (Owner(either=Dollars()), "either is Dollars before"),
        (Owner.model_construct(person={"name": "Ann", "badge": 1}), "badge"),
        (Owner.model_construct(mapping=defaultdict(int, a=1)), "mapping is defaultdict before and dict after"),
        (Owner.model_construct(listed=MyList([1])), "listed is MyList before and list after"),
        (Owner.model_construct(tup=Place(1, "a")), "tup is Place before and tuple after"),
        (Owner(anything=Card()), "anything is Card before and dict after"),
        (Owner(anything=[Dollars()]), r"anything\.0 is Dollars before and dict after"),
        (Owner.model_construct(number=priced()), "number is Price before and int after"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_subclass_adds_is_never_dropped(owner: Owner, where: str) -> None:
    refused(owner, where, Owner)


@pytest.mark.parametrize(
    ("context", "declared"), [(Card(), Payment), (Dollars(), Money), (Box(item=Card()), Box[Payment])], ids=repr
)
def test_a_context_that_is_a_subclass_itself_is_refused(context: Any, declared: Any) -> None:
    refused(context, "is (Card|Dollars) before and (Payment|Money) after", declared)


class Cash(Payment):
    coins: int


class Kept(BaseModel):
    payment: SerializeAsAny[Payment] | None = None
    either: Card | Cash | None = None
    box: Box[Payment] | None = None
    kind: Literal["a", "b"] = "a"
    text: str = ""
    number: float = 0.0


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "kept",
    [
        Kept(either=Card()),
        Kept(either=Cash(coins=2)),
        Kept(box=Box(item=Payment())),
        Kept.model_construct(text=Colour.RED),
        Kept.model_construct(number=Price(5)),
    ],
    ids=repr,
)
def test_what_comes_back_whole_is_accepted(kept: Kept) -> None:
    assert codec(Kept).load(codec(Kept).dump_checked(kept)) == kept


class Secretive(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    note: str = Field(default="", exclude=True)
    seen: list[int] = []
    _token: str = PrivateAttr(default="")
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @cached_property
    def total(self) -> int:
        return sum(self.seen)


def changed(context: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


@dataclass
class Derived:
    seen: list[int]

    def __post_init__(self) -> None:
        self.total = sum(self.seen)


@dataclass(slots=True)
class Slotted:
    number: int = 0


@pytest.mark.parametrize(
    ("context", "where"),
    [
        (Secretive(note="x"), "note differs"),
        (changed(Secretive(), _token="t"), "_token differs"),
        (changed(Loose(), extra=1), "extra is lost"),
        (changed(Loose(), me=Loose([])), "me is lost"),
        (changed(Derived([1]), total=5), "total differs"),
    ],
    ids=["excluded", "private", "attribute", "attribute", "made anew"],
)
def test_what_is_no_field_is_never_dropped(context: Any, where: str) -> None:
    refused(context, rf"read back \({where}\)", type(context))


@pytest.mark.parametrize(
    "context", [Secretive(seen=[1, 2]), Derived([1, 2]), Slotted(3)], ids=lambda c: type(c).__name__
)
def test_what_is_made_anew_alike_is_accepted(context: Any) -> None:
    assert getattr(context, "total", 3) == 3  # computed and kept, in the first

    assert vars_of(codec(type(context)).load(codec(type(context)).dump_checked(context))) == vars_of(context)


def vars_of(context: Any) -> Any:
    return context.number if isinstance(context, Slotted) else context.seen


def test_attributes_that_refer_in_a_circle_are_compared() -> None:
    class Node(BaseModel):
        name: str = ""
        _owner: Any = PrivateAttr(default=None)

        def model_post_init(self, _context: Any, /) -> None:
            self._owner = [self]

    assert codec(Node).dump_checked(Node(name="a")) == '{"name":"a"}'


# -- aliases, computed fields, keys -------------------------------------------------------------------------------


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    order_id: int = Field(alias="orderId")
    first: int = Field(validation_alias=AliasChoices("p", "q"), serialization_alias="z")
    deep: int = Field(default=0, validation_alias=AliasPath("n", 0))
    loaded: Json[list[int]] = [1]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.order_id


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, serialize_by_alias=True)

    long_name: int
    inner: list[Aliased] = []


@pydantic_dataclass
class AliasedData:
    order_id: int = Field(alias="orderId")


class AliasedDict(TypedDict):
    order_id: Annotated[int, Field(alias="orderId")]


class Cat(BaseModel):
    kind: Literal["cat"] = Field("cat", alias="kindOf")


class Dog(BaseModel):
    kind: Literal["dog"] = Field("dog", alias="kindOf")


class Pets(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]


class Base64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    raw: bytes


class Revealed(BaseModel):
    password: SecretStr

    @field_serializer("password")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


ALIASED = Aliased(orderId=1, p=2, loaded="[1,2]")


@pytest.mark.parametrize(
    ("context", "declared"),
    [
        (ALIASED, Aliased),
        (Camel(longName=1, inner=[ALIASED]), Camel),
        (AliasedData(orderId=1), AliasedData),
        (AliasedDict(order_id=1), AliasedDict),
        (Pets(pets=[Dog(), Cat()]), Pets),
        (Base64(raw=b"\xff"), Base64),
        (Revealed(password=SecretStr("hunter2")), Revealed),
        ({Size.SMALL: 1}, dict[Size, int]),
        ({Level.HIGH: 1}, dict[Level, int]),
        ({Colour.RED: {date(2031, 1, 1): 1}}, dict[Colour, dict[date, int]]),
        ({Decimal("1.50"): 1}, dict[Decimal, int]),
        ({True: 1, False: 2}, dict[bool, int]),
        ({1.5: 1}, dict[float, int]),
        ({UUID(int=1): 1}, dict[UUID, int]),
        ({PurePosixPath("a/b"): 1}, dict[PurePosixPath, int]),
        ({"a": 1}, dict[Literal["a", "b"], int]),
        (Place(1, "a"), Place),
        ({"a": frozenset({1})}, dict[str, frozenset[int]]),
        (deque([1, 2]), deque[int]),
        (defaultdict(int, a=1), defaultdict[str, int]),
        (timedelta(days=1, microseconds=1), timedelta),
        (Decimal("1E+5"), Decimal),
        (IPv4Address("10.0.0.1"), IPv4Address),
        (1j, complex),
    ],
    ids=repr,
)
def test_fields_of_every_kind_come_back(context: Any, declared: Any) -> None:
    back = codec(declared).load(codec(declared).dump_checked(context))

    assert back == context
    assert type(back) is type(context)


def test_a_context_is_read_by_names_and_by_aliases() -> None:
    by_alias = codec(Aliased).parse({"orderId": 1, "p": 2, "loaded": "[1,2]"})

    assert by_alias == codec(Aliased).parse({"order_id": 1, "first": 2, "loaded": "[1,2]"}) == ALIASED


class Number(Enum):
    ONE = 1


class Confusing(BaseModel):
    id: int = Field(alias="order_id")
    order_id: int = Field(alias="external_id")


class Twice(BaseModel):
    first: list[Confusing] = []


@pytest.mark.parametrize(
    ("declared", "where"),
    [
        (dict[Number, int], r"it: the keys of a JSON object are text, from which Number\.ONE cannot be read back"),
        (dict[tuple[int, int], int], "a tuple cannot be read back"),
        (dict[Place, int], "a Place cannot be read back"),
        (dict[Money, int], "a Money cannot be read back"),
        (dict[None, int], "None cannot be read back"),
        (dict[Literal["a", 1], int], "1 cannot be read back"),
        (dict[frozenset[int], int], "a frozenset cannot be read back"),
        (create_model("M", by=(list[dict[Number, int]], ...)), r"by: the keys .* Number\.ONE"),
        (Confusing, r"id: its alias 'order_id' is the name of another field"),
        (create_model("M", one=(Money, ...), by=(dict[Money, Money], ...)), "by: .* a Money cannot be read back"),
        (Twice, r"first\.id: its alias 'order_id' is the name of another field"),
        (make_dataclass("D", [("by", dict[Number, int])]), "by: the keys"),
    ],
    ids=str,
)
def test_a_type_that_could_never_come_back_is_refused_when_the_class_is_made(declared: Any, where: str) -> None:
    with pytest.raises(DefinitionError, match=f"Checkout: its context type .* cannot be stored as JSON .*{where}"):
        codec(declared)
