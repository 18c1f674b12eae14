"""Contestant: python-cqrs with sagas of three steps that do nothing, run in this process on its own storage."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from cqrs.handlers.saga import SagaStepHandler, SagaStepResult
from cqrs.saga.models import SagaContext
from cqrs.saga.saga import Saga
from cqrs.saga.storage.sqlalchemy import Base, SqlAlchemySagaStorage
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.contestants.protocol import serve


@dataclass
class Nothing(SagaContext):
    """The context of a saga that does nothing."""

    order_id: str = ""


class _NoOp(SagaStepHandler[Nothing, None]):
    @property
    def events(self) -> list[Any]:
        return []

    async def act(self, context: Nothing) -> SagaStepResult[Nothing, None]:
        return self._generate_step_result(None)

    async def compensate(self, context: Nothing) -> None:
        return


class First(_NoOp):
    pass


class Second(_NoOp):
    pass


class Third(_NoOp):
    pass


class ThreeSteps(Saga[Nothing]):
    steps = [First, Second, Third]


class Container:
    """Builds a step by calling its class."""

    async def resolve(self, type_: type[Any]) -> Any:
        return type_()


def main() -> None:
    """Run sagas with one connection pool and one event loop for all."""
    engine = create_async_engine(os.environ["BENCH_URL"].replace("postgresql:", "postgresql+asyncpg:", 1))
    storage = SqlAlchemySagaStorage(async_sessionmaker(engine, expire_on_commit=False))
    saga, container = ThreeSteps(), Container()

    async def run() -> None:
        async with saga.transaction(context=Nothing("o-1"), container=container, storage=storage) as transaction:
            async for _ in transaction:
                pass

    async def prepare() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    with asyncio.Runner() as runner:
        runner.run(prepare())
        serve(lambda: runner.run(run()))


if __name__ == "__main__":
    main()
