"""The ASGI application: its pages, and what guards each of them.

Each request passes in this order: security headers, who asks, their role, the token of the form, and only then the
page. Pages are plain functions that run in threads, as the database is asked by a driver that blocks.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sagas import api
from sagas.console import actions, bulk, pages
from sagas.console.access import Access, LoopbackOnly, Passwords, Person, Role
from sagas.console.failures import failure_of
from sagas.console.headers import SecurityHeaders
from sagas.console.login import LogIn, log_out
from sagas.console.rendering import STATIC, Pages
from sagas.console.sessions import Session, Sessions, new_session
from sagas.console.visit import PATIENCE_SECONDS, Desk, Refused, Visit, path_below
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: A form has a reason, a payload and some hidden fields.
_MOST_FORM_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 200

Handler = Callable[[Visit], Response]


def console(
    engine: SagaEngine | None = None, *, access: Access, patience_seconds: float = PATIENCE_SECONDS
) -> Starlette:
    """Return the console as an ASGI application, to serve or to mount.

    It runs no step of any saga. Mounted in your own application, it acts with that application's engine.

    Args:
        engine: acts on sagas; its storage is read. Default: that of the process.
        access: who may use it: `Passwords`, `LoopbackOnly`, or your own login: a function that gets the request and
            returns a `Person`, None, or a response such as a redirect to your login page. It may be async.
        patience_seconds: how long an action waits for a worker to give its saga back; default: 3.

    Raises:
        ConfigurationError: the engine's storage is not PostgreSQL, or `access` is none of the above.
    """
    engine = engine or api.current_engine()
    if not isinstance(engine.storage, PostgresSagaStorage):
        raise ConfigurationError(
            f"the console reads PostgreSQL, and this engine's storage is a {type(engine.storage).__name__}: give an "
            "engine with a PostgresSagaStorage."
        )
    if not (isinstance(access, LoopbackOnly | Passwords) or callable(access)):
        raise ConfigurationError(
            f"access is {access!r:.60}: give Passwords(operator=...), LoopbackOnly(person), or a function that gets "
            "the request and returns a Person or None. The console is never open to everybody."
        )
    desk = Desk(
        engine=engine,
        inspector=Inspector(engine.storage),
        pages=Pages(),
        log_out=isinstance(access, Passwords),
        patience_seconds=patience_seconds,
    )
    key = access.signing_key() if isinstance(access, Passwords) else secrets.token_bytes(32)
    gate = Gate(desk, access, Sessions(key))
    return Starlette(
        routes=[
            Mount("/static", StaticFiles(directory=STATIC)),
            *(Route(path, gate.page(handler), methods=["GET"]) for path, handler in pages.PAGES.items()),
            *gate.acting({**actions.ACTIONS, **bulk.ACTIONS}),
            *gate.logging_in(),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: gate.failed, Exception: gate.failed},
    )


class Gate:
    """Lets requests through to their pages.

    Args:
        desk: what all visits share.
        access: decides who may use the console.
        sessions: reads and writes sessions.
    """

    def __init__(self, desk: Desk, access: Access, sessions: Sessions) -> None:
        self._desk = desk
        self._access = access
        self._sessions = sessions

    def page(self, handler: Handler, *, role: Role = Role.VIEWER) -> Callable[[Request], Any]:
        """Return the endpoint of a page, which only people of this role see."""

        async def endpoint(request: Request) -> Response:
            known = self._sessions.read(request)
            session = known or new_session()
            try:
                person = await self._person(request, session)
                if isinstance(person, Response):
                    return person
                if role is Role.OPERATOR and person.role is not Role.OPERATOR:
                    raise Refused(
                        f"{person.name} may look and not act: only operators may do this. Ask one of them.", 403
                    )
                form = await self._form(request, session) if request.method == "POST" else {}
                visit = Visit(
                    desk=self._desk, request=request, person=person, token=self._sessions.token(session), form=form
                )
                response = await to_thread.run_sync(partial(handler, visit))
            except Exception as error:
                response = self._failure(request, error)
            if known is None:  # a session ends twelve hours after it began, also if a page goes on updating itself
                self._sessions.write(response, session, request)
            return response

        return endpoint

    def acting(self, handlers: dict[str, tuple[Handler, Handler]]) -> list[Route]:
        """Return the routes of actions: each has a page that asks, and a form that is sent there."""
        routes = []
        for path, (ask, act) in handlers.items():
            routes.append(Route(path, self.page(ask, role=Role.OPERATOR), methods=["GET"]))
            routes.append(Route(path, self.page(act, role=Role.OPERATOR), methods=["POST"]))
        return routes

    def logging_in(self) -> list[Route]:
        """Return the routes of the console's own login; none if the application has one."""
        if not isinstance(self._access, Passwords):
            return []
        login = LogIn(self._desk, self._access, self._sessions, self._form, self._failure)
        out = self.page(log_out)

        async def end(request: Request) -> Response:
            response: Response = await out(request)
            self._sessions.write(response, new_session(), request)
            return response

        return [
            Route("/login", login.ask, methods=["GET"]),
            Route("/login", login.answer, methods=["POST"]),
            Route("/logout", end, methods=["POST"]),
        ]

    async def failed(self, request: Request, error: Exception) -> Response:
        """Return the page of an error that no page has caught, such as a path that does not exist."""
        return self._failure(request, error)

    async def _person(self, request: Request, session: Session) -> Person | Response:
        access = self._access
        if isinstance(access, LoopbackOnly):
            if access.allows(request):
                return access.person
            raise Refused(
                "This console has no password, so it answers only this machine, by the name localhost and through no "
                "proxy. Give it a password (SAGAS_CONSOLE_PASSWORD) to use it from elsewhere.",
                403,
            )
        if isinstance(access, Passwords):
            if session.person is not None:
                return session.person
            target = request.url.path.removeprefix(request.scope.get("root_path", "")) or "/"
            asked = f"{target}?{request.url.query}" if request.url.query else target
            wanted = asked if request.method == "GET" and asked != "/" else None
            return RedirectResponse(path_below(request, "/login", next=wanted), 303)
        answer = access(request)
        found = await answer if inspect.isawaitable(answer) else answer
        if found is None:
            raise Refused("You are not logged in, or may not use this console.", 401)
        return found

    async def _form(self, request: Request, session: Session) -> dict[str, list[str]]:
        """Return the fields of a form that this console made for this session.

        Raises:
            Refused: it is too long, or was not made for this session.
        """
        fields = await _fields(request)
        if not _is_own(request) or not self._sessions.accepts(session, fields.get("token", [""])[0]):
            raise Refused(
                "This form was not made for your session, or the session has ended: open the page again and repeat "
                "what you did. Nothing was changed.",
                403,
            )
        return fields

    def _failure(self, request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.status == 500:
            logger.error("console: %s %s failed", request.method, request.url.path, exc_info=error)
        text = self._desk.pages.render(
            "failure.html", failure=failure, home=path_below(request, "/"), to=partial(path_below, request)
        )
        response = Response(text, failure.status, media_type="text/html")
        if failure.retry_after is not None:
            response.headers["Retry-After"] = str(failure.retry_after)
        return response


async def _fields(request: Request) -> dict[str, list[str]]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused("This is no form that the console has made.", 415)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            raise Refused(f"The form has more than {_MOST_FORM_BYTES // 1024} KiB: shorten it.", 413)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise Refused("The form cannot be read: it is not text in UTF-8, or has too many fields.") from error


def _is_own(request: Request) -> bool:
    """Whether the browser says that the form is of this site; a browser that says nothing is judged by the token."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
