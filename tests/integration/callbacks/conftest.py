"""A saga that waits for a courier, on real PostgreSQL, and its links behind a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from sagas import Call, PostgresSagaStorage, Saga, SagaEngine, Settings, Step, Wait, callback_url
from sagas.callbacks import CallbackApp
from sagas.progress import SagaStatus
from sagas.storage.records import Signal

SECRET, OTHER_SECRET = "s" * 20 + "ecret-of-the-shop", "another-secret-of-some-other-shop"


@dataclass
class Accepted:
    """What the courier says."""

    accepted: bool
    note: str = ""


@dataclass
class Parcel:
    """The saga's context."""

    item: str
    accepted: bool | None = None


class Pack(Step[Parcel]):
    def act(self, context: Parcel, call: Call) -> None:
        pass

    def compensate(self, context: Parcel, call: Call) -> None:
        pass


class CourierAccepts(Wait[Accepted]):
    name = "courier"
    aliases = ("carrier",)
    timeout = timedelta(days=2)

    def received(self, context: Parcel, signal: Accepted) -> None:
        context.accepted = signal.accepted


class SendParcel(Saga[Parcel]):
    steps = [Pack, CourierAccepts]


class CustomerHasIt(Wait[None]):
    pass


class PackForGood(Pack):
    name = "pack"

    def compensate(self, context: Parcel, call: Call) -> None:
        raise RuntimeError("it is taped up")


class Deliver(Saga[Parcel]):
    """It goes on after the courier's answer, and its compensation keeps failing."""

    steps = [PackForGood, CourierAccepts, CustomerHasIt]


class Shop:
    """An engine with a saga, and links to it."""

    def __init__(self, storage: PostgresSagaStorage, base: str) -> None:
        settings = Settings(callback_secret=(SECRET,), callback_url=base)
        self.storage = storage
        self.engine = SagaEngine(storage, settings=settings, sagas=[SendParcel, Deliver])

    def waiting(self, saga: type[Saga[Parcel]] = SendParcel) -> UUID:
        """A saga that waits for the courier."""
        report = self.engine.run(saga, Parcel("lamp"))
        assert report.status is SagaStatus.RUNNING
        return report.saga_id

    def link(self, saga_id: UUID | str, payload: Any = None, **options: Any) -> str:
        """A link of two days; the courier accepts."""
        if payload is None and "choices" not in options:
            payload = {"accepted": True}
        options = {"expires": timedelta(days=2), "engine": self.engine, **options}
        return callback_url(saga_id, "courier", payload, **options)

    def signals(self, saga_id: UUID) -> list[Signal]:
        return self.storage.signals(saga_id)

    def goes_on(self, saga_id: UUID) -> SagaStatus:
        """Run the saga as a worker would that gets its message."""
        return self.engine.recover(saga_id, by_hand=True).status


@contextmanager
def serving(application: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application on a port of loopback, in a thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


class Door:
    """The application, made once the server's address is known."""

    app: Callable[..., Any]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture
def shop(emptied_storage: PostgresSagaStorage) -> Iterator[Shop]:
    """A shop whose links are served."""
    door = Door()
    with serving(door, lifespan="off") as address:
        shop = Shop(emptied_storage, address)
        door.app = CallbackApp(shop.engine)
        yield shop


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client
