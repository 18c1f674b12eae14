"""A console on the module's database, and people who use it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
import uvicorn

from sagas import PostgresSagaStorage, SagaEngine, Settings
from sagas.console import Passwords, console
from sagas.testing.processes import wait_until
from tests.integration.console.shop import Order, PlaceOrder, PrintBill, Restock
from tests.samples import DEADLINE_SECONDS

OPERATOR: Final = "an-operator's-password"
VIEWER: Final = "a-viewer's-password"

#: Starts a saga for an item and runs it as far as it goes.
Started = Callable[..., UUID]


class Browser:
    """One person's client, which keeps cookies and sends forms as a browser does."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, follow_redirects=True, timeout=60)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def token(self, path: str) -> str:
        """Return the token of the form on a page."""
        return fields(self.get(path).text)["token"]

    def send(self, path: str, **changed: str) -> httpx.Response:
        """Open a page, fill in its form and send it."""
        page = self.get(path)
        assert page.status_code == 200, page.text
        return self.client.post(path, data={**fields(page.text), **changed})

    def log_in(self, name: str, password: str) -> httpx.Response:
        return self.send("/login", name=name, password=password)


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields of the main form of a page."""
    form = page.rpartition('class="act"')[2] if 'class="act"' in page else page
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


@pytest.fixture
def engine(emptied_storage: PostgresSagaStorage) -> SagaEngine:
    """A worker's engine; one failed attempt and a saga is dead."""
    sagas = [PlaceOrder, Restock, PrintBill]
    return SagaEngine(emptied_storage, settings=Settings(max_recovery_attempts=1), sagas=sagas, node="worker-1")


@pytest.fixture
def app(emptied_storage: PostgresSagaStorage) -> Any:
    """A console behind passwords, whose process has none of the sagas' code."""
    bare = SagaEngine(emptied_storage, settings=Settings(max_recovery_attempts=1), node="console")
    return console(bare, access=Passwords(operator=OPERATOR, viewer=VIEWER), patience_seconds=0.3)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine, and yield its URL."""
    # asyncio turns the waiting for acknowledgements off only for sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, what="the console")
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(DEADLINE_SECONDS)
    listener.close()


@pytest.fixture
def url(app: Any) -> Iterator[str]:
    """Where the console is served."""
    with served(app) as url:
        yield url


@pytest.fixture
def ann(url: str) -> Browser:
    """An operator."""
    browser = Browser(url)
    assert "Overview" in browser.log_in("ann", OPERATOR).text
    return browser


@pytest.fixture
def bob(url: str) -> Browser:
    """Another operator."""
    browser = Browser(url)
    assert "Overview" in browser.log_in("bob", OPERATOR).text
    return browser


@pytest.fixture
def vic(url: str) -> Browser:
    """A viewer."""
    browser = Browser(url)
    assert "Overview" in browser.log_in("vic", VIEWER).text
    return browser


@pytest.fixture
def started(engine: SagaEngine) -> Started:
    """Runs a saga as far as it goes, and returns its id."""

    def start(item: str = "tea", saga: Any = PlaceOrder, **context: Any) -> UUID:
        return engine.run(saga, Order(item, **context)).saga_id

    return start
