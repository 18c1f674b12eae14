"""A saga that takes as long as it is told, for tests that only care where it runs and when."""

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
