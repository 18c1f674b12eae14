"""A saga with steps of a given duration, for tests that only check where and when it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sagas import Call, Saga, Step


@dataclass
class Errand:
    """How long each step takes, in seconds."""

    seconds: float = 0.0


class There(Step[Errand]):
    def act(self, context: Errand, call: Call) -> None:
        time.sleep(context.seconds)

    def compensate(self, context: Errand, call: Call) -> None:
        pass


class Back(There):
    pass


class Errands(Saga[Errand]):
    steps = [There, Back]
