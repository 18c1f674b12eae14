"""The shop of the fault runs for python-cqrs: its own steps make the same effects under the same keys.

The shop has the code that users of python-cqrs would add: every effect has a key, retryable failures are left out, and
a step without an answer undoes itself before it fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from dataclasses import dataclass, field
from typing import Any

from cqrs.handlers.saga import SagaStepHandler, SagaStepResult
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga
from cqrs.saga.storage.sqlalchemy import SqlAlchemySagaStorage
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from tests.faults.shop import ACT, UNDO, ledger


@dataclass
class OrderContext(SagaContext):
    """The same as the `Order` of the fault runs, with the id for the keys."""

    order_id: str = ""
    seconds: float = 0.0
    failing: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)


class _ShopStep(SagaStepHandler[OrderContext, None]):
    name = ""

    @property
    def events(self) -> list[Any]:
        return []

    def _entry(self, context: OrderContext) -> dict[str, Any]:
        key = f"{context.order_id}:{self.name}:act"
        return {"key": key, "saga": uuid.UUID(context.order_id), "step": self.name}

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, None]:
        how = context.failing.get(self.name)
        await asyncio.sleep(context.seconds / 2)
        if how == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "clean":
            raise ValueError("refused")
        if how != "doubt":
            ledger(ACT, self._entry(context))
        if how in ("doubt", "late"):
            ledger(
                UNDO, self._entry(context)
            )  # python-cqrs compensates completed steps only, so this step undoes itself
            raise TimeoutError("no answer")
        await asyncio.sleep(context.seconds / 2)
        context.done.append(self.name)
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        ledger(UNDO, self._entry(context))


class Reserve(_ShopStep):
    name = "reserve"


class Charge(_ShopStep):
    name = "charge"


class Ship(_ShopStep):
    name = "ship"


class Invoice(_ShopStep):
    name = "invoice"


class FaultyOrder(Saga[OrderContext]):
    steps = [Reserve, Charge, Ship, Invoice]


class Container:
    """Builds a step by calling its class."""

    async def resolve(self, type_: type[Any]) -> Any:
        return type_()


def storage() -> SqlAlchemySagaStorage:
    """Return python-cqrs's own storage on PostgreSQL through asyncpg, which checks each connection before use."""
    url = os.environ["SAGAS_DATABASE_URL"].replace("+psycopg", "+asyncpg", 1)
    return SqlAlchemySagaStorage(async_sessionmaker(create_async_engine(url, pool_pre_ping=True)))
