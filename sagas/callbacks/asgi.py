"""The ASGI application that serves callback links: GET shows what would be answered, POST answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from sagas import api
from sagas.callbacks import pages
from sagas.callbacks.answers import Standing, answer, standing_of
from sagas.callbacks.links import Link, Links
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError, SagaError, StorageUnavailable
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_METHODS: Final = ("GET", "HEAD", "POST")
_FORM: Final = "application/x-www-form-urlencoded"
#: A label of 100 characters, each written as up to four escaped bytes, and some room.
_LARGEST_BODY: Final = 2048


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    page: str
    headers: dict[str, str] = field(default_factory=dict)


def _sentence(status: int, title: str, sentence: str, **headers: str) -> _Response:
    page = pages.sentence_page(title, sentence)
    return _Response(status, page, {name.replace("_", "-"): value for name, value in headers.items()})


_NOT_FOUND: Final = _sentence(404, "Not found", "There is nothing here.")
_CLOSED: Final = _sentence(410, "This link is closed", "It was answered, has expired, or is no longer needed.")
_DONE: Final = _sentence(200, "Thank you", "Your answer was recorded. You can close this page.")
_NO_CHOICE: Final = _sentence(
    400, "Which answer?", "The request names none of the answers: open the link and choose one."
)
_TOO_LARGE: Final = _sentence(413, "Too large", "An answer is the name of one choice.")
_WRONG_TYPE: Final = _sentence(
    415, "Not understood", f"Send the answer as {_FORM}, as choice=Accept.", accept_post=_FORM
)
_WRONG_METHOD: Final = _sentence(405, "Not allowed", "Use GET or POST.", allow=", ".join(_METHODS))
_AWAY: Final = _sentence(
    503, "Try again later", "Your answer was not recorded. Please try again in a minute.", retry_after="60"
)
_UNSET: Final = _sentence(500, "Not set up", "Links cannot be answered here.")


class CallbackApp:
    """The ASGI application. It serves `/<token>` below the path at which it is mounted, and needs no framework.

    Args:
        engine: sends the signals; default: the engine of this process, when the first request comes.
    """

    def __init__(self, engine: SagaEngine | None = None) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif (response := await self._respond(scope, receive)) is not None:
            await _send(response, send, scope)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Refuse to start without the settings, where this application runs by itself."""
        await receive()
        try:
            await asyncio.to_thread(self._set_up)
        except SagaError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _set_up(self) -> tuple[SagaEngine, Links]:
        engine = self._engine or api.current_engine()
        return engine, Links(engine.settings.callback_secret)

    async def _respond(self, scope: Scope, receive: Receive) -> _Response | None:
        """Return the response; None if the client has gone."""
        if scope["method"] not in _METHODS:
            return _WRONG_METHOD
        try:
            # The engine reads modules and the database, so that it must not block the event loop.
            engine, links = await asyncio.to_thread(self._set_up)
            link = links.read(_token(scope))
            if link is None:
                return _NOT_FOUND
            standing = await asyncio.to_thread(standing_of, link, engine)
            if standing is not Standing.OPEN:
                return _refusal(standing)
            if scope["method"] != "POST":
                return _Response(200, pages.question_page(link))
            return await _answer(link, engine, scope, receive)
        except StorageUnavailable as error:
            logger.warning("a callback link was not answered: %s", error)
            return _AWAY
        except ConfigurationError as error:
            logger.error("callback links cannot be answered: %s", error)
            return _UNSET


async def _answer(link: Link, engine: SagaEngine, scope: Scope, receive: Receive) -> _Response | None:
    headers = {name.lower(): value for name, value in scope["headers"]}
    body = await _body(headers, receive)
    if body is None or isinstance(body, _Response):
        return body
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if body and kind != _FORM:
        return _WRONG_TYPE
    label = _label(body, link)
    if label is None:
        return _NO_CHOICE
    standing = await answer(link, link.choices[label], engine)
    return _DONE if standing is Standing.OPEN else _refusal(standing)


def _refusal(standing: Standing) -> _Response:
    return _NOT_FOUND if standing is Standing.UNKNOWN else _CLOSED


def _token(scope: Scope) -> str:
    """Return what follows the place at which the application is mounted, which must be one segment."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and path.startswith(f"{root}/"):
        path = path[len(root) :]
    return path.removeprefix("/")


def _label(body: bytes, link: Link) -> str | None:
    """Return the choice that the body names; the only one if the body is empty."""
    if not body:
        return next(iter(link.choices)) if len(link.choices) == 1 else None
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=1, errors="strict")
    except ValueError:
        return None
    (label,) = fields.get("choice", [None])
    return label if label in link.choices else None


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes | _Response | None:
    """Return the body, or the response if it is too large; None if the client has gone."""
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > len(str(_LARGEST_BODY)) or int(announced) > _LARGEST_BODY:
        return _TOO_LARGE
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _LARGEST_BODY:
            return _TOO_LARGE
    return body


async def _send(response: _Response, send: Send, scope: Scope) -> None:
    body = response.page.encode()
    headers = {**pages.HEADERS, **response.headers, "content-length": str(len(body))}
    if response is _TOO_LARGE and str(scope.get("http_version", "1.1")).startswith("1"):
        headers["connection"] = "close"  # or the server would receive the rest of the body
    listed = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": listed})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


#: Serves the links of the engine of this process. Mount it where SAGAS_CALLBACK_URL says.
app: Final = CallbackApp()
