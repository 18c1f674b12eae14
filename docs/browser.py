"""A headless Chromium that takes pictures of parts of pages, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
from itertools import count
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from tornado.websocket import WebSocketClientConnection, websocket_connect

from sagas.testing.processes import launch, wait_until

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
#: A page that shows what it should.
_DEADLINE_SECONDS = 30


def find() -> str:
    """Return the path of the system's Chromium.

    Raises:
        SystemExit: there is none.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("There is no Chromium here to take pictures with: install it (Debian: apt install chromium).")
    return program


class Browser:
    """A Chromium with one tab; use it in an `async with`.

    Args:
        home: an empty folder for its profile and its log.
        user: name and password that it gives to whoever asks.
    """

    def __init__(self, home: Path, *, user: str) -> None:
        self._home = home
        self._user = user
        self._numbers = count(1)
        self._tab: WebSocketClientConnection

    async def __aenter__(self) -> Self:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit(
                "There is no Chromium here to take pictures with: install it (Debian: apt install chromium)."
            )
        command = [program, *_OPTIONS, f"--user-data-dir={self._home}", "about:blank"]
        self._process = launch(command, SIGKILL, log=self._home.with_suffix(".log"))
        told = self._home / "DevToolsActivePort"
        wait_until(lambda: told.exists() and told.read_text().strip(), what="Chromium")
        port = told.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (tab,) = [tab for tab in json.load(answer) if tab["type"] == "page"]
        self._tab = await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=50 * 2**20)
        await self._ask("Network.enable")
        authorization = f"Basic {base64.b64encode(self._user.encode()).decode()}"
        await self._ask("Network.setExtraHTTPHeaders", headers={"Authorization": authorization})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, SIGKILL)  # it has a process for each of its parts
        self._process.wait()

    async def picture(
        self, url: str, path: Path, *, of: str, when: str, width: int, height: int, scale: float = 1
    ) -> None:
        """Open a page, wait until it shows what it should, and save a picture of one of its elements.

        Args:
            of: the element, as a CSS selector.
            when: a JavaScript expression that is true as soon as the page is ready.
            width: of the window, in pixels.
            height: of the window, and of what is shown of the element at most.
            scale: what the picture's size is multiplied by.

        Raises:
            TimeoutError: the page never was ready.
        """
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._ask("Emulation.setDeviceMetricsOverride", **size)
        await self._ask("Page.navigate", url=url)
        end = time.monotonic() + _DEADLINE_SECONDS
        # Until the page is there, the elements that the condition names are not.
        while not await self._evaluate(f"(() => {{ try {{ return Boolean({when}) }} catch {{ return false }} }})()"):
            if time.monotonic() > end:
                raise TimeoutError(f"{url} never was ready ({when}): {await self._evaluate('document.body.innerText')}")
            await asyncio.sleep(0.05)
        box = await self._evaluate(
            f"JSON.parse(JSON.stringify(document.querySelector({of!r}).getBoundingClientRect()))"
        )
        clip = {key: box[key] for key in ("x", "y", "width")} | {"height": min(box["height"], height), "scale": scale}
        taken = await self._ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    async def _evaluate(self, expression: str) -> Any:
        answer = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def _ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        await self._tab.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := await self._tab.read_message()) is not None:
            answer = json.loads(message)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
        raise RuntimeError(f"{method}: Chromium closed the connection, so it ended")
