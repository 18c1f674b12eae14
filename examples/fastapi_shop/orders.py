"""The orders of a shop and their saga. The web application and the workers import this module."""

import os
from dataclasses import dataclass
from functools import cache
from uuid import UUID, uuid4

import httpx
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sagas import Call, OutcomeUnknown, RetryPolicy, Saga, Step


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    item: Mapped[str]
    cents: Mapped[int]
    saga_id: Mapped[UUID]


@dataclass
class Purchase:
    """The context of the saga."""

    item: str
    cents: int
    parcel: str = ""


@cache
def services() -> httpx.AsyncClient:
    """Return the client of the bank and the courier; the first step makes it, on the event loop of async steps."""
    return httpx.AsyncClient(base_url=os.environ["SHOP_SERVICES_URL"])


async def ask(path: str, call: Call, **data: str | int) -> str:
    try:
        answer = await services().post(path, json=data, headers={"Idempotency-Key": call.idempotency_key})
    except httpx.TransportError as error:
        raise OutcomeUnknown(f"no answer from {path}") from error
    answer.raise_for_status()
    return answer.text


class ChargeCard(Step[Purchase]):
    retry = RetryPolicy(max_attempts=5, retry_on=(OutcomeUnknown,))
    timeout = 30

    async def act(self, purchase: Purchase, call: Call) -> None:
        await ask("/payments", call, cents=purchase.cents, order=str(call.saga_id))

    async def compensate(self, purchase: Purchase, call: Call) -> None:
        # Refund whatever this order paid. This is also right when nobody knows whether the card was charged.
        await ask("/refunds", call, order=str(call.saga_id))


class SendParcel(Step[Purchase]):
    retry = RetryPolicy(max_attempts=5, retry_on=(OutcomeUnknown,))
    timeout = 30

    async def act(self, purchase: Purchase, call: Call) -> None:
        purchase.parcel = await ask("/parcels", call, item=purchase.item)


class PlaceOrder(Saga[Purchase]):
    steps = [ChargeCard, SendParcel]
