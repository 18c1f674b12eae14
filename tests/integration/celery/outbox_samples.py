"""Sagas for tests with real workers: one enqueues a task, one is frozen in a transactional step."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import signature
from sqlalchemy.orm import Session

from sagas import Call, Saga, Step, TransactionalStep
from sagas.celery.dispatch import CeleryDispatcher
from sagas.definition import ONCE


@dataclass
class Parcel:
    """The context.

    Attributes:
        number: of the parcel.
        folder: where steps leave their marks.
    """

    number: int
    folder: str = ""


class Announce(Step[Parcel]):
    """Enqueues a task for a queue that no worker of the test consumes."""

    def act(self, parcel: Parcel, call: Call) -> None:
        call.enqueue(signature("shop.mail", queue="mail"), parcel.number, to="ann")


class Pack(Step[Parcel]):
    def act(self, parcel: Parcel, call: Call) -> None:
        parcel.number += 1


class SendParcel(Saga[Parcel]):
    steps = [Announce, Pack]


class Count(TransactionalStep[Parcel]):
    """Adds one, without any key; the first attempt then waits until it is let go on."""

    retry = ONCE

    def act(self, parcel: Parcel, call: Call, session: Session) -> None:
        session.execute(sa.text("UPDATE counters SET value = value + 1"))
        folder = Path(parcel.folder)
        first = not list(folder.glob("wrote-*"))
        (folder / f"wrote-{os.getpid()}").touch()
        while first and not (folder / "open").exists():
            time.sleep(0.02)
        if first:
            session.execute(sa.text("UPDATE counters SET value = value + 1"))


class CountParcel(Saga[Parcel]):
    steps = [Count, Pack]


def _die_before_sending() -> None:
    """Kill the process between the commit and the sending of the outbox."""

    def die(self: CeleryDispatcher, tasks: Any) -> list[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    CeleryDispatcher.enqueue = die  # type: ignore[method-assign]


if os.environ.get("DIE_BEFORE_SENDING"):
    _die_before_sending()
