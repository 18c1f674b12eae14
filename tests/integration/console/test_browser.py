"""Every page and action in a real headless Chromium. `make test-console` installs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus
from sagas.console import LoopbackOnly, Person, Role, console
from sagas.storage.records import SagaState
from sagas.testing.processes import CeleryProcess, wait_until
from tests.integration.console.conftest import OPERATOR, VIEWER, Started, served
from tests.integration.console.shop import Order, PlaceOrder, PrintBill, Restock
from tests.integration.console.test_pages import HOSTILE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-console installs it")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

# The shell is the same browser without windows, for half the processor time.
CHROMIUM: Final = (
    shutil.which("chromium-headless-shell") or shutil.which("chromium") or shutil.which("chromium-browser")
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: make test-console installs it"),
    pytest.mark.slow(10),
]
#: Where the suite leaves the pictures of the documentation; they are not kept otherwise.
PICTURES: Final = os.environ.get("SAGAS_PICTURES")
SECONDS: Final = 30_000.0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens a tab of a person of their own; the test fails if any page says that something is wrong with it."""
    problems: list[str] = []
    contexts = []

    def open_tab(**options: Any) -> Page:
        context = chromium.new_context(base_url=url, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("console", lambda message: message.type in ("error", "warning") and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(url) or problems.append(f"asks {request.url}"))
        return page

    yield open_tab
    for context in contexts:
        context.close()
    # A refusal has a status of its own, which the browser reports; nothing else may be wrong.
    assert [problem for problem in problems if "status of 4" not in problem] == []


def log_in(page: Page, name: str = "ann", password: str = OPERATOR) -> Page:
    page.goto("/login")
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    return page


@pytest.fixture
def shop(started: Started, engine: SagaEngine, emptied_storage: PostgresSagaStorage) -> dict[str, UUID]:
    """Sagas in several states, and a paused name."""
    customer = {"name": "Kim", "phone": "555-0199"}
    ids = {
        "waiting": started(customer=customer),
        "dead": started("stuck"),
        "backing off": started("unpaid"),
        "stuck": started(saga=PrintBill),
        "done": started(saga=Restock),
        "new": engine.start(Restock, Order(), idempotency_key="restock-7", tags={"customer": "c-7"}),
    }
    emptied_storage.pause("restock", actor="bob", reason="the shelf is being moved")
    return ids


def addresses(shop: dict[str, UUID]) -> list[str]:
    waiting, dead = shop["waiting"], shop["dead"]
    return [
        *("/", "/sagas", "/sagas?state=waiting", "/dead", "/schedules", "/workers", "/pauses", "/pauses/pause"),
        *("/pauses/resume?name=restock", "/bulk?state=dead&action=retry", "/nowhere", f"/sagas/{dead}"),
        *(f"/sagas/{shop[each]}" for each in ("waiting", "backing off", "stuck", "done", "new")),
        *(f"/sagas/{waiting}/{action}" for action in ("signal", "cancel", "compensate", "skip", "resolve")),
        f"/sagas/{dead}/retry",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 800}},
        {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
        {"viewport": {"width": 320, "height": 640}},
    ],
    ids=["wide", "dark", "narrow"],
)
def test_every_page_can_be_read_by_everybody(
    tab: Callable[..., Page], shop: dict[str, UUID], options: dict[str, Any]
) -> None:
    page = log_in(tab(**options))

    for address in addresses(shop):
        page.goto(address)
        assert page.locator("h1").count() == 1, address
        found = Axe().run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == [], address
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address


def test_every_action_works_without_javascript(
    tab: Callable[..., Page], shop: dict[str, UUID], emptied_storage: PostgresSagaStorage, engine: SagaEngine
) -> None:
    page = log_in(tab(java_script_enabled=False))

    def act(which: str, link: str, button: str, **filled: str) -> None:
        page.goto(f"/sagas/{shop[which]}")
        page.get_by_role("link", name=link, exact=True).click()
        for label, text in {**filled, "Reason": f"by hand: {which}"}.items():
            page.get_by_label(label).fill(text)
        page.get_by_role("button", name=button, exact=True).click()
        page.get_by_role("status").wait_for()

    act("waiting", "Send a signal…", "Send a signal", Payload='{"courier": "kim"}')
    engine.recover(shop["waiting"])
    act("waiting", "Cancel…", "Cancel")
    assert engine.recover(shop["waiting"]).status is SagaStatus.COMPENSATED
    act("dead", "Revive…", "Revive")
    act("dead", "Skip the next step…", "Skip the next step")
    act("backing off", "Retry now…", "Retry now")
    act("backing off", "Compensate now…", "Compensate now")
    page.goto(f"/sagas/{shop['stuck']}/resolve")
    page.get_by_label("COMPLETED").check()
    page.get_by_label("Reason").fill("printed by hand")
    page.get_by_role("button", name="Resolve by hand").click()
    page.get_by_text("It has ended as COMPLETED").wait_for()
    page.goto("/pauses")
    page.get_by_role("link", name="Resume…").click()
    page.get_by_label("Reason").fill("moved")
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("No name is paused").wait_for()
    page.get_by_role("link", name="Pause a name…").click()
    page.get_by_label("Name of the sagas").fill("place-order")
    page.get_by_label("Reason").fill("holiday")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("The name is paused.").wait_for()
    page.goto("/sagas")
    page.locator("summary").click()
    page.get_by_label("Name", exact=True).fill("restock")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="cancel…").click()
    page.get_by_label("Reason").fill("the shelf is gone")
    page.get_by_role("button", name="Cancel 1 saga").click()
    page.get_by_role("heading", name="Cancel: 1 done").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()

    by_ann = [entry.step for entry in emptied_storage.load(shop["dead"]).log if entry.actor == "ann"]
    assert by_ann == ["retry", "reserve"]
    assert emptied_storage.load(shop["stuck"]).status is SagaStatus.COMPLETED
    assert emptied_storage.load(shop["backing off"]).status is SagaStatus.COMPENSATING
    assert [pause.name for pause in emptied_storage.pauses()] == ["place-order"]
    assert [(signal.actor, signal.reason) for signal in emptied_storage.signals(shop["new"])] == [
        ("ann", "the shelf is gone")
    ]


def test_an_action_is_done_by_keyboard_alone(
    tab: Callable[..., Page], shop: dict[str, UUID], emptied_storage: PostgresSagaStorage
) -> None:
    page = log_in(tab())
    page.goto(f"/sagas/{shop['dead']}")

    def tab_to(text: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent").strip().startswith(text):
                return
        raise AssertionError(f"{text} was not reached")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to("Revive…")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Revive").wait_for()
    page.get_by_label("Reason").focus()
    page.keyboard.type("by keyboard")
    tab_to("Revive")
    page.keyboard.press("Enter")
    page.get_by_text("It is due now").wait_for()

    assert emptied_storage.load(shop["dead"]).log[-1].reason == "by keyboard"


def test_hostile_text_runs_nothing(
    tab: Callable[..., Page], engine: SagaEngine, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = engine.start(PlaceOrder, Order(HOSTILE, note={HOSTILE: [HOSTILE]}), tags={"t": HOSTILE})
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute(
            "UPDATE saga_executions SET name = %s, last_error = %s, status = 'FAILED', state = 'dead', "
            "available_at = 'infinity'",
            [HOSTILE, HOSTILE],
        )
    page = log_in(tab(), name="<b>ann</b>")

    for address in ("/", "/sagas", "/dead", f"/sagas/{saga_id}", f"/sagas/{saga_id}/resolve"):
        page.goto(address)
        assert page.locator("img, main script, main b").count() == 0
        page.locator("main").get_by_text("<script>alert(1)</script>").first.wait_for()


def test_a_page_updates_itself_until_it_is_told_not_to(
    tab: Callable[..., Page], shop: dict[str, UUID], emptied_storage: PostgresSagaStorage
) -> None:
    page = log_in(tab())
    page.goto(f"/sagas/{shop['dead']}")
    page.evaluate("window.sameDocument = true")
    emptied_storage.set_recovery_attempts(shop["dead"], 0)

    page.get_by_text("It has been due since").wait_for()
    assert page.evaluate("window.sameDocument")

    page.get_by_role("button", name="Live", exact=True).click()
    assert page.get_by_role("button", name="Not live").get_attribute("aria-pressed") == "false"


def test_viewers_are_offered_no_action(tab: Callable[..., Page], shop: dict[str, UUID]) -> None:
    page = log_in(tab(), "vic", VIEWER)

    for address in ("/sagas?state=dead", "/dead", "/pauses", f"/sagas/{shop['dead']}"):
        page.goto(address)
        assert page.locator("main a.button").count() == 0
    page.goto(f"/sagas/{shop['dead']}/retry")
    page.get_by_text("vic may look and not act").wait_for()


def test_the_slower_of_two_operators_is_told(
    tab: Callable[..., Page], shop: dict[str, UUID], emptied_storage: PostgresSagaStorage
) -> None:
    ann, bob = log_in(tab()), log_in(tab(), "bob")
    for page, action in ((ann, "retry"), (bob, "resolve")):
        page.goto(f"/sagas/{shop['dead']}/{action}")
        page.get_by_label("Reason").fill("me first")
    bob.get_by_label("COMPENSATED").check()

    ann.get_by_role("button", name="Revive").click()
    ann.get_by_role("status").wait_for()
    bob.get_by_role("button", name="Resolve by hand").click()

    assert "has changed since you looked" in bob.get_by_role("alert").inner_text()
    assert bob.get_by_label("Reason").input_value() == "me first"
    assert [entry.actor for entry in emptied_storage.load(shop["dead"]).log if entry.actor] == ["ann"]


@contextmanager
def command(environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run `sagas console` as an operator does, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sagas.cli", "console", "--port", str(port)],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), what="the console")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code in (200, 303)
    except httpx.HTTPError:
        return False


def test_the_command_beside_real_workers(
    chromium: Browser, emptied_url: str, broker_url: str, repository: Path, tmp_path: Path, engine: SagaEngine
) -> None:
    environment = {
        "SAGAS_DATABASE_URL": emptied_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "tests.integration.console.shop",
        "SAGAS_SCAN_INTERVAL_SECONDS": "0.5",
        "PYTHONPATH": str(repository),
        "TMPDIR": str(tmp_path),
    }
    saga_id = engine.run(PlaceOrder, Order()).saga_id
    worker = ["worker", "--beat", "-s", str(tmp_path / "beat"), "-c", "2", "-n", "w@console", "-l", "INFO"]
    with (
        command(environment, tmp_path / "console.log") as url,
        CeleryProcess(worker, environment=environment, log=tmp_path / "worker.log", directory=tmp_path),
    ):
        context = chromium.new_context(base_url=url)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 2)
        page.goto("/")
        page.get_by_text("The last one ran").wait_for()  # a scan, seen by a live update
        page.goto(f"/sagas/{saga_id}/signal")
        page.get_by_label("Payload").fill('{"courier": "kim"}')
        page.get_by_label("Reason").fill("called")
        page.get_by_role("button", name="Send a signal").click()
        page.get_by_text("It sleeps in cool-down").wait_for()
        page.get_by_role("link", name="Cancel…").click()
        page.get_by_label("Reason").fill("out of stock")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_text("It has ended as COMPENSATED").wait_for()
        context.close()
    assert "retry" not in (tmp_path / "console.log").read_text()
    assert "cancel saga" in (tmp_path / "console.log").read_text()


def test_pictures_for_the_documentation(
    chromium: Browser, engine: SagaEngine, emptied_storage: PostgresSagaStorage, shop: dict[str, UUID], tmp_path: Path
) -> None:
    folder = Path(PICTURES) if PICTURES else tmp_path
    app = console(
        SagaEngine(emptied_storage, settings=engine.settings), access=LoopbackOnly(Person("ann", Role.OPERATOR))
    )
    pictures = {
        "console-overview": ("/", {"viewport": {"width": 1200, "height": 520}}),
        "console-saga": (f"/sagas/{shop['waiting']}", {"viewport": {"width": 1200, "height": 900}}),
        "console-undo": (f"/sagas/{shop['waiting']}/cancel", {"viewport": {"width": 1200, "height": 640}}),
        "console-dead": (
            f"/sagas/{shop['dead']}",
            {"viewport": {"width": 1200, "height": 760}, "color_scheme": "dark"},
        ),
        "console-phone": (f"/sagas/{shop['waiting']}", {"viewport": {"width": 360, "height": 720}}),
    }
    assert emptied_storage.load(shop["dead"]).state is SagaState.DEAD
    with served(app) as url:
        for name, (address, options) in pictures.items():
            context = chromium.new_context(base_url=url, **options)
            page = context.new_page()
            page.goto(address)
            page.screenshot(path=folder / f"{name}.png")
            context.close()
            assert 5_000 < (folder / f"{name}.png").stat().st_size < 150_000
