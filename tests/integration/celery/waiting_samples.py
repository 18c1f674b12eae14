"""A saga that waits and sleeps, for tests with real workers."""

from __future__ import annotations

from datetime import timedelta

from sagas import Saga, Sleep, Wait
from tests.integration.celery.samples import First, Job, Third


class Answer(Wait[str]):
    timeout = timedelta(minutes=10)

    def received(self, context: Job, signal: str) -> None:
        context.gate = signal


class Nap(Sleep):
    duration = timedelta(seconds=1)


class Ask(Saga[Job]):
    steps = [First, Answer, Nap, Third]
