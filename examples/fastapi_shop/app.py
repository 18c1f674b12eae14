"""A shop with FastAPI and async SQLAlchemy: an order and its saga are stored in one transaction.

In this directory, with PostgreSQL and Redis running and `sagas migrate` done:

    export SAGAS_MODULES=orders SHOP_SERVICES_URL=http://127.0.0.1:8000/services
    uvicorn app:app
    celery -A sagas worker
    celery -A sagas beat
    curl -X POST http://127.0.0.1:8000/orders -H 'Content-Type: application/json' -d '{"item": "tea", "cents": 4200}'
    curl http://127.0.0.1:8000/orders/ID
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException
from orders import Base, Order, PlaceOrder, Purchase
from pydantic import BaseModel, PositiveInt
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sagas import Settings, current_engine, start_async

# The shop's tables and the sagas are in one database, so that one transaction can hold both.
database = create_async_engine(Settings.from_environment().database_url)
sessions = async_sessionmaker(database, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with database.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await database.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


app = FastAPI(lifespan=lifespan)
InSession = Annotated[AsyncSession, Depends(session)]


class NewOrder(BaseModel):
    item: str
    cents: PositiveInt


@app.post("/orders", status_code=202)
async def place_order(new: NewOrder, session: InSession) -> dict[str, UUID]:
    async with session.begin():
        purchase = Purchase(item=new.item, cents=new.cents)
        saga_id = await start_async(PlaceOrder, purchase, connection=session)
        order = Order(item=new.item, cents=new.cents, saga_id=saga_id)
        session.add(order)
    # Committed: the saga exists, and its message is on its way to a worker.
    return {"id": order.id}


@app.get("/orders/{order_id}")
async def show_order(order_id: UUID, session: InSession) -> dict[str, Any]:
    order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, "there is no such order")
    saga = await asyncio.to_thread(current_engine().storage.load, order.saga_id)
    return {
        "item": order.item,
        "status": saga.status,
        "progress": [f"{entry.step}: {entry.action} {entry.status}" for entry in saga.log],
    }


# -- fakes of the outside services; they honour idempotency keys, as yours should -----------------------------------

services = FastAPI()
app.mount("/services", services)
payments: dict[str, tuple[str, int]] = {}
Key = Annotated[str, Header(alias="Idempotency-Key")]


@services.post("/payments")
async def pay(data: dict[str, Any], key: Key) -> None:
    payments.setdefault(key, (data["order"], data["cents"]))


@services.post("/refunds")
async def refund(data: dict[str, Any], key: Key) -> None:
    paid = sum(cents for order, cents in payments.values() if order == data["order"])
    payments.setdefault(key, (data["order"], -paid))


@services.get("/payments")
async def balance() -> int:
    return sum(cents for _, cents in payments.values())


@services.post("/parcels")
async def send_parcel(data: dict[str, Any], key: Key) -> str:
    if data["item"] == "piano":
        raise HTTPException(422, "too heavy")
    return f"parcel-{key[:8]}"
