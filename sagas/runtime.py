"""The dependencies that a process provides for running sagas."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import random

from sagas.definition import Resolver
from sagas.framework import Framework
from sagas.lease import LeaseKeeper
from sagas.outbox import OutboxTask
from sagas.settings import Settings
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import Claim
from sagas.telemetry.observer import NullObserver, Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The dependencies that a process provides for running sagas.

    Attributes:
        owner: the name under which this process holds leases.
        resolve: builds a step from its class.
        stopping: whether the process was asked to stop at the next step's boundary.
        send: publishes the message for a saga that this process gives back.
        send_tasks: sends tasks of the outbox, and deletes those that were sent. By default they wait for a scan.
        in_doubt_on: exceptions raised into a step from outside, after which it may have taken effect.
        observer: notified of what happens.
        framework: the framework that the application is built on.
        at_once: how many steps of one saga may run at once.
        sleep, random: injected, so that tests need not wait.
    """

    storage: ISagaStorage
    keeper: LeaseKeeper
    settings: Settings
    owner: str
    resolve: Resolver
    stopping: Callable[[], bool]
    send: Callable[[Claim], None]
    in_doubt_on: tuple[type[BaseException], ...] = ()
    observer: Observer = field(default_factory=NullObserver)
    framework: Framework = field(default_factory=Framework)
    at_once: int = 16
    send_tasks: Callable[[Sequence[OutboxTask]], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random

    def request(self) -> LeaseRequest:
        """Return a request for a lease of this process."""
        return LeaseRequest(owner=self.owner, seconds=self.settings.lease_seconds)
