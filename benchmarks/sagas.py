"""The sagas that are measured."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

from sagas import Call, Saga, Sleep, Step, Wait


@dataclass
class Nothing:
    """The context of a saga that does nothing."""

    order_id: str


class _NoOp(Step[Nothing]):
    def act(self, context: Nothing, call: Call) -> None:
        return

    def compensate(self, context: Nothing, call: Call) -> None:
        return


class First(_NoOp):
    pass


class Second(_NoOp):
    pass


class Third(_NoOp):
    pass


class ThreeSteps(Saga[Nothing]):
    steps = [First, Second, Third]


class _NoOpAsync(Step[Nothing]):
    async def act(self, context: Nothing, call: Call) -> None:
        return

    def compensate(self, context: Nothing, call: Call) -> None:
        return


class FirstAsync(_NoOpAsync):
    pass


class SecondAsync(_NoOpAsync):
    pass


class ThirdAsync(_NoOpAsync):
    pass


class ThreeAsyncSteps(Saga[Nothing]):
    steps = [FirstAsync, SecondAsync, ThirdAsync]


#: Seconds that a step of the sagas below waits, to simulate a call of a service.
WAIT_SECONDS = 0.1


class _Wait(_NoOp):
    def act(self, context: Nothing, call: Call) -> None:
        time.sleep(WAIT_SECONDS)


class WaitFirst(_Wait):
    pass


class WaitSecond(_Wait):
    pass


class WaitThird(_Wait):
    pass


class WaitingSteps(Saga[Nothing]):
    steps = [WaitFirst, WaitSecond, WaitThird]


class _WaitAsync(Step[Nothing]):
    async def act(self, context: Nothing, call: Call) -> None:
        await asyncio.sleep(WAIT_SECONDS)

    def compensate(self, context: Nothing, call: Call) -> None:
        return


class WaitAsyncFirst(_WaitAsync):
    pass


class WaitAsyncSecond(_WaitAsync):
    pass


class WaitAsyncThird(_WaitAsync):
    pass


class WaitingAsyncSteps(Saga[Nothing]):
    steps = [WaitAsyncFirst, WaitAsyncSecond, WaitAsyncThird]


class Courier(Wait[None]):
    pass


class WaitsForSignal(Saga[Nothing]):
    steps = [First, Courier]


class Nap(Sleep):
    duration = timedelta(hours=1)


class Sleeps(Saga[Nothing]):
    steps = [Nap]
