"""A shop whose services are fakes, its saga, which is correct, and how to make sagas with a bug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, PrivateAttr

from sagas import Call, Saga, Step
from sagas.testing.crashes import CrashFinding, CrashMatrix, CrashMatrixFailed, Fault, crash_matrix


@dataclass
class Shop:
    """What outlives every process: a warehouse and a bank, which know their idempotency keys."""

    stock: dict[str, int] = field(default_factory=lambda: {"lamp": 10})
    held: dict[str, int] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)
    refunds: dict[str, int] = field(default_factory=dict)
    letters: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def is_new(self, call: Call) -> bool:
        """Whether this request comes for the first time."""
        new = call.idempotency_key not in self.seen
        self.seen.add(call.idempotency_key)
        return new


@dataclass
class Order:
    """The context."""

    id: str = "o-1"
    pieces: int = 2
    charge: str | None = None
    notes: list[str] = field(default_factory=list)
    anything: Any = None


class Parcel(BaseModel):
    """Another context, with what pydantic keeps beside its fields."""

    weight: float = 1.0
    tags: set[str] = set()
    _note: str = PrivateAttr(default="")

    @cached_property
    def heavy(self) -> bool:
        return self.weight > 30


class ShopStep(Step[Order]):
    """A step that is given the shop."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop


class Reserve(ShopStep):
    """Takes pieces from the stock, and gives back what it holds."""

    def act(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.stock["lamp"] -= order.pieces
            self.shop.held[order.id] = order.pieces
        order.notes.append("reserved")

    def compensate(self, order: Order, call: Call) -> None:
        self.shop.stock["lamp"] += self.shop.held.pop(order.id, 0)


class Charge(ShopStep):
    """Charges once per key, and refunds once per key what was charged, if anything was."""

    def act(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.charges[order.id] = 99
        order.charge = f"charge for {order.id}"

    def compensate(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call) and order.id in self.shop.charges:
            self.shop.refunds[order.id] = self.shop.charges[order.id]


class Notify(ShopStep):
    """Writes a letter, which cannot be undone."""

    def act(self, order: Order, call: Call) -> None:
        if self.shop.is_new(call):
            self.shop.letters.append(order.id)


class PlaceOrder(Saga[Order]):
    """Correct."""

    steps = [Reserve, Charge, Notify]


Action = Callable[[Any, Any, Call], Any]


def step(name: str, act: Action, compensate: Action | None = None, **attributes: Any) -> type[ShopStep]:
    """Return a step class that does so; both are given the step, the context and the call."""
    members: dict[str, Any] = {"name": name, "act": act, **attributes}
    if compensate is not None:
        members["compensate"] = compensate
    return type(name.title(), (ShopStep,), members)


def saga(*classes: type[Step[Any]], context: Any = Order) -> type[Saga[Any]]:
    """Return a saga of these steps."""

    class Made(Saga[context]):
        name = "made"
        steps = classes

    return Made


def findings(
    made: type[Saga[Any]], make_context: Callable[..., Any] = Order, **options: Any
) -> tuple[CrashFinding, ...]:
    """Run the matrix, without pairs unless they are wanted, and return what it finds."""
    options = {"world": Shop, "pairs": False, **options}
    try:
        matrix: CrashMatrix = crash_matrix(made, make_context, **options)
    except CrashMatrixFailed as failed:
        return failed.matrix.findings
    return matrix.findings


def bugs(made: type[Saga[Any]], make_context: Callable[..., Any] = Order, **options: Any) -> set[tuple[Fault, str]]:
    """Run the matrix and return which bugs it finds in which steps."""
    return {(finding.fault, finding.step) for finding in findings(made, make_context, **options)}
