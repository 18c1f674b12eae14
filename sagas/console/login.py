"""The console's own login, by password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sagas.console.access import Passwords, Person
from sagas.console.sessions import Session, Sessions, new_session
from sagas.console.throttle import Throttle
from sagas.console.visit import Desk, Refused, Visit, path_below
from sagas.telemetry.logs import saga_logger
from sagas.text import one_line

logger = saga_logger(__name__)

MOST_NAME_CHARACTERS: Final = 100

ReadForm = Callable[[Request, Session], Awaitable[dict[str, list[str]]]]
Fail = Callable[[Request, Exception], Response]


class LogIn:
    """Asks for a name and a password.

    Args:
        desk: renders the page.
        access: knows the passwords.
        sessions: reads and writes sessions.
        read_form: reads a form that was made for a session.
        fail: makes the page of an error.
    """

    def __init__(self, desk: Desk, access: Passwords, sessions: Sessions, read_form: ReadForm, fail: Fail) -> None:
        self._desk = desk
        self._access = access
        self._sessions = sessions
        self._read_form = read_form
        self._fail = fail
        self._throttle = Throttle()

    async def ask(self, request: Request) -> Response:
        """Show the form."""
        session = self._sessions.read(request) or new_session()
        return self._page(request, session, name="", problem=None)

    async def answer(self, request: Request) -> Response:
        """Let a person in who knows a password, under a session of their own."""
        session = self._sessions.read(request) or new_session()
        try:
            form = await self._read_form(request, session)
        except Refused as error:
            return self._fail(request, error)
        address = request.client.host if request.client else "unknown"
        name = one_line(form.get("name", [""])[0], MOST_NAME_CHARACTERS)
        if (wait := self._throttle.wait(address)) > 0:
            seconds = int(wait) + 1
            problem = f"Too many wrong passwords came from here: try it again in {seconds} seconds."
            response = self._page(request, session, name=name, problem=problem, status=429)
            response.headers["Retry-After"] = str(seconds)
            return response
        role = self._access.role_of(form.get("password", [""])[0])
        if role is None or not name:
            if role is None:
                self._throttle.failed(address)
                logger.warning("console: a wrong password from %s, under the name %s", address, name or "(none)")
            problem = "Give your name: it is logged with what you do." if role else "This password is wrong."
            return self._page(request, session, name=name, problem=problem, status=401)
        self._throttle.succeeded(address)
        logger.info("console: %s logged in as %s from %s", name, role, address)
        response = RedirectResponse(path_below(request, _safe(request.query_params.get("next"))), 303)
        # A new nonce: a session that somebody planted before the login is worth nothing after it.
        self._sessions.write(response, new_session(Person(name, role)), request)
        return response

    def _page(
        self, request: Request, session: Session, *, name: str, problem: str | None, status: int = 200
    ) -> Response:
        text = self._desk.pages.render(
            "login.html",
            name=name,
            problem=problem,
            token=self._sessions.token(session),
            action=path_below(request, "/login", next=request.query_params.get("next")),
            to=lambda path: path_below(request, path),
        )
        response = HTMLResponse(text, status)
        self._sessions.write(response, session, request)
        return response


def log_out(visit: Visit) -> Response:
    """Go back to the login; the caller ends the session."""
    return visit.go("/login")


def _safe(path: str | None) -> str:
    """Return a path of this console; anything else, such as another site, becomes the overview."""
    if path is None or not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isprintable():
        return "/"
    return path
