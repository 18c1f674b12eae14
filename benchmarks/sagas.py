"""The sagas that are measured."""

from __future__ import annotations

from dataclasses import dataclass

from sagas import Call, Saga, Step


@dataclass
class Nothing:
    """What a saga carries that does nothing."""

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
